"""OpenVINO GenAI: a draft model, EAGLE-3 by chain and by tree, and prompt lookup, by its continuous batching pipeline."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

METHODS = {"draft_model": "small", "eagle3": "eagle3", "eagle3_tree": "eagle3", "prompt_lookup": "none"}
"""Ways of drafting, and the checkpoint that each needs beside the target."""

PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

CAPABILITIES = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "eos"]

REFUSED = (
    "Tree search (EAGLE) is incompatible with do_sample=true",
    "input_ids shape is invalid for creating eagle3 draft input_ids",
    "num_decoder_layers must be at least 10",
)
"""How the messages begin by which the engine refuses: sampling with trees; EAGLE-3 on prompts of one token, and on few layers."""

Named = dict[str, Any]


class Engine:
    """`ContinuousBatchingPipeline`, in both arms: the texts of a call share its passes, each with its own parameters and seed.

    depth: tokens of a chain, or layers of a tree; k, m: a tree's branching_factor and num_assistant_tokens. ngram: the longest
    that prompt lookup looks for. layers: where an EAGLE-3 head reads the target: where the `engine` does if it is not told, or
    where the `checkpoint` says. step: most tokens, and most texts, of a pass; more must wait. The engine's own is 256.
    counters: ask by `generate`, a text at a time, which tells counters and no log-probabilities.

    Requests are added with numbers of their own rather than by `generate`, which numbers them from 0 in every call: a number at
    which the drafter once finished before the target is decoded without drafts from then on. Trees get one text at a time, and
    no log-probabilities: the engine ends with an error where texts of a call end in different passes, and where it is to tell.
    """

    @classmethod
    def describe(cls, method: str = "draft_model", counters: bool = False, **_options: Any) -> dict[str, Any]:
        silent = "prompt_lookup" if counters else "eagle3_tree"  # tells no counters; no log-probabilities
        return {
            "capabilities": CAPABILITIES + ([] if method == silent else ["counters" if counters else "logprobs"]),
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
        if method not in METHODS:
            raise ValueError(f"method {method!r} is not known; known are {', '.join(METHODS)}")
        self.eagle, self.tree = (draft is not None and method.startswith(name) for name in ("eagle3", "eagle3_tree"))
        self.drafting: dict[str, int] = {} if draft is None else {"num_assistant_tokens": depth}
        if draft is not None and method == "prompt_lookup":
            self.drafting["max_ngram_size"] = ngram
        if self.tree:
            self.drafting = {"num_assistant_tokens": m, "branching_factor": k, "tree_depth": depth}
        self.by_generate, self.told, self.requests = counters, {"passes": 0, "drafted": 0, "accepted": 0}, 0
        self.logprobs = not (counters or method == "eagle3_tree")
        self.context = json.loads((Path(target) / "config.json").read_text())["max_position_embeddings"]
        hint = PRECISIONS[dtype]
        hints = {"INFERENCE_PRECISION_HINT": hint, "KV_CACHE_PRECISION": hint, "INFERENCE_NUM_THREADS": threads}
        place = Path(cache) if cache else _cache()
        schedule = {
            "cache_size": 1,
            "enable_prefix_caching": prefix_caching,
            "max_num_batched_tokens": step,
            "max_num_seqs": step,
        }
        self.open = partial(_pipeline, target, draft, method, layers, hints, schedule, place)
        self.pipe = self.open()

    def generate(self, prompts: Sequence[Sequence[int]], params: Sequence[Named], seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Continue each prompt by its own parameters. What the engine refuses is found before a request is queued."""
        texts = [_tensor(prompt) for prompt in prompts]
        with _refusals():
            configs = [self._config(*row) for row in zip(prompts, params, seeds, strict=True)]
            for text, config in zip(texts, configs, strict=True):
                if self.eagle and text.shape[1] == 1:
                    self.pipe.generate([text], [config])
        try:
            if self.by_generate:
                return [self._generate(*row) for row in zip(texts, configs, strict=True)]
            if self.tree:
                return [self._together([text], [config])[0] for text, config in zip(texts, configs, strict=True)]
            return self._together(texts, configs)
        except RuntimeError:
            self.pipe = self.open()  # requests of a pass that failed stay in its queue, and fail whatever comes after
            raise

    def counters(self) -> dict[str, int]:
        """As the engine tells them in its performance metrics; its passes with that of the prompt left out."""
        return dict(self.told)

    def _config(self, prompt: Sequence[int], params: Named, seed: int) -> Any:
        """Absent is off, as by the engine's own defaults; where no end of text is asked for, one is named and ignored."""
        from openvino_genai import GenerationConfig

        config = GenerationConfig(**self.drafting, logprobs=int(self.logprobs), rng_seed=seed)
        config.max_new_tokens = min(params["max_new_tokens"], self.context - len(prompt))
        config.repetition_penalty = params.get("repetition_penalty", 1.0)
        eos = params.get("eos_token_id")
        ends = eos if isinstance(eos, list) else [] if eos is None else [eos]
        config.ignore_eos = not ends
        config.set_eos_token_id(ends[0] if ends else 0)
        config.stop_token_ids = set(ends or [0])
        if params["temperature"] > 0:
            config.do_sample = True
            for name in {"temperature", "top_k", "top_p", "min_p"} & set(params):
                setattr(config, name, params[name])
        config.validate()
        return config

    def _together(self, texts: Sequence[Any], configs: Sequence[Any]) -> list[dict[str, Any]]:
        first = self.requests
        self.requests += len(texts)
        handles = [self.pipe.add_request(first + i, *row) for i, row in enumerate(zip(texts, configs, strict=True))]
        while self.pipe.has_non_finished_requests():
            self.pipe.step()
        outputs = [handle.read_all()[0] for handle in handles]
        told = [{"logprobs": output.generated_log_probs} if self.logprobs else {} for output in outputs]
        return [{"tokens": output.generated_ids, **more} for output, more in zip(outputs, told, strict=True)]

    def _generate(self, text: Any, config: Any) -> dict[str, Any]:
        (result,) = self.pipe.generate([text], [config])
        if metrics := result.extended_perf_metrics:
            self.told["passes"] += len(metrics.main_model_metrics.raw_metrics.m_durations) - 1
            self.told["drafted"] += metrics.get_num_draft_tokens()
            self.told["accepted"] += metrics.get_num_accepted_tokens()
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
        folder = converted(draft, cache, eagle3=head, told=head and layers == "checkpoint")
        properties["draft_model"] = openvino_genai.draft_model(folder, "CPU", **hints)
    folder = converted(target, cache)
    with _refusals():
        tokenizer = openvino_genai.Tokenizer(folder)
        return openvino_genai.ContinuousBatchingPipeline(folder, tokenizer, scheduler, "CPU", **properties)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Tell refusals, in the engine's own words, from errors: the place of the check comes first, then the message."""
    try:
        yield
    except RuntimeError as error:
        _, _, message = str(error).strip().partition("\n")
        if not message.startswith(REFUSED):
            raise
        raise NotImplementedError(message.strip()) from error


def _tensor(prompt: Sequence[int]) -> Any:
    import numpy
    import openvino

    return openvino.Tensor(numpy.array([prompt], dtype=numpy.int64))


def _cache() -> Path:
    """Where converted checkpoints are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eagle2-ref" / "openvino"
