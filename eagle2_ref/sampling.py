"""From logits to the target distribution p: sampling parameters, applied at every node by the processors of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from eagle2_ref.errors import BadInput
from eagle2_ref.tree import Tree

SMALLEST = torch.finfo(torch.float32).tiny
"""Smallest temperature above 0: in float32 a smaller one has lost digits, or is 0."""
COLD = 1e-4
"""Temperature below which the largest logit is subtracted first, since logit / temperature overflows or loses its digits."""
BOUND = 1e30
"""Largest temperature, and largest factor of a repetition penalty: logits times or over it remain numbers in float32."""


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters, under the names of `transformers.generate`. None switches a parameter off.

    Attributes:
        temperature: from 0 to 1e30. At 0 p is a point mass at the largest processed logit, the first of equal ones: every
            acceptance rule is then greedy decoding, without a special case. Below 1.2e-38, the smallest normal number of
            float32, it is set to 0.
        top_k: keep the k most likely tokens.
        top_p: keep the most likely tokens up to this total probability, in (0, 1].
        min_p: keep tokens with this fraction of the largest probability, in [0, 1].
        repetition_penalty: divides positive logits of tokens that are in the text, multiplies negative ones; from 1e-30 to
            1e30.
        max_new_tokens: number of tokens to emit at most.
        eos_token_id: a token that ends the text, or several.

    Raises:
        BadInput: a value is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int = 128
    eos_token_id: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        temperature, k, p = self.temperature, self.top_k, self.top_p
        _require("temperature", temperature, 0 <= temperature <= BOUND, f"0 or more (0 is greedy), and at most {BOUND:g}")
        _require("top_k", k, k is None or _is_whole(k), "a whole number of 1 or more")
        _require("top_p", p, p is None or 0 < p <= 1, "in (0, 1]")
        _require("min_p", self.min_p, self.min_p is None or 0 <= self.min_p <= 1, "in [0, 1]")
        penalty, n = self.repetition_penalty, self.max_new_tokens
        _require(
            "repetition_penalty", penalty, penalty is None or 1 / BOUND <= penalty <= BOUND, f"from {1 / BOUND:g} to {BOUND:g}"
        )
        _require("max_new_tokens", n, _is_whole(n), "a whole number of 1 or more")
        if temperature < SMALLEST:
            object.__setattr__(self, "temperature", 0.0)

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> SamplingParams:
        """From a dictionary such as JSON has. Raises BadInput for an unknown name."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(params) - known):
            raise BadInput(f"unknown sampling parameter {', '.join(unknown)}", f"known are {', '.join(sorted(known))}")
        values = {name: value for name, value in params.items() if value is not None}
        if isinstance(values.get("eos_token_id"), Sequence):
            values["eos_token_id"] = tuple(values["eos_token_id"])
        return cls(**values)

    @property
    def eos(self) -> frozenset[int]:
        """The end-of-text tokens."""
        ids = self.eos_token_id
        return frozenset() if ids is None else frozenset([ids] if isinstance(ids, int) else ids)

    def ends(self, token: int) -> bool:
        """Whether a token ends the text.

        Compares instead of hashing: in enumeration a comparison costs two branches, and a hash one for every token.
        """
        return any(token == end for end in self.eos)

    @property
    def looks_back(self) -> bool:
        """Whether scores depend on the text before a token."""
        return self.repetition_penalty is not None

    def processors(self) -> LogitsProcessorList:
        """The processors of transformers, in the order of `generate`. At temperature 0 it applies no temperature or filter."""
        chosen = LogitsProcessorList()
        if self.repetition_penalty is not None and self.repetition_penalty != 1.0:
            chosen.append(RepetitionPenaltyLogitsProcessor(penalty=float(self.repetition_penalty)))
        if self.temperature == 0:
            return chosen
        if self.temperature < COLD:
            chosen.append(SubtractLargest())
        if self.temperature != 1.0:
            chosen.append(TemperatureLogitsWarper(float(self.temperature)))
        if self.top_k is not None:
            chosen.append(TopKLogitsWarper(top_k=self.top_k))
        if self.top_p is not None and self.top_p < 1.0:
            chosen.append(TopPLogitsWarper(top_p=float(self.top_p)))
        if self.min_p is not None:
            chosen.append(MinPLogitsWarper(min_p=float(self.min_p)))
        return chosen

    def process(self, histories: Tensor, logits: Tensor) -> Tensor:
        """Apply the processors to logits [n, V] that follow histories [n, length]. Returns scores [n, V].

        (A `LogitsProcessorList` does the same, but inspects the signature of every processor at every call.)
        """
        for processor in self.processors():
            logits = processor(histories, logits)
        return logits


