"""vLLM, in this process and without a tokenizer: a call of `generate` is one call of `LLM.generate`, whatever rows it mixes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

METHODS = {"ngram": "none", "draft_model": "small", "eagle": "draft", "eagle3": "eagle3", "medusa": "medusa"}
"""vLLM's names of its methods, and the checkpoint that each needs beside the target. All draft a chain."""

CAPABILITIES = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "eos", "context", "counters", "logprobs"]

HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""What `CPUAttentionBackend.get_supported_head_sizes` says. vLLM itself loads any, and raises in its first pass."""

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine's core in this process
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
"""Read when vLLM is imported; what the user has set stands."""


class Engine:
    """`LLM.generate` of token ids, a seed for each.

    depth: tokens of a draft. drafting: greedy, or probabilistic, where the drafter samples (`draft_sample_method`).
    logprobs: of what law the told ones are: raw, the model's own, or processed, after temperature, penalties and filters;
    of a row of temperature 0 vLLM tells those of temperature 1 in either case.
    ngram: the longest end of a text that the method of that name looks up in it. chunk: tokens of a step, to which prompts are
    cut; 0: prompts are never cut. caching: of the prompts' prefixes.
    """

    @classmethod
    def describe(cls, method: str = "ngram", depth: int = 3, logprobs: str = "raw", **_options: Any) -> dict[str, Any]:
        told = {"capabilities": CAPABILITIES, "version": _version(), "checkpoint": METHODS.get(method, "none")}
        return told | {"logprobs": logprobs, "budget": {"k": 1, "depth": depth, "m": depth}}

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
        if method not in METHODS:
            raise ValueError(f"method {method!r} is not known; known are {', '.join(METHODS)}")
        _refuse(Path(target))
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from vllm import LLM

        drafter: dict[str, Any] = {"method": method, "num_speculative_tokens": depth, "draft_sample_method": drafting}
        if METHODS[method] == "none":
            drafter |= {"prompt_lookup_min": 1, "prompt_lookup_max": ngram}
        else:
            drafter |= {"model": draft}
        self.llm = LLM(
            target,
            dtype=dtype,
            speculative_config=None if draft is None else drafter,
            logprobs_mode=f"{logprobs}_logprobs",
            skip_tokenizer_init=True,
            generation_config="vllm",  # not the checkpoint's: what is not asked for is off
            enforce_eager=True,
            enable_prefix_caching=caching,
            max_num_seqs=64,
            **_steps(chunk),
            disable_log_stats=False,  # they hold the counters
        )

    def generate(
        self, prompts: Sequence[Sequence[int]], params: Sequence[dict[str, Any]], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Continue all prompts together, each by its own parameters."""
        from vllm import TokensPrompt
        from vllm.exceptions import VLLMValidationError

        texts = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        asked = [_asked(*row) for row in zip(params, seeds, strict=True)]
        try:
            outputs = self.llm.generate(texts, asked, use_tqdm=False)
        except VLLMValidationError as refusal:
            raise NotImplementedError(str(refusal)) from refusal
        except Exception:
            self._abort()
            raise
        return [_told(output.outputs[0]) for output in outputs]

    def counters(self) -> dict[str, int]:
        """As vLLM counts: a pass is of one text, and what it accepted behind a text's end counts too."""
        count = {metric.name: metric.value for metric in self.llm.get_metrics() if hasattr(metric, "value")}
        names = {"passes": "drafts", "drafted": "draft_tokens", "accepted": "accepted_tokens"}
        return {name: int(count.get(f"vllm:spec_decode_num_{theirs}", 0)) for name, theirs in names.items()}

    def _abort(self) -> None:
        """Drop what a crash left over: vLLM would go on with it in the next call, which then never ends."""
        engine = self.llm.llm_engine
        engine.abort_request(list(engine.output_processor.request_states), internal=True)


def _steps(chunk: int) -> dict[str, Any]:
    """Whole prompts, though vLLM would cut them: on a CPU it raises where a prompt is cut whose request has a seed."""
    return {"max_num_batched_tokens": chunk} if chunk else {"enable_chunked_prefill": False}


def _asked(params: dict[str, Any], seed: int) -> Any:
    from vllm import SamplingParams

    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    ends = params.get("eos_token_id", [])
    return SamplingParams(
        **{name: params[name] for name in names if name in params},
        max_tokens=params["max_new_tokens"],
        stop_token_ids=[ends] if isinstance(ends, int) else ends,
        ignore_eos=True,  # the checkpoint's own
        seed=seed,
        logprobs=0,  # those of the emitted tokens alone
        detokenize=False,
    )


def _told(text: Any) -> dict[str, Any]:
    tokens = list(text.token_ids)
    return {"tokens": tokens, "logprobs": [told[token].logprob for token, told in zip(tokens, text.logprobs, strict=True)]}


def _refuse(target: Path) -> None:
    """Raise NotImplementedError, in vLLM's words, for a head size that its attention on a CPU does not do."""
    config = json.loads((target / "config.json").read_text())
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if size not in HEAD_SIZES:
        raise NotImplementedError(f"Unsupported CPU attention configuration: head_dim={size}")


def _version() -> str:
    """The CPU build is a distribution of another name."""
    for name in ("vllm-cpu", "vllm"):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return "vllm, not installed"
