"""EAGLE as published by its authors: EAGLE-1 is the package eagle-llm 1.2.1, EAGLE-2 and EAGLE-3 a checkout of SafeAILab/EAGLE.

Both are Python packages called `eagle`, and neither is edited. Draft trees are observed by wrapping two of their functions.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from .common import PROMPT_BLOCK, check_method, end_tokens, installed_version

METHODS = {"eagle1": "draft", "eagle2": "draft", "eagle3": "eagle3"}
"""Each method, and the draft checkpoint that it needs."""

CAPABILITIES = ["temperature", "top_k", "top_p", "eos", "blocks"]

EAGLE1_DEPTH, EAGLE1_NODES = 5, 25
"""Size of EAGLE-1's static tree, `mc_sim_7b_63`. No budget of EAGLE-2 gives this tree, so its tau has no reference value."""

EAGLE1_WIDTH = 10
"""Tokens that EAGLE-1 samples at a node, of which its tree uses at most four."""


class Engine:
    """`eagenerate` of the published EaModel, one prompt at a time; without speculation, its `naivegenerate`.

    The package returns whole blocks. Texts are cut at their length and after their end-of-text token, as the package's own
    scripts do.

    Options:
        method: one of METHODS.
        path: a folder that contains the package `eagle`; it takes precedence over an installed one.
        k, depth, m: budget of EAGLE-2's trees in the paper's terms. The package calls them top_k, depth (without the first
            layer) and total_token (with the root).
    """

    @classmethod
    def describe(
        cls, method: str = "eagle2", path: str = "", k: int = 8, depth: int = 6, m: int = 25, **_: Any
    ) -> dict[str, Any]:
        static = method == "eagle1"
        return {
            "capabilities": CAPABILITIES if static else [*CAPABILITIES, "budget", "deterministic"],
            "version": _version(path),
            "checkpoint": METHODS.get(method, "none"),
            "budget": {"depth": EAGLE1_DEPTH} if static else {"k": int(k), "depth": int(depth), "m": int(m)},
        }

    def __init__(
        self,
        target: str,
        draft: str | None = None,
        *,
        method: str = "eagle2",
        path: str = "",
        k: int = 8,
        depth: int = 6,
        m: int = 25,
        dtype: str = "float32",
    ) -> None:
        from .eagle_package import load, package

        check_method(method, METHODS)
        self.package, self.speculates, self.static = package(path), draft is not None, method == "eagle1"
        if hasattr(self.package, "Model1") == self.static:  # EAGLE-2's head, which EAGLE-1 does not have
            raise ImportError(f"{self.package.__file__} has no {method}: eagle-llm is EAGLE-1, a checkout has the others")
        budget = {"total_token": m + 1, "depth": depth - 1, "top_k": k, "use_eagle3": method == "eagle3" and self.speculates}
        extra = (EAGLE1_NODES if self.static else m) + 12  # for the last tree, and ten positions that EAGLE-2 reserves
        self.model, self.context = load(self.package, target, draft, dtype, extra, {} if self.static else budget)
        self.limits = {} if self.static else {"max_length": self.context + extra}

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[dict[str, Any]]:
        return [self._generate(*row) for row in zip(prompts, params, seeds, strict=True)]

    def _generate(self, prompt: list[int], params: dict[str, Any], seed: int) -> dict[str, Any]:
        import torch

        torch.manual_seed(seed)
        random.seed(seed)
        ends = end_tokens(params)
        self.model.tokenizer.eos_token_id = ends[0] if ends else None  # it stops at one token; at the others the text is cut
        length = min(params["max_new_tokens"], self.context - len(prompt))
        sampling = {name: value for name, value in params.items() if name not in ("max_new_tokens", "eos_token_id")}
        if unknown := sampling.keys() - {"temperature", "top_k", "top_p"}:
            raise NotImplementedError(f"eagenerate takes no {', '.join(sorted(unknown))}")
        with _recorded_passes(self.package) as passes:
            text = self._decode(torch.tensor([prompt]), length, sampling)
        tokens = _cut(text[0, len(prompt) :].tolist(), length, ends)
        return {"tokens": tokens, "blocks": _blocks(passes, len(tokens))} if self.speculates else {"tokens": tokens}

    def _decode(self, text: Any, length: int, sampling: dict[str, Any]) -> Any:
        """`text` and at least `length` new tokens: the package stops once it has more than `max_new_tokens`."""
        if self.static and not self.speculates:
            return _decode_alone(self.package, self.model.base_model, text, length, sampling)
        if self.static:
            _set_width(min(EAGLE1_WIDTH, self.model.vocab_size))
        generate = self.model.eagenerate if self.speculates else self.model.naivegenerate
        return generate(text, max_new_tokens=length - 1, **self.limits, **sampling)


