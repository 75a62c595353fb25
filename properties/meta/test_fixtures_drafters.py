"""The drafters of the shipped pairs: whole, fitting, worth what their records say; and the trainings that make them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from eagle2_ref.checkpoint import load_head
from eagle2_ref.errors import BadInput
from fixtures.converters.published import write_published
from fixtures.training import coin, dice
from fixtures.training.assistant import make_medusa, make_small
from fixtures.training.card import write_card
from fixtures.training.drafters import KINDS, Course, HeadRecipe
from fixtures.training.drafters.eagle3 import aux_layers
from fixtures.training.features import Features, Report, compute, continued
from fixtures.training.files import write_checksums
from fixtures.training.head import train
from fixtures.training.worth import agreement, chain
from harness.pairs import FIXTURES

PAIRS = FIXTURES / "pairs"
FOLDERS = ("draft", "eagle3", "medusa", "small")


def quiet(_: str) -> Report:
    return lambda *_: None


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


@pytest.fixture(scope="module")
def targets() -> dict[str, Any]:
    return {pair: load(PAIRS / pair / "target") for pair in ("dice8", "stdlib")}


def as_shipped(pair: str, folder: str, target: Any) -> tuple[Course, dict[str, Tensor]]:
    """The course that made a shipped drafter, as its record tells, before the first step; and the tensors on disk."""
    place = PAIRS / pair / folder
    tensors = load_file(place / "model.safetensors")
    recipe = HeadRecipe(**json.loads((place / "training.json").read_text())["recipe"])
    text = tensors["t2d"].nonzero() if "t2d" in tensors else torch.arange(target.config.vocab_size)
    return KINDS[recipe.kind](target, recipe, text), tensors


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize(("pair", "stored"), [("dice8", torch.float32), ("stdlib", torch.float16)])
def test_a_shipped_drafter_is_what_its_recipe_makes_of_its_target(
    pair: str, stored: torch.dtype, folder: str, targets: dict[str, Any]
) -> None:
    """Names, shapes and dtypes of all tensors, config.json; every number finite; the embedding of a head is the target's."""
    course, tensors = as_shipped(pair, folder, targets[pair])
    expected = course.module.to(stored).state_dict()
    assert {name: (t.shape, t.dtype) for name, t in tensors.items()} == {name: (t.shape, t.dtype) for name, t in expected.items()}
    assert all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())
    told = json.loads((PAIRS / pair / folder / "config.json").read_text())
    assert told | {name: value for name, value in course.config().items() if "version" not in name and name != "dtype"} == told
    if folder in ("draft", "eagle3"):
        assert torch.equal(tensors["embed_tokens.weight"].float(), targets[pair].get_input_embeddings().weight)


@pytest.mark.parametrize("pair", ["dice8", "stdlib"])
def test_an_eagle3_head_translates_into_tokens_of_the_target(pair: str, targets: dict[str, Any]) -> None:
    """Its token i is i + d2t[i]; t2d marks those tokens; it reads layers that the target has."""
    tensors = load_file(PAIRS / pair / "eagle3" / "model.safetensors")
    config = json.loads((PAIRS / pair / "eagle3" / "config.json").read_text())
    kept = torch.arange(config["draft_vocab_size"]) + tensors["d2t"]
    assert torch.equal(kept, tensors["t2d"].nonzero().flatten())
    layers = config["eagle_config"]["eagle_aux_hidden_state_layer_ids"]
    assert all(0 < layer < targets[pair].config.num_hidden_layers for layer in layers)


