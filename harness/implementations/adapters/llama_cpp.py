"""llama.cpp through llama-cpp-python: a drafter is any callable from the text to tokens; speculation is sample-and-compare."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from .gguf_file import write

METHODS = {"prompt_lookup": "none", "draft_model": "small"}
"""Ways of drafting, and the checkpoint each needs."""


class Engine:
    """One text after another: this engine has no batches, but it keeps the cache of the text before, and goes on from its prefix.

    prompt_lookup copies what followed the last two tokens before; draft_model asks a small model for its likeliest tokens. The
    context is the model's, n_ctx at most: the engine keeps logits of the whole vocabulary at every position.
    """

    @classmethod
    def describe(cls, method: str = "prompt_lookup", depth: int = 3, **_options: Any) -> dict[str, Any]:
        law = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "eos"]
        return {
            "capabilities": [*law, "blocks", "context", "deterministic", "logprobs"],
            "version": f"llama-cpp-python {version('llama-cpp-python')}",
            "checkpoint": METHODS.get(method, "none"),
            "logprobs": "raw",
            "budget": {"k": 1, "depth": depth, "m": depth},
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
        if method not in METHODS:
            raise ValueError(f"llama-cpp has no method {method!r}; it has {', '.join(METHODS)}")
        if dtype != "float32":
            raise NotImplementedError(f"the GGUF file is written in float32, not {dtype}")
        self._folder = tempfile.TemporaryDirectory()
        self.context = min(n_ctx, json.loads(Path(target, "config.json").read_text())["max_position_embeddings"])
        self.drafts: list[tuple[int, list[int]]] = []
        drafter = None if draft is None else self._kept(self._drafter(method, draft, depth))
        self.llama = self._load("target", target, drafter)

    def _load(self, name: str, checkpoint: str, drafter: Any = None) -> Any:
        from llama_cpp import GGML_TYPE_F32, Llama

        file = Path(self._folder.name, f"{name}.gguf")
        write(Path(checkpoint), file)
        # Once it drafts, the engine raises beyond n_batch positions without logits_all, and at the end of an n_ctx that is no
        # multiple of 256: its buffers have n_ctx places, its context as many as the next multiple.
        common = {"logits_all": True, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
        cache = {"type_k": GGML_TYPE_F32, "type_v": GGML_TYPE_F32}  # float16 otherwise, and log-probabilities 1e-3 off
        return Llama(str(file), n_ctx=-(-self.context // 256) * 256, draft_model=drafter, **common, **cache)

    def _drafter(self, method: str, draft: str, depth: int) -> Callable[[Any], Any]:
        """From all tokens of a text to the drafted ones, in an array."""
        if method == "prompt_lookup":
            from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

            lookup: Callable[[Any], Any] = LlamaPromptLookupDecoding(max_ngram_size=2, num_pred_tokens=depth)
            return lookup
        small = self._load("small", draft)

        def likeliest(text: Any) -> Any:
            room = min(depth, small.n_ctx() - len(text))
            going = small.generate(text.tolist(), temp=0.0, repeat_penalty=1.0) if room > 0 else iter(())
            return np.array([token for token, _ in zip(going, range(room), strict=False)], dtype=np.intc)

        return likeliest

    def _kept(self, drafter: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Keep every draft, with the length of the text that it was made for: the engine does not tell its blocks."""

        def draft(text: Any) -> Any:
            drafted = drafter(text)
            self.drafts.append((len(text), drafted[: self.llama.n_ctx() - len(text)].tolist()))  # as the engine cuts it
            return drafted

        return draft

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[dict[str, Any]]:
        return [self._text(*row) for row in zip(prompts, params, seeds, strict=True)]

    def _text(self, prompt: list[int], params: dict[str, Any], seed: int) -> dict[str, Any]:
        self.drafts.clear()
        self.llama.set_seed(seed % 0xFFFFFFFF)  # that number itself means: any seed
        eos, tokens = params.get("eos_token_id"), list[int]()
        ends = {eos} if isinstance(eos, int) else set(eos or ())
        room = min(params["max_new_tokens"], self.context - len(prompt))
        going = self.llama.generate(prompt, **sampling(params)) if room > 0 else iter(())
        for token in going:
            tokens.append(int(token))
            if len(tokens) == room or token in ends:
                break
        rows = self.llama.scores[len(prompt) - 1 : len(prompt) + len(tokens) - 1]
        logprobs = self.llama.logits_to_logprobs(rows)[range(len(tokens)), tokens]
        return {"tokens": tokens, "logprobs": logprobs.tolist(), "blocks": self._blocks(prompt, tokens)}

    def _blocks(self, prompt: list[int], tokens: list[int]) -> list[dict[str, Any]]:
        """The prompt's pass, which has no tree, and then a chain a pass, from the newest token on."""
        text = [*prompt, *tokens]
        blocks: list[dict[str, Any]] = [{"accepted": 0, "tokens": [], "parents": []}]
        ends = [start for start, _ in self.drafts[1:]] + [len(text)]
        for (start, drafted), end in zip(self.drafts, ends, strict=False):
            agreed = takewhile(lambda pair: pair[0] == pair[1], zip(text[start:end], drafted, strict=False))
            chain = [text[start - 1], *drafted]
            blocks.append({"accepted": len(list(agreed)), "tokens": chain, "parents": list(range(-1, len(drafted)))})
        return blocks

    def close(self) -> None:
        self.llama.close()
        self._folder.cleanup()


def sampling(params: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `generate`, whose own defaults filter.

    Its samplers filter first and apply the temperature then; its penalty leaves the prompt out, and what is further back than
    64 tokens. The law that is asked for is the other one: temperature and penalty go in by its door for logits processors,
    which comes before the samplers. A penalty and a temperature may change places, as one factor each.
    """
    temperature, penalty = params["temperature"], params.get("repetition_penalty", 1.0)
    filters = {"top_k": params.get("top_k", 0), "top_p": params.get("top_p", 1.0), "min_p": params.get("min_p", 0.0)}
    early = temperature if temperature > 0 and ("top_p" in params or "min_p" in params) else 1.0
    processors = [lambda _text, logits: logits / early] if early != 1 else []
    if penalty != 1:
        processors.append(lambda text, logits: penalized(text, logits, penalty))
    return {**filters, "temp": temperature / early, "repeat_penalty": 1.0, "logits_processor": processors or None}


def penalized(text: Sequence[int], logits: Any, penalty: float) -> Any:
    """Logits of tokens that the text has had: divided by the penalty where positive, multiplied where not (CTRL, section 4.1)."""
    seen = np.unique(text)
    logits = logits.copy()
    logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
    return logits