def _version(path: str) -> str:
    """The version of an installed package; for a folder, a checksum of its decoding code."""
    if path:
        files = sorted(Path(path).glob("eagle/model/*.py"))
        if not files:
            raise NotImplementedError(f"there is no package eagle in {path}: give a checkout of SafeAILab/EAGLE")
        return "eagle/model " + hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    return installed_version("eagle-llm")


def _set_width(width: int) -> None:
    """EAGLE-1 samples ten tokens per node, by constants of three modules; a smaller vocabulary does not have so many."""
    from eagle.model import cnets, utils, utils_c

    cnets.top_k = utils.TOPK = utils_c.TOPK = width


def _decode_alone(package: Any, model: Any, text: Any, length: int, sampling: dict[str, Any]) -> Any:
    """The target without drafts, by the loop of EAGLE-1's baseline scripts; its `naive_generate` ignores the temperature."""
    import torch

    processors = package.prepare_logits_processor(**sampling)
    cache, *_ = package.initialize_past_key_values(model)
    new = text
    with torch.inference_mode():
        for _ in range(length):
            logits = model(new, past_key_values=cache, use_cache=True).logits[:, -1]
            new = (
                torch.multinomial(processors(None, logits).softmax(-1), 1) if processors is not None else logits.argmax(-1)[None]
            )
            text = torch.cat([text, new], dim=1)
    return text


Pass = tuple[list[int], list[list[int]], int]
"""Tokens of a tree, root first; its paths as lists of nodes, padded with -1; number of accepted tokens."""


@contextlib.contextmanager
def _recorded_passes(package: Any) -> Iterator[list[Pass]]:
    """Record the arguments of `tree_decoding` and the results of `evaluate_posterior`, one pass at a time."""
    verify, accept = package.tree_decoding, package.evaluate_posterior
    passes: list[Pass] = []
    drafted: list[Any] = []

    def tree_decoding(model: Any, tokens: Any, past: Any, positions: Any, text: Any, paths: Any) -> Any:
        drafted[:] = [tokens[0].tolist(), paths.tolist()]
        return verify(model, tokens, past, positions, text, paths)

    def evaluate_posterior(*arguments: Any) -> Any:
        best, accepted, following = accept(*arguments)
        passes.append((*drafted, int(accepted)))
        return best, accepted, following

    package.tree_decoding, package.evaluate_posterior = tree_decoding, evaluate_posterior
    try:
        yield passes
    finally:
        package.tree_decoding, package.evaluate_posterior = verify, accept


def _cut(tokens: list[int], length: int, ends: list[int]) -> list[int]:
    first = next((i for i, token in enumerate(tokens[:length]) if token in ends), length)
    return tokens[: min(first + 1, length)]


def _blocks(passes: list[Pass], length: int) -> list[dict[str, Any]]:
    """The prompt's block, and those of the passes that the text needs; the package makes one pass more."""
    blocks, emitted = [PROMPT_BLOCK], 1
    for tokens, paths, accepted in passes:
        if emitted >= length:
            break
        accepted = min(accepted, length - emitted)
        blocks.append({"accepted": accepted, "tokens": tokens, "parents": _parents(len(tokens), paths)})
        emitted += accepted + 1
    return blocks


def _parents(size: int, paths: list[list[int]]) -> list[int]:
    """Parents of the nodes, from the paths; -1 for the root and for nodes on no path."""
    parents = [-1] * size
    for path in paths:
        for parent, node in pairwise(path):
            if node >= 0:
                parents[node] = parent
    return parents
