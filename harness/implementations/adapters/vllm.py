"""vLLM (CPU build 0.32), in this process and without a tokenizer: one call of `generate` is one call of `LLM.generate`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .common import SAMPLING, chain_budget, check_method, end_tokens, installed_version, read_config

METHODS = {"ngram": "none", "draft_model": "small", "eagle": "draft", "eagle3": "eagle3", "medusa": "medusa"}
"""vLLM's names of its methods, and the draft checkpoint that each needs. All draft a chain."""

HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes of `CPUAttentionBackend.get_supported_head_sizes`. vLLM loads any size, and raises in its first pass."""

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine's core in this process
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
"""Variables that vLLM reads when it is imported. Values that the user has set take precedence."""


class Engine:
    """`LLM.generate` on token ids, with a seed per request.

    Options:
        method: one of METHODS.
        depth: tokens of a draft.
        drafting: greedy, or probabilistic if the drafter samples (`draft_sample_method`).
        logprobs: raw (the model's own distribution) or processed (after temperature, penalties and filters). For a request
            of temperature 0 vLLM reports those of temperature 1 in either case.
        ngram: longest suffix of the text that the method ngram looks up.
        chunk: tokens of a step, to which prompts are cut; 0 never cuts prompts.
        caching: cache prefixes of prompts.
    """

    @classmethod
    def describe(cls, method: str = "ngram", depth: int = 3, logprobs: str = "raw", **_options: Any) -> dict[str, Any]:
        return {
            "capabilities": [*SAMPLING, "context", "counters", "logprobs"],
            "version": installed_version("vllm-cpu", "vllm") or "vllm, not installed",
            "checkpoint": METHODS.get(method, "none"),
            "logprobs": logprobs,
            "budget": chain_budget(depth),
        }

    def __init__(
        self,
        target: str,
        draft: str | None = None,
        *,
        method: str = "ngram",
        depth: int = 3,
        dtype: str = "float32",
        drafting: str = "greedy",
        logprobs: str = "raw",
        ngram: int = 3,
        chunk: int = 0,
        caching: bool = False,
    ) -> None:
        check_method(method, METHODS)
        _check_head_size(Path(target))
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from vllm import LLM

        drafter: dict[str, Any] = {"method": method, "num_speculative_tokens": depth, "draft_sample_method": drafting}
        if METHODS[method] == "none":
            drafter |= {"prompt_lookup_min": 1, "prompt_lookup_max": ngram}
        else:
            drafter |= {"model": draft}
        # Without `chunk`, prompts stay whole: on a CPU vLLM raises where it cuts the prompt of a request that has a seed.
        steps: dict[str, Any] = {"max_num_batched_tokens": chunk} if chunk else {"enable_chunked_prefill": False}
        self.llm = LLM(
            target,
            dtype=dtype,
            speculative_config=None if draft is None else drafter,
            logprobs_mode=f"{logprobs}_logprobs",
            skip_tokenizer_init=True,
            generation_config="vllm",  # not the checkpoint's, which may set sampling parameters
            enforce_eager=True,
            enable_prefix_caching=caching,
            max_num_seqs=64,
            **steps,
            disable_log_stats=False,  # the counters are part of the statistics
        )

    def generate(
        self, prompts: Sequence[Sequence[int]], params: Sequence[dict[str, Any]], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Continue all prompts together, each with its own parameters."""
        from vllm import TokensPrompt
        from vllm.exceptions import VLLMValidationError

        texts = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        requests = [_sampling_params(*row) for row in zip(params, seeds, strict=True)]
        try:
            outputs = self.llm.generate(texts, requests, use_tqdm=False)
        except VLLMValidationError as refusal:
            raise NotImplementedError(str(refusal)) from refusal
        except Exception:
            # Requests of a call that raised stay in the queue; vLLM would continue them in the next call, which never ends.
            engine = self.llm.llm_engine
            engine.abort_request(list(engine.output_processor.request_states), internal=True)
            raise
        return [_output(output.outputs[0]) for output in outputs]

    def counters(self) -> dict[str, int]:
        """vLLM's own counters: a pass is of one request, and tokens accepted after the end of a text are counted."""
        metrics = {metric.name: metric.value for metric in self.llm.get_metrics() if hasattr(metric, "value")}
        names = {"passes": "drafts", "drafted": "draft_tokens", "accepted": "accepted_tokens"}
        return {name: int(metrics.get(f"vllm:spec_decode_num_{theirs}", 0)) for name, theirs in names.items()}


def _sampling_params(params: dict[str, Any], seed: int) -> Any:
    from vllm import SamplingParams

    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    return SamplingParams(
        **{name: params[name] for name in names if name in params},
        max_tokens=params["max_new_tokens"],
        stop_token_ids=end_tokens(params),
        ignore_eos=True,  # the checkpoint's own end-of-text token
        seed=seed,
        logprobs=0,  # of the emitted tokens only
        detokenize=False,
    )


def _output(text: Any) -> dict[str, Any]:
    tokens = list(text.token_ids)
    return {"tokens": tokens, "logprobs": [found[token].logprob for token, found in zip(tokens, text.logprobs, strict=True)]}


def _check_head_size(target: Path) -> None:
    """Raise NotImplementedError, in vLLM's words, for a head size that its CPU attention does not support."""
    config = read_config(target)
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if size not in HEAD_SIZES:
        raise NotImplementedError(f"Unsupported CPU attention configuration: head_dim={size}")
