"""Question files: they are read strictly, and a second turn follows the target's own answer to the first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from eagle2_ref.errors import BadInput
from eagle2_ref.model.target import Target
from harness.benchmark.chat import VICUNA, Chat
from harness.benchmark.prompts import Question, greedy_answers, is_question_file, load_questions, prompts_from_questions
from harness.benchmark.settings import PROMPTS
from properties.meta.helpers import families, tiny

ROWS: list[dict[str, Any]] = [
    {"question_id": 81, "category": "writing", "turns": ["Describe a lighthouse.", "Now in one line."], "reference": ["…"]},
    {"question_id": "rag-1", "category": "rag", "turns": ["Which of these two towns is older?\n\nÅby, Zed"]},
]


def write_questions(folder: Path, rows: Sequence[object]) -> Path:
    file = folder / "question.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return file


def test_question_file_is_read(tmp_path: Path) -> None:
    file = write_questions(tmp_path, [ROWS[0], "", ROWS[1]])
    assert load_questions(file) == [
        Question("81", "mt-bench", ("Describe a lighthouse.", "Now in one line.")),
        Question("rag-1", "rag", ("Which of these two towns is older?\n\nÅby, Zed",)),
    ]


def test_question_files_are_recognised(tmp_path: Path) -> None:
    """Questions have turns, prompts have a text. A file that is neither is left to the reader of prompts."""
    assert is_question_file(write_questions(tmp_path, ["", *ROWS])) and is_question_file(
        write_questions(tmp_path, ['{"turns": []}'])
    )
    assert not is_question_file(PROMPTS) and not is_question_file(tmp_path / "nowhere") and not is_question_file(tmp_path)
    assert not any(is_question_file(write_questions(tmp_path, rows)) for rows in (["{"], [""], ["[]"], ['"turns"']))


WRONG: dict[str, tuple[list[object], str]] = {
    "not JSON": ([ROWS[0], "{"], r"question.jsonl, line 2 is not JSON: "),
    "not an object": (["[1]"], r"line 1 is not an object\n.*question_id, category, turns"),
    "missing field": ([{"question_id": 1, "text": "x"}], r"line 1 has no category, turns"),
    "no turns": ([{**ROWS[0], "turns": []}], r"line 1 has turns that are not a list of texts"),
    "a turn is not a text": ([{**ROWS[0], "turns": ["a", 7]}], r"line 1 has turns that are not a list of texts"),
    "a turn is empty": ([{**ROWS[0], "turns": ["a", " "]}], r"line 1 has turns that are not a list of texts"),
    "turns is one text": ([{**ROWS[0], "turns": "abc"}], r"line 1 has turns that are not a list of texts"),
    "duplicate id": ([ROWS[0], ROWS[0]], r"has two questions of id 81"),
    "empty": ([], r"has no questions"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_question_file_is_refused(tmp_path: Path, what: str) -> None:
    """With the file, the line, and what is wrong there."""
    rows, message = WRONG[what]
    with pytest.raises(BadInput, match=message):
        load_questions(write_questions(tmp_path, rows))


def test_missing_question_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no questions at .*nowhere"):
        load_questions(tmp_path / "nowhere")


def test_second_turn_follows_the_targets_own_answer(tmp_path: Path) -> None:
    """Its prompt contains the greedy text of the target, which is decoded once; a first turn needs no answer."""
    pair, model = families.vicuna(tmp_path)
    chat, target = Chat.of(pair, VICUNA), Target(model)
    answer, calls = greedy_answers(target, chat.end_tokens, 9), list[tuple[list[int], Sequence[int]]]()

    def noted(tokens: Sequence[int]) -> Sequence[int]:
        calls.append((list(tokens), answer(tokens)))
        return calls[-1][1]

    first, second, single = prompts_from_questions(load_questions(write_questions(tmp_path, ROWS)), chat, noted, 2048)
    assert [(prompt.id, prompt.kind) for prompt in (first, second, single)] == [
        ("81/1", "mt-bench"),
        ("81/2", "mt-bench"),
        ("rag-1/1", "rag"),
    ]
    ((before, tokens),) = calls
    assert before == first.tokens and list(tokens) == greedy(model, first.tokens, 9)
    assert second.text == f"{first.text} {chat.answer(tokens)}</s>USER: Now in one line. ASSISTANT:"
    assert (second.text, second.tokens) == chat.prompt([*ROWS[0]["turns"][:1], chat.answer(tokens), ROWS[0]["turns"][1]])


def test_answer_ends_at_the_first_end_token_or_the_limit() -> None:
    model, prompt = tiny.target(), tiny.tokens(7)
    text = greedy(model, prompt, 9)
    end = text[5]
    assert greedy_answers(Target(model), (end, 63), 9)(prompt) == text[: text.index(end) + 1]
    assert greedy_answers(Target(model), (), 9)(prompt) == text


def greedy(model: Any, prompt: Sequence[int], n: int) -> list[int]:
    """The greedy text by transformers."""
    import torch

    ids = torch.tensor([list(prompt)])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n, pad_token_id=0)
    new: list[int] = out[0, len(prompt) :].tolist()
    return new


def test_question_that_does_not_fit_is_named(tmp_path: Path) -> None:
    pair, _ = families.vicuna(tmp_path)
    chat = Chat.of(pair, VICUNA)
    with pytest.raises(BadInput, match=r"turn 2 of question 81 .* 250"):
        prompts_from_questions([Question("81", "writing", ("a", "b" * 60))], chat, lambda _: tiny.tokens(20), 250)
