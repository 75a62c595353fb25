"""llama.cpp through llama-cpp-python 0.3.36: the drafter is a callable from text to tokens; verification samples and compares."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from .common import PROMPT_BLOCK, SAMPLING, chain_budget, check_method, end_tokens, read_config
from .gguf_file import write

METHODS = {"prompt_lookup": "none", "draft_model": "small"}
"""Ways of drafting, and the draft checkpoint that each needs."""


class Engine:
    """One text after another: the engine has no batches. It keeps the cache of the last text and continues from a shared prefix.

    prompt_lookup copies the tokens that followed an earlier occurrence of the last two; draft_model decodes a small model
    greedily. The context is the model's, but at most n_ctx: the engine stores logits of the whole vocabulary at every position.
    """

    @classmethod
    def describe(cls, method: str = "prompt_lookup", depth: int = 3, **_options: Any) -> dict[str, Any]:
        return {
            "capabilities": [*SAMPLING, "blocks", "context", "deterministic", "logprobs"],
            "version": f"llama-cpp-python {version('llama-cpp-python')}",
            "checkpoint": METHODS.get(method, "none"),
            "logprobs": "raw",
            "budget": chain_budget(depth),
        }

    def __init__(
        self,
        target: str,
        draft: str | None = None,
        *,
        method: str = "prompt_lookup",
        depth: int = 3,
        dtype: str = "float32",
        n_ctx: int = 2048,
    ) -> None:
        check_method(method, METHODS)
        if dtype != "float32":
            raise NotImplementedError(f"the GGUF file is written in float32, not {dtype}")
        self._folder = tempfile.TemporaryDirectory()
        self.context = min(n_ctx, read_config(target)["max_position_embeddings"])
        self.drafts: list[tuple[int, list[int]]] = []
        drafter = None if draft is None else self._recorded(self._drafter(method, draft, depth))
        self.llama = self._load("target", target, drafter)

    def _load(self, name: str, checkpoint: str, drafter: Any = None) -> Any:
        from llama_cpp import GGML_TYPE_F32, Llama

        file = Path(self._folder.name, f"{name}.gguf")
        write(Path(checkpoint), file)
        # With a drafter, the engine raises beyond n_batch positions unless logits_all is set, and at the end of the context
        # unless n_ctx is a multiple of 256: its buffers have n_ctx positions, its context the next multiple.
        common = {"logits_all": True, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
        cache = {"type_k": GGML_TYPE_F32, "type_v": GGML_TYPE_F32}  # float16 by default: log-probabilities differ by 1e-3
        return Llama(str(file), n_ctx=-(-self.context // 256) * 256, draft_model=drafter, **common, **cache)

    def _drafter(self, method: str, draft: str, depth: int) -> Callable[[Any], Any]:
        """A function from all tokens of a text to an array of drafted ones."""
        if method == "prompt_lookup":
            from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

            lookup: Callable[[Any], Any] = LlamaPromptLookupDecoding(max_ngram_size=2, num_pred_tokens=depth)
            return lookup
        small = self._load("small", draft)

        def decode_greedily(text: Any) -> Any:
            length = min(depth, small.n_ctx() - len(text))
            tokens = small.generate(text.tolist(), temp=0.0, repeat_penalty=1.0) if length > 0 else iter(())
            return np.array([token for token, _ in zip(tokens, range(length), strict=False)], dtype=np.intc)

        return decode_greedily

    def _recorded(self, drafter: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Record every draft with the length of its text, since the engine does not report its blocks."""

        def draft(text: Any) -> Any:
            drafted = drafter(text)
            self.drafts.append((len(text), drafted[: self.llama.n_ctx() - len(text)].tolist()))  # cut as the engine cuts it
            return drafted

        return draft

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[dict[str, Any]]:
        return [self._generate(*row) for row in zip(prompts, params, seeds, strict=True)]

    def _generate(self, prompt: list[int], params: dict[str, Any], seed: int) -> dict[str, Any]:
        self.drafts.clear()
        self.llama.set_seed(seed % 0xFFFFFFFF)  # 0xFFFFFFFF itself requests a random seed
        ends, tokens = end_tokens(params), list[int]()
        length = min(params["max_new_tokens"], self.context - len(prompt))
        for token in self.llama.generate(prompt, **sampling(params)) if length > 0 else ():
            tokens.append(int(token))
            if len(tokens) == length or token in ends:
                break
        rows = self.llama.scores[len(prompt) - 1 : len(prompt) + len(tokens) - 1]
        logprobs = self.llama.logits_to_logprobs(rows)[range(len(tokens)), tokens]
        return {"tokens": tokens, "logprobs": logprobs.tolist(), "blocks": self._blocks(prompt, tokens)}

    def _blocks(self, prompt: list[int], tokens: list[int]) -> list[dict[str, Any]]:
        """The block of the prompt, then one per draft: a chain that starts at the newest token."""
        text, blocks = [*prompt, *tokens], [PROMPT_BLOCK]
        ends = [start for start, _ in self.drafts[1:]] + [len(text)]
        for (start, drafted), end in zip(self.drafts, ends, strict=False):
            accepted = takewhile(lambda pair: pair[0] == pair[1], zip(text[start:end], drafted, strict=False))
            chain = [text[start - 1], *drafted]
            blocks.append({"accepted": len(list(accepted)), "tokens": chain, "parents": list(range(-1, len(drafted)))})
        return blocks

    def close(self) -> None:
        self.llama.close()
        self._folder.cleanup()


def sampling(params: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `Llama.generate`, with its own defaults, which filter, switched off.

    llama.cpp filters before it applies the temperature, and its repetition penalty ignores the prompt and all but the last
    64 tokens. The harness requests the opposite order, and a penalty over the whole text. Temperature and penalty are
    therefore passed as logits processors, which run before the samplers. Both are factors, so their order does not matter.
    """
    temperature, penalty = params["temperature"], params.get("repetition_penalty", 1.0)
    filters = {"top_k": params.get("top_k", 0), "top_p": params.get("top_p", 1.0), "min_p": params.get("min_p", 0.0)}
    early = temperature if temperature > 0 and ("top_p" in params or "min_p" in params) else 1.0
    processors = [lambda _text, logits: logits / early] if early != 1 else []
    if penalty != 1:
        processors.append(lambda text, logits: penalize(text, logits, penalty))
    return {**filters, "temp": temperature / early, "repeat_penalty": 1.0, "logits_processor": processors or None}


def penalize(text: Sequence[int], logits: Any, penalty: float) -> Any:
    """Penalise tokens that occur in the text: divide positive logits by the penalty, multiply others (CTRL, section 4.1)."""
    seen = np.unique(text)
    logits = logits.copy()
    logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
    return logits
