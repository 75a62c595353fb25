"""A subset of a file of questions: as many of each kind as there is room for, chosen by a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from harness.benchmark.figures import group_by
from harness.benchmark.prompts import Question

MT_BENCH = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
"""The categories of MT-bench, which are one of the six kinds of Spec-Bench (hemingkx/Spec-Bench, evaluation/speed.py)."""


def with_kinds(questions: Sequence[Question]) -> list[Question]:
    """Questions whose category is their kind: MT-bench's categories become one kind where the file has others too."""
    if all(question.category in MT_BENCH for question in questions):
        return list(questions)
    return [replace(one, category="mt-bench") if one.category in MT_BENCH else one for one in questions]


def subset(questions: Sequence[Question], n: int, seed: int) -> list[Question]:
    """n questions in the order of the file, the same number of each kind as far as possible; all of them if n is 0.

    The choice depends on the seed and on the questions of a kind alone, so that a larger n of the same seed adds questions.
    """
    if not n:
        return list(questions)
    kinds = group_by(questions, lambda question: question.category)
    orders = [Random(f"{seed} {kind}").sample(found, len(found)) for kind, found in kinds.items()]  # noqa: S311  no secret
    turns = [
        question for row in range(max(map(len, orders))) for order in orders if row < len(order) for question in [order[row]]
    ]
    chosen = {question.id for question in turns[:n]}
    return [question for question in questions if question.id in chosen]
