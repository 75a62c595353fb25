"""The registry: what each method needs, which rules can judge it, and how it becomes an implementation."""

from __future__ import annotations

import inspect
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import LOSSY, METHODS, method
from eagle2_ref.model.target import Target
from eagle2_ref.rules import RULES, walk
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree, SampledTree
from harness.cli import app
from harness.distributions.exact import target_law, total_variation
from harness.distributions.scoring import load_target
from harness.enumeration.emitted_law import emitted_law
from harness.implementations import connect
from harness.implementations.reference import Engine, engine
from harness.pairs import shipped
from properties.test_law import ROUNDING


@pytest.mark.parametrize("name", METHODS)
def test_every_method_creates_its_drafter(name: str) -> None:
    """Its trees are of the kind that its default rule takes."""
    pair, family = shipped("dice8"), method(name)
    draft = pair.drafter(family.checkpoint)
    assert draft is not None
    drafter = family.make().drafter(Target.load(pair.target), draft)
    assert isinstance(drafter, Drafter)
    assert drafter.tree_type is (DraftTree if family.deterministic else SampledTree)
    assert set(RULES) <= set(family.rules), "the rules of any tree are its rules too"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_an_implementation(name: str) -> None:
    """Its options are its own and the common ones; capabilities depend on the kind of trees."""
    implementation, family = connect(f"ref:drafter={name}"), METHODS[name]
    assert set(implementation.parameters or ()) == {
        *inspect.signature(family.make).parameters,
        "rule",
        "dtype",
        "device",
        "batch",
    }
    assert (implementation.method, implementation.checkpoint, implementation.lossy) == (name, family.checkpoint, "")
    assert ("deterministic" in implementation.capabilities) == ("rules" in implementation.capabilities) == family.deterministic
    assert ("sampled" in implementation.capabilities) == (not family.deterministic)


def test_eagle2_is_the_default_implementation() -> None:
    assert engine("eagle2") is Engine
    assert connect("ref").capabilities == connect("ref:drafter=eagle2").capabilities


def test_a_lossy_rule_is_declared() -> None:
    """Lossless rules are then not offered."""
    implementation = connect("ref:drafter=lookup,rule=typical")
    assert implementation.lossy == LOSSY["typical"] and not {"rules", "accept"} & implementation.capabilities


@pytest.mark.parametrize(
    ("connectable", "expected"),
    [
        ("ref:drafter=lookp", "drafter 'lookp' is not known\n  did you mean lookup?"),
        ("ref:drafter=lookup,k=3", "there is no option 'k'"),
        (
            "ref:drafter=lookup,rule=sampled",
            "rule 'sampled' is not known to prompt lookup\n  its rules are reject",
        ),
    ],
)
def test_unknown_options_and_rules_are_refused(connectable: str, expected: str) -> None:
    with pytest.raises(BadInput) as error:
        connect(connectable).check(shipped("coin4"), "float32", "cpu")
    assert expected in str(error.value)


def test_generate_uses_any_method() -> None:
    done = CliRunner().invoke(app, ["generate", "def f():", "--drafter", "lookup", "--max-new-tokens", "6", "--depth", "2"])
    assert done.exit_code == 0 and ", 0 draft passes" in " ".join(done.output.split()), done.output


def test_a_decoder_loads_any_method() -> None:
    """EAGLE-2 by default; ordinary decoding without a draft."""
    pair = shipped("dice8")
    assert type(Decoder.load(pair.target, pair.draft).drafter).__name__ == "Eagle2"
    drafters = {"lookup": "LookupDrafter", "eagle2-confidence": "ByConfidence", "eagle2-expansion": "Expanded"}
    for name, drafter in drafters.items():
        assert type(Decoder.load(pair.target, pair.draft, METHODS[name].make()).drafter).__name__ == drafter
    assert Decoder.load(pair.target, None, METHODS["lookup"].make()).drafter is None


# --- what holds for all methods ----------------------------------------------------------------------------------------

