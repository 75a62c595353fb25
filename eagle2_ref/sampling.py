"""From logits to the target's law p: sampling parameters, applied by transformers' own processors at every node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from eagle2_ref.errors import BadInput
from eagle2_ref.tree import Tree


@dataclass(frozen=True)
class SamplingParams:
    """What a caller asks for. None (and temperature 1) is off; the names are those of `transformers.generate`.

    Temperature 0 makes p a point mass at the largest processed logit, the first of equals: every rule is then greedy
    decoding, and no rule needs to know.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int = 128
    eos_token_id: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _within("temperature", self.temperature, self.temperature >= 0, "0 or more (0 is greedy)")
        _within(
            "top_k",
            self.top_k,
            self.top_k is None or (self.top_k >= 1 and self.top_k == int(self.top_k)),
            "a whole number of 1 or more",
        )
        _within("top_p", self.top_p, self.top_p is None or 0 < self.top_p <= 1, "in (0, 1]")
        _within("min_p", self.min_p, self.min_p is None or 0 <= self.min_p <= 1, "in [0, 1]")
        penalty, n = self.repetition_penalty, self.max_new_tokens
        _within("repetition_penalty", penalty, penalty is None or penalty > 0, "above 0")
        _within("max_new_tokens", n, n >= 1 and n == int(n), "a whole number of 1 or more")

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> SamplingParams:
        """From a plain dictionary, as the harness and JSON carry it."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(params) - known):
            raise BadInput(f"unknown sampling parameter {', '.join(unknown)}", f"known are {', '.join(sorted(known))}")
        values = {name: value for name, value in params.items() if value is not None}
        if isinstance(values.get("eos_token_id"), Sequence):
            values["eos_token_id"] = tuple(values["eos_token_id"])
        return cls(**values)

    @property
    def eos(self) -> frozenset[int]:
        """The tokens that end a text."""
        ids = self.eos_token_id
        return frozenset() if ids is None else frozenset([ids] if isinstance(ids, int) else ids)

    def ends(self, token: int) -> bool:
        """Whether a token ends a text. Asked by comparison, so that a token that chance has not decided yet may stay so."""
        return any(token == end for end in self.eos)

    def processors(self) -> LogitsProcessorList:
        """transformers' processors in the order in which `generate` applies them; at temperature 0 it applies no warper."""
        chosen = LogitsProcessorList()
        if self.repetition_penalty is not None and self.repetition_penalty != 1.0:
            chosen.append(RepetitionPenaltyLogitsProcessor(penalty=float(self.repetition_penalty)))
        if self.temperature == 0:
            return chosen
        if self.temperature != 1.0:
            chosen.append(TemperatureLogitsWarper(float(self.temperature)))
        if self.top_k is not None:
            chosen.append(TopKLogitsWarper(top_k=self.top_k))
        if self.top_p is not None and self.top_p < 1.0:
            chosen.append(TopPLogitsWarper(top_p=float(self.top_p)))
        if self.min_p is not None:
            chosen.append(MinPLogitsWarper(min_p=float(self.min_p)))
        return chosen

    def process(self, past: Tensor, logits: Tensor) -> Tensor:
        """Scores [n, V] of logits [n, V] after tokens [n, length]: what the processors make of them, one after the other.

        As their list does when it is called, which looks at the signature of each again at every call.
        """
        for processor in self.processors():
            logits = processor(past, logits)
        return logits


def law(logits: Tensor, tree: Tree, text: Sequence[int], params: SamplingParams) -> Tensor:
    """p [m + 1, V]: row i is the law of the token after node i, given the text and the path to node i.

    `text` ends with the root. A processor that looks back sees each node's own history, so that p is what
    `transformers.generate` would sample from had it come this way. At least float32, float64 if the model is.
    """
    return probabilities(processed(logits, tree, text, params), params)


def processed(logits: Tensor, tree: Tree, text: Sequence[int], params: SamplingParams) -> Tensor:
    """Scores [m + 1, V]: logits as the processors leave them. At temperature 0 no warper is applied: their softmax is the
    law whose likeliest token is taken, and of which log-probabilities are told, as `transformers.generate` does."""
    scores = logits if logits.dtype == torch.float64 else logits.float()
    _refuse_nan(scores, tree, len(text))
    return _process(scores, tree, text, params)


def probabilities(scores: Tensor, params: SamplingParams) -> Tensor:
    """p [n, V] of processed scores."""
    if params.temperature:
        return scores.softmax(-1)
    return torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)


def _process(scores: Tensor, tree: Tree, text: Sequence[int], params: SamplingParams) -> Tensor:
    """Nodes of one depth have histories of one length, hence one call of the processors a depth; without a processor
    that looks back, one call in all."""
    if params.repetition_penalty is None:
        return params.process(torch.zeros(len(scores), 1, dtype=torch.long, device=scores.device), scores)
    processed = torch.empty_like(scores)
    for depth in sorted(set(tree.depths)):
        nodes = [node for node, d in enumerate(tree.depths) if d == depth]
        histories = [[*text, *(tree.token(i) for i in tree.path(node))] for node in nodes]
        processed[nodes] = params.process(torch.tensor(histories, device=scores.device), scores[nodes])
    return processed


def _refuse_nan(scores: Tensor, tree: Tree, length: int) -> None:
    bad = ~scores.amax(-1).isfinite()  # NaN if one is, inf if one is, -inf if all are
    if bad.any():
        node = int(bad.nonzero()[0])
        position = length - 1 + tree.depths[node]
        raise BadInput(
            f"the target's logits are not numbers at position {position} (after token {tree.token(node)})",
            "its weights are damaged, or its activations overflow in this dtype: try --dtype float32",
        )


def _within(name: str, value: object, holds: bool, allowed: str) -> None:
    if not holds:
        raise BadInput(f"{name} is {value}", f"{name} must be {allowed}")
