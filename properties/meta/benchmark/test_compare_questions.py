"""Question files: read strictly, told apart from our own prompts, and a second turn stands behind one answer, the target's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from eagle2_ref.errors import BadInput
from eagle2_ref.model.target import Target
from harness.bench.settings import PROMPTS
from harness.compare.chat import VICUNA, Chat
from harness.compare.questions import Question, asked, greedily, is_questions, questions
from properties.meta.helpers import families, tiny

ROWS: list[dict[str, Any]] = [
    {"question_id": 81, "category": "writing", "turns": ["Describe a lighthouse.", "Now in one line."], "reference": ["…"]},
    {"question_id": "rag-1", "category": "rag", "turns": ["Which of these two towns is older?\n\nÅby, Zed"]},
]


def written(folder: Path, rows: Sequence[object]) -> Path:
    file = folder / "question.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return file


def test_questions_are_read(tmp_path: Path) -> None:
    file = written(tmp_path, [ROWS[0], "", ROWS[1]])
    assert questions(file) == [
        Question("81", "writing", ("Describe a lighthouse.", "Now in one line.")),
        Question("rag-1", "rag", ("Which of these two towns is older?\n\nÅby, Zed",)),
    ]


def test_files_are_told_apart(tmp_path: Path) -> None:
    """Questions have turns, our own prompts a text; what is neither is left to who reads prompts."""
    assert is_questions(written(tmp_path, ["", *ROWS])) and is_questions(written(tmp_path, ['{"turns": []}']))
    assert not is_questions(PROMPTS) and not is_questions(tmp_path / "nowhere") and not is_questions(tmp_path)
    assert not any(is_questions(written(tmp_path, rows)) for rows in (["{"], [""], ["[]"], ['"turns"']))


WRONG: dict[str, tuple[list[object], str]] = {
    "not JSON": ([ROWS[0], "{"], r"question.jsonl, line 2 is not JSON: "),
    "no object": (["[1]"], r"line 1 is not an object\n  one JSON object a line: question_id, category, turns"),
    "a field is missing": ([{"question_id": 1, "text": "x"}], r"line 1 lacks category, turns"),
    "no turns": ([{**ROWS[0], "turns": []}], r"line 1 has turns that are no texts"),
    "a turn is no text": ([{**ROWS[0], "turns": ["a", 7]}], r"line 1 has turns that are no texts"),
    "a turn is empty": ([{**ROWS[0], "turns": ["a", " "]}], r"line 1 has turns that are no texts"),
    "one text for turns": ([{**ROWS[0], "turns": "abc"}], r"line 1 has turns that are no texts"),
    "one id twice": ([ROWS[0], ROWS[0]], r"has two questions of id 81"),
    "nothing": ([], r"has no questions"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_refused(tmp_path: Path, what: str) -> None:
    """With the file, the line, and what is wrong there."""
    rows, told = WRONG[what]
    with pytest.raises(BadInput, match=told):
        questions(written(tmp_path, rows))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no questions at .*nowhere"):
        questions(tmp_path / "nowhere")


def test_a_second_turn_stands_behind_the_targets_own_answer(tmp_path: Path) -> None:
    """Its prompt has the greedy text of the target in it, asked for once; a first turn's prompt asks for nothing."""
    pair, model = families.vicuna(tmp_path)
    chat, target = Chat.of(pair, VICUNA), Target(model)
    answer, given = greedily(target, chat.ends, 9), list[tuple[list[int], Sequence[int]]]()

    def noted(tokens: Sequence[int]) -> Sequence[int]:
        given.append((list(tokens), answer(tokens)))
        return given[-1][1]

    first, second, single = asked(questions(written(tmp_path, ROWS)), chat, noted, 2048)
    assert [(prompt.id, prompt.kind) for prompt in (first, second, single)] == [
        ("81/1", "writing"),
        ("81/2", "writing"),
        ("rag-1/1", "rag"),
    ]
    ((before, tokens),) = given
    assert before == first.tokens and list(tokens) == greedy(model, first.tokens, 9)
    assert second.text == f"{first.text} {chat.said(tokens)}</s>USER: Now in one line. ASSISTANT:"
    assert (second.text, second.tokens) == chat.prompt([*ROWS[0]["turns"][:1], chat.said(tokens), ROWS[0]["turns"][1]])


def test_an_answer_ends_where_the_model_ends_it() -> None:
    """With the first token that ends one, which is told; or when it is long enough."""
    model, prompt = tiny.target(), tiny.tokens(7)
    text = greedy(model, prompt, 9)
    end = text[5]
    assert greedily(Target(model), (end, 63), 9)(prompt) == text[: text.index(end) + 1]
    assert greedily(Target(model), (), 9)(prompt) == text


def greedy(model: Any, prompt: Sequence[int], n: int) -> list[int]:
    """By transformers."""
    import torch

    ids = torch.tensor([list(prompt)])
    made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n, pad_token_id=0)
    new: list[int] = made[0, len(prompt) :].tolist()
    return new


def test_a_prompt_that_does_not_fit_is_named(tmp_path: Path) -> None:
    pair, _ = families.vicuna(tmp_path)
    chat = Chat.of(pair, VICUNA)
    with pytest.raises(BadInput, match=r"turn 2 of question 81 makes a prompt of \d+ tokens; the target can hold 250"):
        asked([Question("81", "writing", ("a", "b" * 60))], chat, lambda _: tiny.tokens(20), 250)