@pytest.mark.parametrize("pair", ["coin4", "coin6", "dice8", "stdlib"])
def test_a_small_model_is_an_ordinary_checkpoint(pair: str) -> None:
    """transformers finds every tensor and no other; vocabulary, ends and tokenizer are the target's."""
    small, found = AutoModelForCausalLM.from_pretrained(PAIRS / pair / "small", output_loading_info=True)
    assert not any(found.values())
    target = json.loads((PAIRS / pair / "target" / "config.json").read_text())
    for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings"):
        assert getattr(small.config, name) == target[name]
    for path in (PAIRS / pair / "target").glob("tokenizer*"):
        assert (PAIRS / pair / "small" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_drafter_of_dice8_is_worth_what_its_record_says(folder: str, targets: dict[str, Any]) -> None:
    """Tokens per target pass, recomputed from the weights on disk; and between useless and perfect, as a toy should be."""
    course, tensors = as_shipped("dice8", folder, targets["dice8"])
    course.module.load_state_dict(tensors)
    facts = json.loads((PAIRS / "dice8" / folder / "training.json").read_text())
    greedy = compute(targets["dice8"], dice.texts(targets["dice8"], 64, 0.0, quiet), quiet(""), course.layers)
    assert chain(course, greedy, facts["recipe"]["prompt"])["tau"] == pytest.approx(facts["chain"]["tau"], abs=0.02)
    assert 0.5 < facts["agreement"][0]["overlap"] < 0.9


@pytest.fixture(scope="module")
def greedy(targets: dict[str, Any]) -> Features:
    """What the stdlib target makes of the beginnings of eight prompts, at temperature 0."""
    lines = (FIXTURES / "prompts" / "code.jsonl").read_text().splitlines()[::4]
    windows = torch.tensor([[*json.loads(line)["text"].encode()[:64], *[0] * 65] for line in lines])
    return compute(
        targets["stdlib"],
        continued(targets["stdlib"], windows, 64, 0.0, 0, quiet("")),
        quiet(""),
        aux_layers(targets["stdlib"]),
    )


@pytest.mark.parametrize(("folder", "tau"), [("draft", 2.5), ("eagle3", 2.0), ("medusa", 1.4), ("small", 2.0)])
def test_a_drafter_of_stdlib_pays(folder: str, tau: float, targets: dict[str, Any], greedy: Features) -> None:
    """Tokens per target pass with chains of three, on prompts that no drafter was trained on; Medusa, which sees least, is held
    to least."""
    course, tensors = as_shipped("stdlib", folder, targets["stdlib"])
    course.module.load_state_dict(tensors)
    assert chain(course, greedy, 64)["tau"] >= tau


def test_the_card_and_the_checksums_of_stdlib_are_of_these_files(tmp_path: Path) -> None:
    shutil.copytree(PAIRS / "stdlib", tmp_path / "stdlib")
    write_card(tmp_path / "stdlib")
    write_checksums(tmp_path / "stdlib")
    for name in ("README.md", "SHA256SUMS"):
        assert (tmp_path / "stdlib" / name).read_text() == (PAIRS / "stdlib" / name).read_text()


@pytest.mark.parametrize("toy", coin.COINS, ids=lambda toy: toy.name)
def test_a_coin_is_made_again(toy: coin.Coin, tmp_path: Path) -> None:
    coin.make(toy, tmp_path)
    make_small(tmp_path / toy.name)
    make_medusa(tmp_path / toy.name)
    for folder in ("target", "draft", "small", "medusa"):
        new, old = (load_file(place / toy.name / folder / "model.safetensors") for place in (tmp_path, PAIRS))
        assert new.keys() == old.keys()
        assert all(torch.allclose(new[name], old[name], rtol=1e-12, atol=0) for name in old)


# --- trainings -------------------------------------------------------------------------------------------------------

RECIPE: dict[str, Any] = {"hidden": 32, "layers": 1, "steps": 30, "batch": 8, "unroll": 3, "warmup": 3, "vocab": 5}


@pytest.fixture(scope="module")
def scene(targets: dict[str, Any]) -> tuple[Any, Features]:
    """A tiny target, and some of its own texts."""
    target = targets["dice8"]
    return target, compute(target, dice.texts(target, 32, 1.0, quiet)[:, :33], quiet(""), aux_layers(target))


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_steps_of_training_teach_a_drafter(kind: str, scene: tuple[Any, Features]) -> None:
    """On the windows it learns from, the loss falls and the overlap with the target's law rises."""
    target, data = scene
    course = KINDS[kind](target, HeadRecipe(kind=kind, **RECIPE), data.tokens)
    before, losses = agreement(course, data, k=2), []
    train(course, data, lambda _done, _total, loss: losses.append(loss))
    after = agreement(course, data, k=2)
    assert losses[-1] < 0.9 * losses[0]
    assert after[0]["overlap"] > before[0]["overlap"] + 0.05


def test_an_eagle3_draft_reads_the_text_and_its_own_ancestors(scene: tuple[Any, Features]) -> None:
    """Guesses of the unrolled passes are those of a draft that starts anew for every token, without a cache."""
    target, data = scene
    course = KINDS["eagle3"](target, HeadRecipe(kind="eagle3", **RECIPE), data.tokens)
    part: Any = data.rows(slice(0, 2), course.device)
    starts, head, fused = torch.tensor([4, 11]), course.module, course.given(part)  # type: ignore[attr-defined]
    guesses = course.guesses(part, starts, 3)
    for column, start in enumerate(starts.tolist()):
        states = fused[:, : start + 1]
        for guess in guesses:
            n = states.shape[1]
            out = head(part.tokens[:, 1 : n + 1], states, torch.arange(n))
            alone = course.logits(out[:, -1])  # type: ignore[attr-defined]
            assert torch.allclose(guess[:, column], alone, atol=1e-5)
            states = torch.cat([states, out[:, -1:]], dim=1)


def test_a_drafter_that_is_the_target_agrees_with_it(scene: tuple[Any, Features]) -> None:
    """Up to the half precision that features are kept in."""
    target, data = scene
    course = KINDS["small"](target, HeadRecipe(kind="small", **RECIPE), data.tokens)
    course.module = target
    (row,) = agreement(course, data, k=2)
    assert row["overlap"] == pytest.approx(1, abs=2e-3)
    assert row["first"] > 0.98


@pytest.mark.parametrize(("right", "tau"), [("000", 1), ("011", 1), ("101", 2), ("110", 3), ("111", 4)])
def test_tau_of_a_chain_counts_what_a_decoder_would(right: str, tau: int, scene: tuple[Any, Features]) -> None:
    """Guesses are accepted up to the first one that is not the text's own token; one token comes on top."""
    target, data = scene
    course = KINDS["small"](target, HeadRecipe(kind="small", **RECIPE), data.tokens)

    def guesses(part: Features, starts: Tensor, n: int) -> list[Tensor]:
        named = [(part.tokens[:, starts + 2 + j] + (right[j] == "0")) % dice.SIDES for j in range(n)]
        return [torch.nn.functional.one_hot(tokens, dice.SIDES).float() for tokens in named]

    course.guesses = guesses  # type: ignore[assignment, method-assign]
    assert chain(course, data, prompt=5) == {"depth": 3, "tau": tau}


# --- converters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_the_published_layout_holds_the_same_head(shards: int, tmp_path: Path) -> None:
    write_published(PAIRS / "dice8" / "draft", tmp_path / "head", shards)
    index = json.loads((tmp_path / "head" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {path.name for path in (tmp_path / "head").glob("*.safetensors")}
    assert len(set(index["weight_map"].values())) == shards
    old, new = (load_head(folder).state_dict() for folder in (PAIRS / "dice8" / "draft", tmp_path / "head"))
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_the_published_layout_holds_the_same_target(targets: dict[str, Any], tmp_path: Path) -> None:
    """Published twice, the second time from shards: nothing is lost."""
    write_published(PAIRS / "dice8" / "target", tmp_path / "once", 3)
    write_published(tmp_path / "once", tmp_path / "twice", 2)
    text = torch.arange(8)[None]
    assert torch.equal(load(tmp_path / "twice")(text).logits, targets["dice8"](text).logits)


def test_the_published_layout_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="not empty"):
        write_published(PAIRS / "dice8" / "draft", tmp_path)
    assert hashlib.sha256((tmp_path / "mine.txt").read_bytes()).digest() == hashlib.sha256(b"mine").digest()
