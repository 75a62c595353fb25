"""EAGLE as its authors published it: EAGLE-1 is the package eagle-llm 1.2.1, EAGLE-2 and EAGLE-3 a checkout of SafeAILab/EAGLE.

Both are Python packages called `eagle`. Nothing of them is edited; trees are read by standing between two of their functions.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

METHODS = {"eagle1": "draft", "eagle2": "draft", "eagle3": "eagle3"}
"""Each method, and the head of a pair that it drafts with."""

CAPABILITIES = ["temperature", "top_k", "top_p", "eos", "blocks"]

EAGLE1_DEPTH, EAGLE1_NODES = 5, 25
"""Of EAGLE-1's static tree, `mc_sim_7b_63`. No budget of EAGLE-2's gives it, so that its tau has nothing to be compared with."""

EAGLE1_WIDTH = 10
"""Tokens that EAGLE-1 draws at a node, of which its tree has the first four at most."""


class Engine:
    """`eagenerate` of the published EaModel, a prompt at a time; with speculation off, its `naivegenerate`.

    path: a folder with the package `eagle` in it, put before what is installed. k, depth, m: the budget of EAGLE-2's trees in
    the paper's words; the package says top_k, depth (the first layer not counted) and total_token (the root counted).
    Texts are cut at their length and behind their end-of-text token, as the package's own scripts do: it returns whole blocks.
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

        if method not in METHODS:
            raise ValueError(f"there is no method {method!r}; known are {', '.join(METHODS)}")
        self.package, self.speculates, self.static = package(path), draft is not None, method == "eagle1"
        if hasattr(self.package, "Model1") == self.static:  # EAGLE-2's head, of which EAGLE-1 knows nothing
            raise ImportError(f"{self.package.__file__} has no {method}: eagle-llm is EAGLE-1, a checkout has the others")
        budget = {"total_token": m + 1, "depth": depth - 1, "top_k": k, "use_eagle3": method == "eagle3" and self.speculates}
        room = (EAGLE1_NODES if self.static else m) + 12  # for the last tree, and ten that EAGLE-2 keeps free
        self.model, self.context = load(self.package, target, draft, dtype, room, {} if self.static else budget)
        self.limits = {} if self.static else {"max_length": self.context + room}

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[dict[str, Any]]:
        return [self._generate(*row) for row in zip(prompts, params, seeds, strict=True)]

    def _generate(self, prompt: list[int], params: dict[str, Any], seed: int) -> dict[str, Any]:
        import torch

        torch.manual_seed(seed)
        random.seed(seed)
        eos = params.get("eos_token_id")
        ends = eos if isinstance(eos, list) else [eos]
        self.model.tokenizer.eos_token_id = ends[0]  # it stops at one; at the others its text is cut
        length = min(params["max_new_tokens"], self.context - len(prompt))
        asked = {name: value for name, value in params.items() if name not in ("max_new_tokens", "eos_token_id")}
        if unknown := asked.keys() - {"temperature", "top_k", "top_p"}:
            raise NotImplementedError(f"eagenerate takes no {', '.join(sorted(unknown))}")
        with _watched(self.package) as passes:
            text = self._decode(torch.tensor([prompt]), length, asked)
        tokens = _cut(text[0, len(prompt) :].tolist(), length, ends)
        return {"tokens": tokens, "blocks": _blocks(passes, len(tokens))} if self.speculates else {"tokens": tokens}

    def _decode(self, text: Any, length: int, asked: dict[str, Any]) -> Any:
        """`text` and at least `length` tokens: the package goes on while it has no more than `max_new_tokens`."""
        if self.static and not self.speculates:
            return _alone(self.package, self.model.base_model, text, length, asked)
        if self.static:
            _set_width(min(EAGLE1_WIDTH, self.model.vocab_size))
        generate = self.model.eagenerate if self.speculates else self.model.naivegenerate
        return generate(text, max_new_tokens=length - 1, **self.limits, **asked)


def _version(path: str) -> str:
    """Of an installed package its version; of a folder a checksum of the code that decodes, which must be there."""
    if path:
        files = sorted(Path(path).glob("eagle/model/*.py"))
        if not files:
            raise NotImplementedError(f"there is no package eagle in {path}: it takes a checkout of SafeAILab/EAGLE")
        return "eagle/model " + hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return f"eagle-llm {importlib.metadata.version('eagle-llm')}"
    return ""


def _set_width(width: int) -> None:
    """EAGLE-1 draws ten tokens a node: constants of three modules, which a smaller vocabulary cannot meet."""
    from eagle.model import cnets, utils, utils_c

    cnets.top_k = utils.TOPK = utils_c.TOPK = width


def _alone(package: Any, model: Any, text: Any, length: int, asked: dict[str, Any]) -> Any:
    """The target without drafts. EAGLE-1's own `naive_generate` takes the most likely token at every temperature; this is the
    loop of its baseline scripts, which do not."""
    import torch

    processors = package.prepare_logits_processor(**asked)
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
"""Tokens of a tree, root first; its paths as lists of nodes, padded with -1; how many tokens of it were accepted."""


@contextlib.contextmanager
def _watched(package: Any) -> Iterator[list[Pass]]:
    """What `tree_decoding` is given and `evaluate_posterior` answers, a pass each."""
    verify, accept = package.tree_decoding, package.evaluate_posterior
    passes: list[Pass] = []
    drafted: list[Any] = []

    def watch_tree(model: Any, tokens: Any, past: Any, positions: Any, text: Any, paths: Any) -> Any:
        drafted[:] = [tokens[0].tolist(), paths.tolist()]
        return verify(model, tokens, past, positions, text, paths)

    def watch_rule(*arguments: Any) -> Any:
        best, accepted, following = accept(*arguments)
        passes.append((*drafted, int(accepted)))
        return best, accepted, following

    package.tree_decoding, package.evaluate_posterior = watch_tree, watch_rule
    try:
        yield passes
    finally:
        package.tree_decoding, package.evaluate_posterior = verify, accept


def _cut(tokens: list[int], length: int, ends: list[int | None]) -> list[int]:
    first = next((i for i, token in enumerate(tokens[:length]) if token in ends), length)
    return tokens[: min(first + 1, length)]


def _blocks(passes: list[Pass], length: int) -> list[dict[str, Any]]:
    """The prompt's pass and those that the text needs: the package makes one more than that."""
    blocks: list[dict[str, Any]] = [{"accepted": 0, "tokens": [], "parents": []}]
    told = 1
    for tokens, paths, accepted in passes:
        if told >= length:
            break
        accepted = min(accepted, length - told)
        blocks.append({"accepted": accepted, "tokens": tokens, "parents": _parents(len(tokens), paths)})
        told += accepted + 1
    return blocks


def _parents(size: int, paths: list[list[int]]) -> list[int]:
    """Parents as the paths have them; -1 at the root, and at what no path leads to."""
    parents = [-1] * size
    for path in paths:
        for parent, node in pairwise(path):
            if node >= 0:
                parents[node] = parent
    return parents
