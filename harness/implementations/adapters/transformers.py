"""transformers' own speculative decoding, as `generate` offers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import torch

METHODS = {
    "assisted": "small",
    "prompt_lookup": "none",
    "early_exit": "none",
    "ensemble": "small",
    "universal": "small",
    "mtp": "none",
}
"""Ways of drafting, and the checkpoint that each needs beside the target."""

SELDOM = {"universal", "mtp"}
"""Ways that need what few pairs have, two vocabularies or heads inside the target: transformers is asked when it is opened."""

LOSSY = "relaxes the verification distribution to w * p(x) + (1 - w) * q(x), at the cost of controlled distributional bias"
"""What `_speculative_sampling` says of assistant_ensemble_weight."""


class Engine:
    """One text at a time, as assisted generation demands, in both arms.

    depth: tokens of a draft, unless `threshold`, of the assistant's confidence, ends it or `schedule` changes it. layers: where
    early_exit leaves the target. weight: the target's in an ensemble. ngram: the longest that prompt_lookup looks for.
    logprobs: tell those of the emitted tokens, by the scores that `generate` returns.

    Weights may be float64, the law is not: `generate` takes all logits to float32 before it draws.
    """

    @classmethod
    def describe(
        cls, method: str = "assisted", depth: int = 3, schedule: str = "constant", logprobs: bool = False, **_options: Any
    ) -> dict[str, Any]:
        told = {"temperature", "top_k", "top_p", "min_p", "repetition_penalty", "eos", "blocks"}
        told |= {"deterministic"} if method == "prompt_lookup" else set()
        told |= {"logprobs"} if logprobs else set()
        described: dict[str, Any] = {"capabilities": sorted(told), "version": f"transformers {version('transformers')}"}
        described |= {"checkpoint": METHODS.get(method, "none")}
        described |= {"budget": {"k": 1, "depth": depth, "m": depth}} if schedule == "constant" and method != "mtp" else {}
        return described | ({"lossy": LOSSY} if method == "ensemble" else {})

    def __init__(
        self,
        target: str,
        draft: str | None = None,
        *,
        method: str = "assisted",
        depth: int = 3,
        dtype: str = "float32",
        device: str = "cpu",
        schedule: str = "constant",
        threshold: float = 0.0,
        layers: int = 1,
        weight: float = 0.5,
        ngram: int = 2,
        logprobs: bool = False,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"method {method!r} is not known; known are {', '.join(METHODS)}")
        self.dtype, self.device, self.logprobs = dtype, device, logprobs
        self.drafting: dict[str, Any] = {
            "num_assistant_tokens": depth,
            "num_assistant_tokens_schedule": schedule,
            "assistant_confidence_threshold": threshold,
        }
        self.model, self.blocks = self._load(target), list[dict[str, Any]]()
        self.way: dict[str, Any] = {}
        if draft is None:
            return
        self._watch()
        ways: dict[str, Callable[[], dict[str, Any]]] = {
            "assisted": lambda: {"assistant_model": self._load(draft)},
            "prompt_lookup": lambda: {"prompt_lookup_num_tokens": depth, "max_matching_ngram_size": ngram},
            "early_exit": lambda: {"assistant_early_exit": layers},
            "ensemble": lambda: {"assistant_model": self._load(draft), "assistant_ensemble_weight": weight},
            "universal": lambda: {"assistant_model": self._load(draft), **_tokenizers(target, draft)},
            "mtp": lambda: {"use_mtp": True},
        }
        self.way = ways[method]()
        if method in SELDOM:
            self._ask()

    def generate(
        self, prompts: Sequence[Sequence[int]], params: Sequence[dict[str, Any]], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Continue each prompt by its own parameters; torch is seeded anew for each."""
        return [self._one(*asked) for asked in zip(prompts, params, seeds, strict=True)]

    def _one(self, prompt: Sequence[int], params: dict[str, Any], seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        self.blocks = []
        text = torch.tensor([list(prompt)], device=self.device)
        wanted = {"return_dict_in_generate": True, "output_scores": self.logprobs}
        # With a mask of ones: `generate` would take tokens of a prompt that equal its padding for padding.
        said = self.model.generate(text, attention_mask=torch.ones_like(text), **_asked(params), **self.way, **wanted)
        tokens = said.sequences[0, len(prompt) :].tolist()
        answer: dict[str, Any] = {"tokens": tokens}
        if self.way:
            answer["blocks"] = self.blocks
        if self.logprobs:
            answer["logprobs"] = [float(row[0].log_softmax(-1)[x]) for row, x in zip(said.scores, tokens, strict=True)]
        return answer

    def _load(self, folder: str) -> Any:
        """A checkpoint without the settings that stand beside it: what is not asked for is off."""
        from transformers import AutoModelForCausalLM, GenerationConfig
        from transformers.utils import logging

        logging.disable_progress_bar()  # bars of loading would stand among the results
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, self.dtype), local_files_only=True)
        model.generation_config = GenerationConfig(pad_token_id=0, **self.drafting)
        return model.to(self.device).eval()

    def _watch(self) -> None:
        """Keep what is drafted, a chain behind the newest token, and how much of it is accepted.

        Methods of the very object are wrapped: what its class is decides over schedules and thresholds.
        """
        make = self.model._get_candidate_generator

        def watched(*args: Any, **kwargs: Any) -> Any:
            generator = make(*args, **kwargs)
            draft, learn = generator.get_candidates, generator.update_candidate_strategy

            def get_candidates(input_ids: torch.Tensor, **more: Any) -> Any:
                candidates, logits = draft(input_ids, **more)
                tokens = candidates[0, input_ids.shape[1] - 1 :].tolist()
                self.blocks.append({"accepted": 0, "tokens": tokens, "parents": list(range(-1, len(tokens) - 1))})
                return candidates, logits

            def update_candidate_strategy(input_ids: torch.Tensor, scores: torch.Tensor, num_matches: int) -> None:
                self.blocks[-1]["accepted"] = int(num_matches)
                learn(input_ids, scores, num_matches)

            generator.get_candidates, generator.update_candidate_strategy = get_candidates, update_candidate_strategy
            return generator

        self.model._get_candidate_generator = watched

    def _ask(self) -> None:
        """Decode two tokens: transformers says in a ValueError what it does not do."""
        try:
            self.generate([[0]], [{"temperature": 1.0, "max_new_tokens": 2}], [0])
        except ValueError as refusal:
            raise NotImplementedError(str(refusal)) from refusal


def _asked(params: dict[str, Any]) -> dict[str, Any]:
    """Sampling parameters as arguments of `generate`, whose own default of top_k is 50."""
    given: dict[str, Any] = {
        name: params[name] for name in ("max_new_tokens", "repetition_penalty", "eos_token_id") if name in params
    }
    if params["temperature"] == 0:
        return {**given, "do_sample": False}
    filters: dict[str, Any] = {name: params[name] for name in ("top_p", "min_p") if name in params}
    return {**given, **filters, "do_sample": True, "temperature": params["temperature"], "top_k": params.get("top_k", 0)}


def _tokenizers(target: str, draft: str) -> dict[str, Any]:
    """Those of both checkpoints, where they stand beside them."""
    from transformers import AutoTokenizer

    try:
        given = [AutoTokenizer.from_pretrained(folder, local_files_only=True) for folder in (target, draft)]
    except (OSError, ValueError) as lacking:
        raise NotImplementedError(str(lacking)) from lacking
    return dict(zip(("tokenizer", "assistant_tokenizer"), given, strict=True))
