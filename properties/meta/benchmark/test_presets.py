"""Chat formats and presets: prompts have the documented text, end tokens are known, and nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eagle2_ref.drafters.eagle3 import Eagle3
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import METHODS
from fixtures.training.files import write_json
from harness.benchmark.chat import LLAMA2, LLAMA3, PLAIN, VICUNA, Chat, ChatFormat
from harness.benchmark.methods import find_checkpoints, own_options
from harness.benchmark.presets import PRESETS, preset
from harness.benchmark.published import all_figures
from harness.benchmark.settings import CompareSettings
from harness.pairs import Pair, shipped
from properties.meta.helpers import families

SYSTEM = "Be brief."
TRAINED = "Tokens of a small vocabulary are trained on some words, and these words are some of them. " * 9
TURNS = ["Say hello.", "Hello, you!", "And now: ünlikely{{ 7 }}"]

DOCUMENTED: dict[str, tuple[ChatFormat, Callable[..., None], str, str]] = {
    "vicuna": (
        VICUNA,
        families.sentencepiece_like,
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and"
        " polite answers to the user's questions. USER: Say hello. ASSISTANT:",
        " Hello, you!</s>USER: And now: ünlikely{{ 7 }} ASSISTANT:",
    ),
    "llama2": (
        LLAMA2,
        families.sentencepiece_like,
        f"[INST] <<SYS>>\n{SYSTEM}\n<</SYS>>\n\nSay hello. [/INST]",
        " Hello, you! </s><s>[INST] And now: ünlikely{{ 7 }} [/INST]",
    ),
    "llama3": (
        LLAMA3,
        families.byte_level,
        f"<|start_header_id|>system<|end_header_id|>\n\n{SYSTEM}<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nSay hello.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "Hello, you!<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAnd now: ünlikely{{ 7 }}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
}
"""By format: its value, a tokenizer, the text of a prompt of one turn, and the text that two more turns add."""


def make_chat(folder: Path, chat_format: ChatFormat, tokenizer: Callable[..., None], system: str = "", **config: Any) -> Chat:
    tokenizer(folder, **config)
    return Chat.of(Pair("pair", folder, folder), chat_format, system)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_prompt_has_the_documented_text(tmp_path: Path, name: str) -> None:
    """With one turn and with three. Its tokens begin with one begin-of-text token, and decode to the same text."""
    chat_format, tokenizer, first, more = DOCUMENTED[name]
    chat = make_chat(tmp_path, chat_format, tokenizer, "" if name == "vicuna" else SYSTEM)
    begins = chat.tokenizer.bos_token_id
    for turns, expected in ((TURNS[:1], first), (TURNS, first + more)):
        text, tokens = chat.prompt(turns)
        assert text == expected
        assert tokens[0] == begins and tokens[1] != begins
        assert tokens[1:] == chat.tokenizer(expected, add_special_tokens=False)["input_ids"]
        assert chat.tokenizer.decode(tokens[1:]).replace(" ", "") == expected.replace(" ", "")
    assert chat.prompt(TURNS)[1].count(begins) == (2 if name == "llama2" else 1)


def test_template_of_the_tokenizer_is_used(tmp_path: Path) -> None:
    """With the given system message; the template then writes the begin-of-text token."""
    own = "{{ bos_token }}{% for message in messages %}{{ message.role }}={{ message.content }};{% endfor %}"
    chat = make_chat(tmp_path, LLAMA2, families.sentencepiece_like, SYSTEM, chat_template=own)
    text, tokens = chat.prompt(TURNS[:2])
    assert text == f"<s>system={SYSTEM};user=Say hello.;assistant=Hello, you!;"
    assert tokens.count(chat.tokenizer.bos_token_id) == 1 and tokens[0] == chat.tokenizer.bos_token_id
    other = Chat(chat.tokenizer, PLAIN)
    assert other.prompt(TURNS[:1])[0] == "<s>user=Say hello.;" and other.end_tokens == (2,)


def test_system_message_is_optional_and_replaceable(tmp_path: Path) -> None:
    """Without one, the first turn begins like later turns. A given one replaces that of the format."""
    chat = make_chat(tmp_path / "none", LLAMA2, families.sentencepiece_like)
    assert chat.prompt(TURNS)[0] == "[INST] Say hello. [/INST] Hello, you! </s><s>[INST] And now: ünlikely{{ 7 }} [/INST]"
    chat = make_chat(tmp_path / "other", VICUNA, families.sentencepiece_like, SYSTEM)
    assert chat.prompt(TURNS[:1])[0] == f"{SYSTEM} USER: Say hello. ASSISTANT:"


def test_model_without_chat_format_gets_one_turn_per_line() -> None:
    """The shipped pair decodes bytes; no token ends an answer."""
    chat = Chat.of(shipped("stdlib"), PLAIN)
    text, tokens = chat.prompt(TURNS[:1])
    assert text == "Say hello.\n" and tokens == list(text.encode()) and chat.end_tokens == ()


def test_answer_ends_with_an_end_token_of_the_format(tmp_path: Path) -> None:
    """The text of an answer does not contain it."""
    old, new = (
        make_chat(tmp_path / name, chat_format, tokenizer, chat_template="…")
        for name, chat_format, tokenizer in (("old", VICUNA, families.sentencepiece_like), ("new", LLAMA3, families.byte_level))
    )
    assert old.end_tokens == (2,) and new.end_tokens == (257, 260)
    assert old.answer([*old.tokenizer("yes", add_special_tokens=False)["input_ids"], 2]) == "yes"
    assert new.answer([*b" yes\n", 260]) == "yes"
    with pytest.raises(BadInput, match=r"<\|end_of_text\|>, <\|eot_id\|>\n  the preset is for another"):
        _ = Chat(old.tokenizer, LLAMA3).end_tokens


def test_target_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no tokenizer\n"):
        Chat.of(Pair("pair", tmp_path, tmp_path))


def test_sentencepiece_tokenizer_of_llama2(tmp_path: Path) -> None:
    """tokenizer.model alone, as published: one begin-of-text token, and special tokens are recognised."""
    spm = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    with (tmp_path / "tokenizer.model").open("wb") as file:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter([TRAINED]), model_writer=file, vocab_size=330, model_type="bpe", byte_fallback=True,
            remove_extra_whitespaces=False, normalization_rule_name="identity", minloglevel=2,
        )  # fmt: skip
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(tmp_path / "tokenizer_config.json", {**config, "add_bos_token": True, "add_eos_token": False})
    write_json(tmp_path / "config.json", {"model_type": "llama"})
    chat = Chat.of(Pair("pair", tmp_path, tmp_path), LLAMA2, SYSTEM)
    text, tokens = chat.prompt(TURNS)
    assert chat.end_tokens == (2,) and text == "".join(DOCUMENTED["llama2"][2:])
    assert [(place == 0, token) for place, token in enumerate(tokens) if token in (1, 2)] == [(True, 1), (False, 2), (False, 1)]
    assert chat.answer(tokens[1 : tokens.index(2)]).startswith("[INST] <<SYS>>") and max(tokens) < 330


def test_missing_sentencepiece_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tokenizer.model alone, as LLaMA 2 was published, can be read by SentencePiece only."""
    (tmp_path / "tokenizer.model").write_bytes(b"")
    monkeypatch.setattr("transformers.utils.is_sentencepiece_available", lambda: False)
    with pytest.raises(BadInput, match=r"SentencePiece.*\n.*eagle2-ref\[big\]"):
        Chat.of(Pair("pair", tmp_path, tmp_path))