class SubtractLargest(LogitsProcessor):  # type: ignore[misc]
    """Subtract the largest logit, which changes no probability."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """Scores [n, V] below or at 0."""
        return scores - scores.amax(-1, keepdim=True)


def target_distribution(logits: Tensor, tree: Tree, text: Sequence[int], params: SamplingParams) -> Tensor:
    """The target distribution p [m + 1, V]: row i is the distribution of the token after node i.

    Args:
        logits: the target's logits at every node, [m + 1, V].
        tree: the verified tree.
        text: the sequence up to the root, which is its last token.
        params: sampling parameters of the request.

    Returns:
        p, float32 or wider: what `transformers.generate` would sample from after the text and the path to the node.
    """
    return probabilities(apply_processors(logits, tree, text, params), params)


def apply_processors(logits: Tensor, tree: Tree, text: Sequence[int], params: SamplingParams) -> Tensor:
    """Logits [m + 1, V] after the sampling parameters. Arguments as for `target_distribution`.

    At temperature 0 temperature and filters are not applied, as in `transformers.generate`: the softmax of the scores is then
    the distribution whose most likely token is taken, and whose log-probabilities are reported.

    Raises:
        BadInput: a row has NaN, or nothing finite.
    """
    scores = widen(logits)
    _refuse_nan(scores, tree, len(text), logits.dtype)
    if not params.looks_back:
        return params.process(torch.zeros(len(scores), 1, dtype=torch.long, device=scores.device), scores)
    # Every node has a history of its own: the text and its path. Nodes of one depth have histories of one length.
    processed = torch.empty_like(scores)
    for depth in sorted(set(tree.depths)):
        nodes = [node for node, d in enumerate(tree.depths) if d == depth]
        histories = [[*text, *(tree.token(i) for i in tree.path(node))] for node in nodes]
        processed[nodes] = params.process(torch.tensor(histories, device=scores.device), scores[nodes])
    return processed


def probabilities(scores: Tensor, params: SamplingParams) -> Tensor:
    """Scores [n, V] to probabilities [n, V]. At temperature 0 a point mass at the largest score, the first of equal ones."""
    if params.temperature:
        return scores.softmax(-1)
    return torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)


def draft_scores(logits: Tensor, texts: Sequence[Sequence[int]], params: SamplingParams) -> Tensor:
    """As `apply_processors`, for a drafter that samples: logits [n, V] after n texts of one length."""
    scores = checked_draft_logits(logits)
    histories = texts if params.looks_back else [[0]] * len(texts)
    return params.process(torch.tensor(histories, device=scores.device), scores)


def checked_draft_logits(logits: Tensor) -> Tensor:
    """A drafter's logits [n, V] in float32 or wider.

    Raises:
        BadInput: a row has NaN, or nothing finite.
    """
    scores = widen(logits)
    if not scores.amax(-1).isfinite().all():
        raise BadInput("the drafter's logits are not numbers", damage(logits.dtype))
    return scores


def widen(logits: Tensor) -> Tensor:
    """In float32, or in float64 if the logits are."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _refuse_nan(scores: Tensor, tree: Tree, length: int, dtype: torch.dtype) -> None:
    bad = ~scores.amax(-1).isfinite()  # NaN if one is, inf if one is, -inf if all are
    if bad.any():
        node = int(bad.nonzero()[0])
        position = length - 1 + tree.depths[node]
        raise BadInput(
            f"the target's logits are not numbers at position {position} (after token {tree.token(node)})",
            damage(dtype),
        )


def damage(dtype: torch.dtype) -> str:
    """The hint for logits of a model in this dtype that are not numbers."""
    wider = {torch.float64: "", torch.float32: "float64"}.get(dtype, "float32")
    return "its weights are damaged" + (f", or its activations overflow in this dtype: try --dtype {wider}" if wider else "")


def _is_whole(value: float) -> bool:
    """Whether it is a whole number of 1 or more; not NaN and not infinite."""
    return value >= 1 and value % 1 == 0


def _require(name: str, value: object, holds: bool, allowed: str) -> None:
    if not holds:
        raise BadInput(f"{name} is {value}", f"{name} must be {allowed}")
