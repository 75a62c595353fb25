"""The speculative decoding of transformers, as `generate` offers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import torch

from .common import SAMPLING, chain_budget, check_method

METHODS = {
    "assisted": "small",
    "prompt_lookup": "none",
    "early_exit": "none",
    "ensemble": "small",
    "universal": "small",
    "mtp": "none",
}
"""Ways of drafting, and the draft checkpoint that each needs."""

RARELY_SUPPORTED = {"universal", "mtp"}
"""Methods that few pairs support, as they need two vocabularies, or heads inside the target. Support is tested on opening."""

LOSSY = "relaxes the verification distribution to w * p(x) + (1 - w) * q(x), at the cost of controlled distributional bias"
"""Documentation of assistant_ensemble_weight in `_speculative_sampling`."""


class Engine:
    """`generate`, one text at a time, as assisted generation requires; also without speculation.

    Weights may be float64; the distribution is not: `generate` converts all logits to float32 before it samples.

    Options:
        method: one of METHODS.
        depth, schedule: tokens of a draft, and how their number changes (num_assistant_tokens_schedule).
        threshold: confidence of the assistant below which a draft ends.
        layers: number of target layers after which early_exit drafts.
        weight: the target's weight in an ensemble.
        ngram: longest n-gram that prompt_lookup searches for.
        logprobs: report log-probabilities of the emitted tokens, from the scores that `generate` returns.
    """

    @classmethod
    def describe(
        cls, method: str = "assisted", depth: int = 3, schedule: str = "constant", logprobs: bool = False, **_options: Any
    ) -> dict[str, Any]:
        capabilities = {*SAMPLING, "blocks"}
        capabilities |= {"deterministic"} if method == "prompt_lookup" else set()
        capabilities |= {"logprobs"} if logprobs else set()
        return {
            "capabilities": sorted(capabilities),
            "version": f"transformers {version('transformers')}",
            "checkpoint": METHODS.get(method, "none"),
            **({"budget": chain_budget(depth)} if schedule == "constant" and method != "mtp" else {}),
            **({"lossy": LOSSY} if method == "ensemble" else {}),
        }

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
        check_method(method, METHODS)
        self.dtype, self.device, self.logprobs = dtype, device, logprobs
        self.drafting: dict[str, Any] = {
            "num_assistant_tokens": depth,
            "num_assistant_tokens_schedule": schedule,
            "assistant_confidence_threshold": threshold,
        }
        self.model, self.blocks = self._load(target), list[dict[str, Any]]()
        self.arguments: dict[str, Any] = {}
        if draft is None:
            return
        self._record_blocks()
        by_method: dict[str, Callable[[], dict[str, Any]]] = {
            "assisted": lambda: {"assistant_model": self._load(draft)},
            "prompt_lookup": lambda: {"prompt_lookup_num_tokens": depth, "max_matching_ngram_size": ngram},
            "early_exit": lambda: {"assistant_early_exit": layers},
            "ensemble": lambda: {"assistant_model": self._load(draft), "assistant_ensemble_weight": weight},
            "universal": lambda: {"assistant_model": self._load(draft), **_tokenizers(target, draft)},
            "mtp": lambda: {"use_mtp": True},
        }
        self.arguments = by_method[method]()
        if method in RARELY_SUPPORTED:
            self._test_support()

    def generate(
        self, prompts: Sequence[Sequence[int]], params: Sequence[dict[str, Any]], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Continue each prompt with its own parameters; torch is seeded for each."""
        return [self._generate(*row) for row in zip(prompts, params, seeds, strict=True)]

    def _generate(self, prompt: Sequence[int], params: dict[str, Any], seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        self.blocks = []
        text = torch.tensor([list(prompt)], device=self.device)
        arguments = {**_arguments(params), **self.arguments, "return_dict_in_generate": True, "output_scores": self.logprobs}
        # The mask is explicit, since `generate` takes tokens of a prompt that equal the padding token for padding.
        result = self.model.generate(text, attention_mask=torch.ones_like(text), **arguments)
        tokens = result.sequences[0, len(prompt) :].tolist()
        answer: dict[str, Any] = {"tokens": tokens}
        if self.arguments:
            answer["blocks"] = self.blocks
        if self.logprobs:
            answer["logprobs"] = [float(row[0].log_softmax(-1)[x]) for row, x in zip(result.scores, tokens, strict=True)]
        return answer

    def _load(self, folder: str) -> Any:
        """A checkpoint without its generation_config.json, which may set sampling parameters."""
        from transformers import AutoModelForCausalLM, GenerationConfig
        from transformers.utils import logging

        logging.disable_progress_bar()  # it would be printed between results
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, self.dtype), local_files_only=True)
        model.generation_config = GenerationConfig(pad_token_id=0, **self.drafting)
        return model.to(self.device).eval()

    def _record_blocks(self) -> None:
        """Record every draft, a chain after the newest token, and how much of it is accepted.

        Methods of the candidate generator's instance are wrapped and its class is unchanged, since `generate` chooses
        schedules and thresholds by the class.
        """
        make = self.model._get_candidate_generator

        def recorded(*args: Any, **kwargs: Any) -> Any:
            generator = make(*args, **kwargs)
            draft, update = generator.get_candidates, generator.update_candidate_strategy

            def get_candidates(input_ids: torch.Tensor, **more: Any) -> Any:
                candidates, logits = draft(input_ids, **more)
                tokens = candidates[0, input_ids.shape[1] - 1 :].tolist()
                self.blocks.append({"accepted": 0, "tokens": tokens, "parents": list(range(-1, len(tokens) - 1))})
                return candidates, logits

            def update_candidate_strategy(input_ids: torch.Tensor, scores: torch.Tensor, num_matches: int) -> None:
                self.blocks[-1]["accepted"] = int(num_matches)
                update(input_ids, scores, num_matches)

            generator.get_candidates, generator.update_candidate_strategy = get_candidates, update_candidate_strategy
            return generator

        self.model._get_candidate_generator = recorded

    def _test_support(self) -> None:
        """Decode two tokens; transformers raises ValueError for what it does not support."""
        try:
            self.generate([[0]], [{"temperature": 1.0, "max_new_tokens": 2}], [0])
        except ValueError as refusal:
            raise NotImplementedError(str(refusal)) from refusal


def _arguments(params: dict[str, Any]) -> dict[str, Any]:
    """Sampling parameters as arguments of `generate`, whose default for top_k is 50."""
    names = ["max_new_tokens", "repetition_penalty", "eos_token_id"]
    if params["temperature"] == 0:
        return {name: params[name] for name in names if name in params} | {"do_sample": False}
    given = {name: params[name] for name in (*names, "temperature", "top_p", "min_p") if name in params}
    return {**given, "do_sample": True, "top_k": params.get("top_k", 0)}


def _tokenizers(target: str, draft: str) -> dict[str, Any]:
    """The tokenizers of both checkpoints."""
    from transformers import AutoTokenizer

    try:
        found = [AutoTokenizer.from_pretrained(folder, local_files_only=True) for folder in (target, draft)]
    except (OSError, ValueError) as missing:
        raise NotImplementedError(str(missing)) from missing
    return dict(zip(("tokenizer", "assistant_tokenizer"), found, strict=True))
