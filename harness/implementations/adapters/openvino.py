"""OpenVINO GenAI 2026.4, through its continuous batching pipeline: draft model, EAGLE-3 by chain and by tree, prompt lookup."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .common import SAMPLING, check_method, end_tokens, read_config

METHODS = {"draft_model": "small", "eagle3": "eagle3", "eagle3_tree": "eagle3", "prompt_lookup": "none"}
"""Ways of drafting, and the draft checkpoint that each needs."""

PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

REFUSALS = (
    "Tree search (EAGLE) is incompatible with do_sample=true",
    "input_ids shape is invalid for creating eagle3 draft input_ids",  # EAGLE-3 on a prompt of one token
    "num_decoder_layers must be at least 10",  # EAGLE-3 on a target of few layers
)
"""Beginnings of the messages by which the engine refuses a request."""

Named = dict[str, Any]


class Engine:
    """`ContinuousBatchingPipeline`, with and without speculation: requests of a call share passes, each with its own seed.

    Options:
        method: one of METHODS.
        depth: tokens of a chain, or layers of a tree.
        k, m: branching_factor and num_assistant_tokens of a tree.
        ngram: longest n-gram that prompt lookup searches for.
        layers: where an EAGLE-3 head reads the target's features: `engine` leaves it to the engine, `checkpoint` passes the
            layers that the head's config.json names.
        step: most tokens, and most requests, of a pass; the engine's default is 256.
        prefix_caching: cache prefixes of prompts.
        counters: report counters instead of log-probabilities; only `pipeline.generate` reports them, one text at a time.
        threads: inference threads.
        cache: folder of converted checkpoints.
    """

    @classmethod
    def describe(cls, method: str = "draft_model", counters: bool = False, **_options: Any) -> dict[str, Any]:
        unavailable = "prompt_lookup" if counters else "eagle3_tree"  # has no counters; no log-probabilities
        return {
            "capabilities": SAMPLING + ([] if method == unavailable else ["counters" if counters else "logprobs"]),
            "version": f"openvino-genai {version('openvino-genai')}",
            "checkpoint": METHODS.get(method, "none"),
            "logprobs": "raw",
        }

    def __init__(
        self,
        target: str,
        draft: str | None = None,
        *,
        method: str = "draft_model",
        depth: int = 3,
        k: int = 2,
        m: int = 6,
        ngram: int = 3,
        layers: str = "engine",
        dtype: str = "float32",
        step: int = 256,
        prefix_caching: bool = False,
        counters: bool = False,
        threads: int = 1,
        cache: str = "",
    ) -> None:
        check_method(method, METHODS)
        self.eagle, self.tree = (draft is not None and method.startswith(name) for name in ("eagle3", "eagle3_tree"))
        self.drafting: dict[str, int] = {} if draft is None else {"num_assistant_tokens": depth}
        if draft is not None and method == "prompt_lookup":
            self.drafting["max_ngram_size"] = ngram
        if self.tree:
            self.drafting = {"num_assistant_tokens": m, "branching_factor": k, "tree_depth": depth}
        self.with_counters, self.counted, self.requests = counters, {"passes": 0, "drafted": 0, "accepted": 0}, 0
        # With trees the engine raises when log-probabilities are requested.
        self.logprobs = not (counters or method == "eagle3_tree")
        self.context = read_config(target)["max_position_embeddings"]
        precision = PRECISIONS[dtype]
        hints = {"INFERENCE_PRECISION_HINT": precision, "KV_CACHE_PRECISION": precision, "INFERENCE_NUM_THREADS": threads}
        schedule = {
            "cache_size": 1,
            "enable_prefix_caching": prefix_caching,
            "max_num_batched_tokens": step,
            "max_num_seqs": step,
        }
        self.open = partial(_pipeline, target, draft, method, layers, hints, schedule, Path(cache) if cache else _cache())
        self.pipe = self.open()

    def generate(self, prompts: Sequence[Sequence[int]], params: Sequence[Named], seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Continue each prompt with its own parameters. Refusals are found before a request is queued."""
        texts = [_tensor(prompt) for prompt in prompts]
        with _refusals():
            configs = [self._config(*row) for row in zip(prompts, params, seeds, strict=True)]
            for text, config in zip(texts, configs, strict=True):
                if self.eagle and text.shape[1] == 1:
                    self.pipe.generate([text], [config])
        try:
            if self.with_counters:
                return [self._generate(*row) for row in zip(texts, configs, strict=True)]
            if self.tree:  # one text at a time: the engine raises where trees of one call end in different passes
                return [self._run([text], [config])[0] for text, config in zip(texts, configs, strict=True)]
            return self._run(texts, configs)
        except RuntimeError:
            self.pipe = self.open()  # requests of a failed pass stay in the queue, and every later call would fail
            raise

    def counters(self) -> dict[str, int]:
        """Counters of the engine's performance metrics, without the prompt's pass."""
        return dict(self.counted)

    def _config(self, prompt: Sequence[int], params: Named, seed: int) -> Any:
        """The engine's GenerationConfig, whose defaults are off. Without a requested end-of-text token, token 0 is ignored."""
        from openvino_genai import GenerationConfig

        config = GenerationConfig(**self.drafting, logprobs=int(self.logprobs), rng_seed=seed)
        config.max_new_tokens = min(params["max_new_tokens"], self.context - len(prompt))
        config.repetition_penalty = params.get("repetition_penalty", 1.0)
        ends = end_tokens(params)
        config.ignore_eos = not ends
        config.set_eos_token_id(ends[0] if ends else 0)
        config.stop_token_ids = set(ends or [0])
        if params["temperature"] > 0:
            config.do_sample = True
            for name in {"temperature", "top_k", "top_p", "min_p"} & set(params):
                setattr(config, name, params[name])
        config.validate()
        return config

    def _run(self, texts: Sequence[Any], configs: Sequence[Any]) -> list[dict[str, Any]]:
        """Add requests and step until all are finished.

        Requests get numbers that are never reused. `pipeline.generate` numbers them from 0 in every call, and once the
        drafter has finished a number before the target, the engine decodes every later request of it without drafts.
        """
        first = self.requests
        self.requests += len(texts)
        handles = [self.pipe.add_request(first + i, *row) for i, row in enumerate(zip(texts, configs, strict=True))]
        while self.pipe.has_non_finished_requests():
            self.pipe.step()
        outputs = [handle.read_all()[0] for handle in handles]
        extras = [{"logprobs": output.generated_log_probs} if self.logprobs else {} for output in outputs]
        return [{"tokens": output.generated_ids, **extra} for output, extra in zip(outputs, extras, strict=True)]

    def _generate(self, text: Any, config: Any) -> dict[str, Any]:
        (result,) = self.pipe.generate([text], [config])
        if metrics := result.extended_perf_metrics:
            self.counted["passes"] += len(metrics.main_model_metrics.raw_metrics.m_durations) - 1
            self.counted["drafted"] += metrics.get_num_draft_tokens()
            self.counted["accepted"] += metrics.get_num_accepted_tokens()
        return {"tokens": result.m_generation_ids[0]}


