"""Prompts of a run: files of prompts as shipped here, files of questions as MT-bench and Spec-Bench have them, and the questions
of installed packages (prompt_packages.py)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.errors import BadInput, suggest
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import SamplingParams
from harness.benchmark.chat import Chat
from harness.benchmark.figures import group_by
from harness.benchmark.prompt_packages import PACKAGES, package_of
from harness.benchmark.settings import RunSettings
from harness.pairs import Pair, Prompt, encoder

T = TypeVar("T")
Answer = Callable[[Sequence[int]], Sequence[int]]
"""Gives the tokens of an answer to the tokens of a prompt."""

PROMPT_LINES = "give a file with one JSON object per line: id, kind, text"
QUESTION_LINES = "one JSON object per line: question_id, category, turns (a list of texts)"

MT_BENCH = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
"""The categories of MT-bench, which are one of the six kinds of Spec-Bench (hemingkx/Spec-Bench, evaluation/speed.py)."""


def spread(items: Sequence[T], n: int) -> list[T]:
    """n items at equal distances in the list; all items if there are at most n."""
    return [items[(2 * i + 1) * len(items) // (2 * n)] for i in range(n)] if n < len(items) else list(items)


def one_per_kind(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first prompt of each kind."""
    return list({prompt.kind: prompt for prompt in reversed(prompts)}.values())


def load_prompts(file: Path, pair: Pair, limit: int, tokens: int) -> list[Prompt]:
    """Read prompts and encode them.

    Args:
        file: JSON lines with id, kind and text.
        pair: its target's tokenizer encodes the texts.
        limit: number of prompts, spread over the file; 0 for all.
        tokens: number of new tokens that must fit into the context after each prompt.

    Raises:
        BadInput: the file is not of this form, or a prompt is empty or too long.
    """
    lines, encode = _prompt_lines(file), encoder(pair)
    prompts = [Prompt(**line, tokens=encode(line["text"])) for line in spread(lines, limit or len(lines))]
    for prompt in prompts:
        if not prompt.tokens:
            raise BadInput(f"prompt {prompt.id} of {file} is empty", "give at least one token")
        if len(prompt.tokens) + tokens > pair.context:
            room = pair.context - len(prompt.tokens)
            raise BadInput(
                f"prompt {prompt.id} has {len(prompt.tokens)} tokens; {tokens} more do not fit into a context of {pair.context}",
                f"give --tokens {room} or fewer, or shorter prompts" if room > 0 else "give shorter prompts",
            )
    return prompts


def _prompt_lines(file: Path) -> list[dict[str, str]]:
    rows = list[dict[str, str]]()
    for number, line in _lines(file, "prompts", PROMPT_LINES):
        try:
            row = json.loads(line)
            rows.append({name: str(row[name]) for name in ("id", "kind", "text")})
        except (json.JSONDecodeError, KeyError, TypeError):
            raise BadInput(f"{file}, line {number} is no prompt", PROMPT_LINES) from None
    _check_ids(file, "prompts", [row["id"] for row in rows])
    return rows


def read_prompts(
    file: Path, pair: Pair, settings: RunSettings, target: Callable[[], Target], chat: Callable[[], Chat]
) -> tuple[list[Prompt], tuple[int, ...]]:
    """The prompts of a file of prompts or of questions, and the tokens that end an answer: none for prompts of no chat.

    Args:
        file: prompts or questions, or the name of a package of questions.
        pair: the pair that is run.
        settings: how many prompts or questions are taken, by which seed, and the number of new tokens of each answer.
        target: gives the target; called for the answers before second turns only, since to load it can take long.
        chat: gives the chat format of questions.
    """
    if not is_question_file(file):
        return load_prompts(file, pair, settings.limit, settings.tokens), ()
    form = chat()

    def answer(prompt: Sequence[int]) -> Sequence[int]:
        return greedy_answers(target(), form.end_tokens, settings.tokens)(prompt)

    chosen = subset(load_questions(file), settings.limit, settings.seed)
    return prompts_from_questions(chosen, form, answer, pair.context), form.end_tokens


