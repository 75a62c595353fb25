"""Presets: prompts have the text that a family documents, its tokens end answers, and what is not there is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eagle2_ref.errors import BadInput
from fixtures.training.files import write_json
from harness.compare.chat import LLAMA2, LLAMA3, PLAIN, VICUNA, Chat, Family
from harness.compare.presets import PRESETS, preset
from harness.compare.published import figures
from harness.pairs import Pair, shipped
from properties.meta.helpers import families

SYSTEM = "Be brief."
TRAINED = "Tokens of a small vocabulary are trained on some words, and these words are some of them. " * 9
TURNS = ["Say hello.", "Hello, you!", "And now: ünlikely{{ 7 }}"]

TOLD: dict[str, tuple[Family, Callable[..., None], str, str]] = {
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
"""What a prompt of one turn is, and what the next two turns add to it."""


def chat(folder: Path, family: Family, tokenizer: Callable[..., None], system: str = "", **config: Any) -> Chat:
    tokenizer(folder, **config)
    return Chat.of(Pair("pair", folder, folder), family, system)


@pytest.mark.parametrize("name", TOLD)
def test_a_prompt_has_the_documented_text(tmp_path: Path, name: str) -> None:
    """Of one turn and of three; in tokens it begins once as its tokenizer begins a text, and says the same."""
    family, tokenizer, first, more = TOLD[name]
    asked = chat(tmp_path, family, tokenizer, "" if name == "vicuna" else SYSTEM)
    begins = asked.tokenizer.bos_token_id
    for turns, expected in ((TURNS[:1], first), (TURNS, first + more)):
        text, tokens = asked.prompt(turns)
        assert text == expected
        assert tokens[0] == begins and tokens[1] != begins
        assert tokens[1:] == asked.tokenizer(expected, add_special_tokens=False)["input_ids"]
        assert asked.tokenizer.decode(tokens[1:]).replace(" ", "") == expected.replace(" ", "")
    assert asked.prompt(TURNS)[1].count(begins) == (2 if name == "llama2" else 1)


def test_a_tokenizers_own_template_is_used(tmp_path: Path) -> None:
    """With the family's system message; what begins a text is then the template's to say."""
    own = "{{ bos_token }}{% for message in messages %}{{ message.role }}={{ message.content }};{% endfor %}"
    asked = chat(tmp_path, LLAMA2, families.sentencepiece_like, SYSTEM, chat_template=own)
    text, tokens = asked.prompt(TURNS[:2])
    assert text == f"<s>system={SYSTEM};user=Say hello.;assistant=Hello, you!;"
    assert tokens.count(asked.tokenizer.bos_token_id) == 1 and tokens[0] == asked.tokenizer.bos_token_id
    other = Chat(asked.tokenizer, PLAIN)
    assert other.prompt(TURNS[:1])[0] == "<s>user=Say hello.;" and other.ends == (2,)


def test_without_a_system_message_there_is_none(tmp_path: Path) -> None:
    """The first turn then begins as later ones do; and one that is given stands in place of the family's own."""
    asked = chat(tmp_path / "none", LLAMA2, families.sentencepiece_like)
    assert asked.prompt(TURNS)[0] == "[INST] Say hello. [/INST] Hello, you! </s><s>[INST] And now: ünlikely{{ 7 }} [/INST]"
    asked = chat(tmp_path / "other", VICUNA, families.sentencepiece_like, SYSTEM)
    assert asked.prompt(TURNS[:1])[0] == f"{SYSTEM} USER: Say hello. ASSISTANT:"


def test_a_model_that_does_not_chat_is_given_the_turns_alone() -> None:
    """The shipped pair: bytes, one turn below the other; no token ends an answer."""
    asked = Chat.of(shipped("stdlib"), PLAIN)
    text, tokens = asked.prompt(TURNS[:1])
    assert text == "Say hello.\n" and tokens == list(text.encode()) and asked.ends == ()


def test_what_ends_an_answer(tmp_path: Path) -> None:
    """Tokens of the family, by the ids that the tokenizer gives them; an answer is told without them."""
    old, new = (
        chat(tmp_path / name, family, tokenizer, chat_template="…")
        for name, family, tokenizer in (("old", VICUNA, families.sentencepiece_like), ("new", LLAMA3, families.byte_level))
    )
    assert old.ends == (2,) and new.ends == (257, 260)
    assert old.said([*old.tokenizer("yes", add_special_tokens=False)["input_ids"], 2]) == "yes"
    assert new.said([*b" yes\n", 260]) == "yes"
    with pytest.raises(BadInput, match=r"has no token <\|end_of_text\|>, <\|eot_id\|>\n  the preset is for another family"):
        _ = Chat(old.tokenizer, LLAMA3).ends


def test_a_target_without_a_tokenizer_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no tokenizer\n"):
        Chat.of(Pair("pair", tmp_path, tmp_path))


def test_the_tokenizer_that_llama2_was_published_with(tmp_path: Path) -> None:
    """tokenizer.model alone, as SentencePiece writes it: a prompt begins once, and its special tokens are special."""
    spm = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    with (tmp_path / "tokenizer.model").open("wb") as file:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter([TRAINED]), model_writer=file, vocab_size=330, model_type="bpe", byte_fallback=True,
            remove_extra_whitespaces=False, normalization_rule_name="identity", minloglevel=2,
        )  # fmt: skip
    written = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(tmp_path / "tokenizer_config.json", {**written, "add_bos_token": True, "add_eos_token": False})
    write_json(tmp_path / "config.json", {"model_type": "llama"})
    asked = Chat.of(Pair("pair", tmp_path, tmp_path), LLAMA2, SYSTEM)
    text, tokens = asked.prompt(TURNS)
    assert asked.ends == (2,) and text == "".join(TOLD["llama2"][2:])
    assert [(place == 0, token) for place, token in enumerate(tokens) if token in (1, 2)] == [(True, 1), (False, 2), (False, 1)]
    assert asked.said(tokens[1 : tokens.index(2)]).startswith("[INST] <<SYS>>") and max(tokens) < 330


def test_a_tokenizer_that_needs_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tokenizer.model alone, as LLaMA 2 was published, is SentencePiece's: the error names the extra that reads it."""
    (tmp_path / "tokenizer.model").write_bytes(b"")
    monkeypatch.setattr("transformers.utils.is_sentencepiece_available", lambda: False)
    with pytest.raises(BadInput, match=r"is SentencePiece's, which is not installed\n  pip install 'eagle2-ref\[big\]'"):
        Chat.of(Pair("pair", tmp_path, tmp_path))


def test_budgets_are_the_papers() -> None:
    """Appendix A: 60, 50 and 48 tokens for 7B or 8B, 13B and 70B, which the code counts with the root; depth 6, k 10."""
    totals = {"7B": 60, "8B": 60, "13B": 50, "33B": 60, "70B": 48}
    for told in PRESETS.values():
        assert (told.budget.k, told.budget.depth, told.budget.m + 1) == (10, 6, totals[told.model.split()[-1]])
        told.budget.check(32000)


def test_presets_and_published_figures_name_the_same_models() -> None:
    quoted = {figure.model for figure in figures()}
    assert quoted <= {told.model for told in PRESETS.values()}
    assert len({told.target for told in PRESETS.values()} | {told.draft for told in PRESETS.values()}) == 2 * len(PRESETS)


def test_nothing_is_downloaded(tmp_path: Path) -> None:
    """What is not given is asked for by the name of its repository; a repository in place of a directory is told apart."""
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