def _pipeline(target: str, draft: str | None, method: str, layers: str, hints: Named, schedule: Named, cache: Path) -> Any:
    """The engine's pipeline on converted checkpoints."""
    import openvino_genai

    from .openvino_export import converted

    scheduler = openvino_genai.SchedulerConfig()
    for name, value in schedule.items():
        setattr(scheduler, name, value)
    properties = dict(hints)
    if draft is not None and method == "prompt_lookup":
        properties["prompt_lookup"] = True
    elif draft is not None:
        head = METHODS[method] == "eagle3"
        folder = converted(draft, cache, eagle3=head, with_layers=head and layers == "checkpoint")
        properties["draft_model"] = openvino_genai.draft_model(folder, "CPU", **hints)
    folder = converted(target, cache)
    with _refusals():
        tokenizer = openvino_genai.Tokenizer(folder)
        return openvino_genai.ContinuousBatchingPipeline(folder, tokenizer, scheduler, "CPU", **properties)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turn refusals into NotImplementedError. The first line of the engine's errors is the place of the check."""
    try:
        yield
    except RuntimeError as error:
        _, _, message = str(error).strip().partition("\n")
        if not message.startswith(REFUSALS):
            raise
        raise NotImplementedError(message.strip()) from error


def _tensor(prompt: Sequence[int]) -> Any:
    import numpy
    import openvino

    return openvino.Tensor(numpy.array([prompt], dtype=numpy.int64))


def _cache() -> Path:
    """Default folder of converted checkpoints."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eagle2-ref" / "openvino"
