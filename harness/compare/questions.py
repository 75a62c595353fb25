"""Question files as MT-bench and Spec-Bench have them: conversations, of which the user's turns are given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.errors import BadInput
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import SamplingParams
from harness.compare.chat import Chat
from harness.pairs import Prompt

Answer = Callable[[Sequence[int]], Sequence[int]]

HINT = "one JSON object a line: question_id, category, turns (a list of texts)"


@dataclass(frozen=True)
class Question:
    """The user's turns of a conversation."""

    id: str
    category: str
    turns: tuple[str, ...]


def is_questions(file: Path) -> bool:
    """Whether a file of prompts is one of questions: its first line has turns. Anything else is for others to read."""
    try:
        first = json.loads(next(line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()))
    except (OSError, ValueError, StopIteration):
        return False
    return isinstance(first, dict) and "turns" in first


def questions(file: Path) -> list[Question]:
    """All questions of a file. Other fields, such as reference answers, are not looked at."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"no questions at {file}: {error}", f"give a file with {HINT}") from None
    found = [_question(line, f"{file}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise BadInput(f"{file} has no questions", f"give a file with {HINT}")
    seen = set[str]()
    for question in found:
        if question.id in seen:
            raise BadInput(f"{file} has two questions of id {question.id}", "ids tell prompts apart in the record")
        seen.add(question.id)
    return found


def _question(line: str, where: str) -> Question:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where} is not JSON: {error}", HINT) from None
    if not isinstance(row, dict):
        raise BadInput(f"{where} is not an object", HINT)
    if lacking := [name for name in ("question_id", "category", "turns") if name not in row]:
        raise BadInput(f"{where} lacks {', '.join(lacking)}", HINT)
    turns = row["turns"]
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise BadInput(f"{where} has turns that are no texts", HINT)
    return Question(str(row["question_id"]), str(row["category"]), tuple(turns))


def asked(conversations: Sequence[Question], chat: Chat, answer: Answer, context: int) -> list[Prompt]:
    """A prompt for every turn of every conversation, QUESTION/TURN, of its category.

    A turn after the first stands behind an answer to those before: the one that `answer` gives to their tokens, asked for
    once, so that every method continues the very same prompts. (Left to each method, sampled answers would part, and with
    them the prompts.) context: tokens that the target can hold.
    """
    return [prompt for conversation in conversations for prompt in _turns(conversation, chat, answer, context)]


def _turns(question: Question, chat: Chat, answer: Answer, context: int) -> Iterator[Prompt]:
    said = list[str]()
    for number, turn in enumerate(question.turns, start=1):
        said.append(turn)
        text, tokens = chat.prompt(said)
        if len(tokens) >= context:
            raise BadInput(
                f"turn {number} of question {question.id} makes a prompt of {len(tokens)} tokens; the target can hold {context}",
                "leave the question out, or let answers be shorter",
            )
        yield Prompt(f"{question.id}/{number}", question.category, text, tokens)
        if number < len(question.turns):
            said.append(chat.said(answer(tokens)))


def greedily(target: Target, ends: tuple[int, ...], tokens: int) -> Answer:
    """The target's own answers, without a drafter: the most probable token at every place, at most so many."""
    decoder, params = Decoder(target), SamplingParams(0.0, max_new_tokens=tokens, eos_token_id=ends or None)
    return lambda prompt: decoder.generate(prompt, params, SeededCoins(0)).tokens