SMALL = {"eagle2": ",k=2,depth=3,m=5", "eagle2-confidence": ",k=2,depth=3,m=5", "eagle2-expansion": ",k=2,depth=3,m=5"}
"""Options with which a method can draft for a vocabulary of four tokens."""


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", METHODS)
def test_sequences_share_no_state(name: str, temperature: float) -> None:
    """Sequences in a batch equal sequences alone, drafts included, and a repeated request has the same answer."""
    implementation = connect(f"ref:drafter={name}{SMALL.get(name, '')}")
    alone, together = (implementation.open(shipped("coin4"), batch=n, dtype="float64") for n in (1, 3))
    params = [{"temperature": temperature, "max_new_tokens": n} for n in (9, 14, 5, 11)]
    calls: Any = [[[1, 2], [3], [0, 1, 2, 3], [2, 2]], params, range(4)]
    assert together.generate(*calls) == alone.generate(*calls) == alone.generate(*calls)


WHOLE = [
    (name, field.name)
    for name, spec in METHODS.items()
    for field in fields(spec.make)  # type: ignore[arg-type]
    if type(field.default) is int and field.name != "draft_vocab"
]
"""Options of all methods that are whole numbers; 0 is only allowed for draft_vocab, see test_draft_vocabulary.py."""


@pytest.mark.parametrize(("name", "option"), WHOLE)
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_options_out_of_range_are_refused(name: str, option: str, value: Any) -> None:
    pair, spec = shipped("coin4"), METHODS[name]
    with pytest.raises(BadInput, match=f"{option} must be a whole number of . or more, not {value}"):
        spec.make(**{option: value}).drafter(Target.load(pair.target), pair.drafter(spec.checkpoint) or "")


@pytest.mark.parametrize("name", [name for name, spec in METHODS.items() if spec.checkpoint != "none" and name != "ouroboros"])
def test_nan_of_a_draft_model_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One number of each tensor: loading refuses it, and so does decoding. (Ouroboros takes the token of the largest logit.)"""
    pair, spec = shipped("dice8"), METHODS[name]
    draft = shutil.copytree(pair.drafter(spec.checkpoint) or "", tmp_path / "draft")
    tensors = load_file(draft / "model.safetensors")
    for tensor in (tensor for tensor in tensors.values() if tensor.is_floating_point()):
        tensor.view(-1)[0] = float("nan")
    save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match="has NaN"):
        Decoder.load(pair.target, draft, spec.make(), walk)
    for module in ("model.target", "drafters.checkpoint"):
        monkeypatch.setattr(f"eagle2_ref.{module}.require_finite", lambda *_: None)
    decoder = Decoder.load(pair.target, draft, spec.make(), walk)
    with pytest.raises(BadInput, match=r"(head's confidences|drafter's logits) are not numbers"):
        decoder.generate([1, 2, 3], SamplingParams(max_new_tokens=8), SeededCoins(0))


@pytest.mark.parametrize("rule", ["walk", "reject"])
@pytest.mark.parametrize(
    "options",
    [
        "lookup,ngram=2,depth=3",
        "lookahead,k=2,depth=2,window=3",
        "lookahead,k=2,depth=1,window=2",
        "lookahead,k=3,depth=2,window=4,text=false",
        "ouroboros,k=2,depth=3,phrase=1,window=2",
        "ouroboros,k=2,depth=4,phrase=2,window=3",
    ],
)
def test_the_distribution_of_n_gram_methods_is_the_targets(options: str, rule: str) -> None:
    """Over all random numbers, for texts that are long enough that guesses are accepted."""
    pair, prompt, params = shipped("coin4"), [2, 3, 2], {"temperature": 1.0, "top_k": 2, "max_new_tokens": 7}
    engine = connect(f"ref:drafter={options},rule={rule},dtype=float64").open(pair)
    emitted, _ = emitted_law(engine, prompt, params)
    expected = target_law(load_target(pair, "float64"), prompt, SamplingParams.of(params))
    assert total_variation(emitted, expected) <= ROUNDING
    assert engine.raw.counters()["accepted"] > 50