def _lines(file: Path, what: str, hint: str) -> list[tuple[int, str]]:
    """Number and text of every line that is not blank."""
    try:
        package = package_of(file)
        text = package.read() if package else file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BadInput(f"no {what} at {file}: {error}", suggest(str(file), PACKAGES, hint)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"no {what} at {file}: {error}", hint) from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise BadInput(f"{file} has no {what}", hint)
    return lines


def _check_ids(file: Path, what: str, ids: Sequence[str]) -> None:
    if duplicates := sorted({one for one in ids if ids.count(one) > 1}):
        raise BadInput(f"{file} has two {what} of id {duplicates[0]}", "records identify prompts by their ids")


@dataclass(frozen=True)
class Question:
    """The user's turns of a conversation."""

    id: str
    category: str
    turns: tuple[str, ...]


def is_question_file(file: Path) -> bool:
    """Whether the first line of a file has turns. A file that cannot be read is none: `load_prompts` says what is wrong."""
    if package_of(file):
        return True
    try:
        first = json.loads(next(line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()))
    except (OSError, ValueError, StopIteration):
        return False
    return isinstance(first, dict) and "turns" in first


def load_questions(file: Path) -> list[Question]:
    """All questions of a file, with their kinds. Other fields, such as reference answers, are ignored."""
    questions = [_question(line, f"{file}, line {number}") for number, line in _lines(file, "questions", QUESTION_LINES)]
    _check_ids(file, "questions", [question.id for question in questions])
    return with_kinds(questions)


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


def _question(line: str, where: str) -> Question:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where} is not JSON: {error}", QUESTION_LINES) from None
    if not isinstance(row, dict):
        raise BadInput(f"{where} is not an object", QUESTION_LINES)
    if missing := [name for name in ("question_id", "category", "turns") if name not in row]:
        raise BadInput(f"{where} has no {', '.join(missing)}", QUESTION_LINES)
    turns = row["turns"]
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise BadInput(f"{where} has turns that are not a list of texts", QUESTION_LINES)
    return Question(str(row["question_id"]), str(row["category"]), tuple(turns))


def prompts_from_questions(questions: Sequence[Question], chat: Chat, answer: Answer, context: int) -> list[Prompt]:
    """A prompt for every turn of every conversation, with the id QUESTION/TURN and the category as its kind.

    A later turn follows an answer to the earlier ones. `answer` gives that answer once, so that every method continues the
    same prompts. If each method continued its own sampled answers, the prompts would differ between methods.

    Args:
        questions: the conversations.
        chat: format of a conversation, and its tokenizer.
        answer: gives the answers between turns.
        context: number of tokens that the target can hold.
    """
    return [prompt for question in questions for prompt in _turns(question, chat, answer, context)]


def _turns(question: Question, chat: Chat, answer: Answer, context: int) -> Iterator[Prompt]:
    conversation = list[str]()
    for number, turn in enumerate(question.turns, start=1):
        conversation.append(turn)
        text, tokens = chat.prompt(conversation)
        if len(tokens) >= context:
            raise BadInput(
                f"turn {number} of question {question.id} makes a prompt of {len(tokens)} tokens; the target can hold {context}",
                "leave the question out, or ask for shorter answers",
            )
        yield Prompt(f"{question.id}/{number}", question.category, text, tokens)
        if number < len(question.turns):
            conversation.append(chat.answer(answer(tokens)))


def greedy_answers(target: Target, end_tokens: tuple[int, ...], tokens: int) -> Answer:
    """The target's own greedy answers, decoded without a drafter, at most `tokens` tokens each."""
    decoder, params = Decoder(target), SamplingParams(0.0, max_new_tokens=tokens, eos_token_id=end_tokens or None)
    return lambda prompt: decoder.generate(prompt, params, SeededCoins(0)).tokens