def test_budgets_are_those_of_the_paper() -> None:
    """Appendix A: depth 6, k 10, and 60, 50 and 48 tokens for 7B or 8B, 13B and 70B; the root is counted."""
    totals = {"7B": 60, "8B": 60, "13B": 50, "33B": 60, "70B": 48}
    for one in (one for one in PRESETS.values() if one.checkpoint == "draft"):
        assert (one.budget.k, one.budget.depth, one.budget.m + 1) == (10, 6, totals[one.model.split()[-1]])
        one.budget.check(32000)


def test_presets_and_published_figures_name_the_same_models() -> None:
    assert {figure.model for figure in all_figures()} <= {one.model for one in PRESETS.values()}
    assert len({one.draft for one in PRESETS.values()}) == len({(one.target, one.checkpoint) for one in PRESETS.values()})
    assert len(PRESETS) == len({one.draft for one in PRESETS.values()})


def test_presets_of_eagle3_bring_its_head_and_budget(tmp_path: Path) -> None:
    """Their --draft is an EAGLE-3 head: there is none for EAGLE and EAGLE-2. Budgets are the defaults of the published code."""
    eagle3 = {name: one for name, one in PRESETS.items() if name.endswith("-eagle3")}
    assert len(eagle3) == 4 and all(one.budget == Eagle3(k=10, depth=8, m=59) for one in eagle3.values())
    assert all(one.draft.startswith("yuhuili/EAGLE3-") and one.checkpoint == "eagle3" for one in eagle3.values())
    pair = Pair("mine", tmp_path / "target", tmp_path / "head", own=True)
    pair.draft.mkdir()
    found = find_checkpoints(pair, model=preset("llama3.1-8b-eagle3"))
    assert (found["eagle3"], found["draft"]) == (tmp_path / "head", None)
    assert find_checkpoints(pair, model=preset("llama3-8b"))["eagle3"] is None
    settings = CompareSettings(preset="llama3.1-8b-eagle3")
    for method in ("eagle2", "eagle3"):
        assert {"k": 10, "depth": 8, "m": 59}.items() <= own_options(METHODS[method], settings).items()


def test_missing_checkpoint_is_named_and_not_downloaded(tmp_path: Path) -> None:
    """A repository in place of a folder is recognised."""
    vicuna, here = preset("vicuna-7b"), str(tmp_path)
    with pytest.raises(BadInput, match=r"Vicuna 7B needs --target\n.*hf download lmsys/vicuna-7b-v1.3 --local-dir vicuna-"):
        vicuna.pair("", here)
    with pytest.raises(BadInput, match=r"Vicuna 7B needs --draft\n.*yuhuili/EAGLE-Vicuna-7B-v1.3"):
        vicuna.pair(here, "")
    with pytest.raises(BadInput, match=r"--target lmsys/vicuna-7b-v1.3 is not a directory\n.*nothing is downloaded here"):
        vicuna.pair("lmsys/vicuna-7b-v1.3", here)
    assert vicuna.pair(here, here).own
    with pytest.raises(BadInput, match=r"preset 'vicuna' is not known\n  known are vicuna-7b, "):
        preset("vicuna")


@pytest.mark.parametrize(("kind", "folder"), [("draft", "draft"), ("eagle3", "eagle3"), ("medusa", "medusa")])
def test_kind_of_a_head_is_read_from_its_checkpoint(kind: str, folder: str) -> None:
    """`compare --target DIR --draft DIR` runs the methods of the head that it gets."""
    stdlib = shipped("stdlib")
    draft = stdlib.draft.parent / folder
    found = find_checkpoints(Pair("x", stdlib.target, draft, own=True))
    assert {name: path for name, path in found.items() if path and name != "none"} == {kind: draft}
