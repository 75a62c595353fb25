"""The family by name: what a method takes, which rules may judge it, and how each becomes an implementation."""

from __future__ import annotations

import inspect

import pytest
from typer.testing import CliRunner

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import LOSSY, METHODS, method
from eagle2_ref.model.target import Target
from eagle2_ref.rules import RULES
from eagle2_ref.tree import DraftTree, SampledTree
from harness.cli import app
from harness.implementations import connect
from harness.implementations.reference import Engine, engine
from harness.pairs import shipped


@pytest.mark.parametrize("name", METHODS)
def test_every_method_makes_its_drafter(name: str) -> None:
    """On a shipped pair that has what it drafts with; its trees are of the kind that its own rule takes."""
    pair, family = shipped("dice8"), method(name)
    draft = pair.drafter(family.checkpoint)
    assert draft is not None
    drafter = family.make().drafter(Target.load(pair.target), draft)
    assert isinstance(drafter, Drafter)
    assert drafter.tree_type is (DraftTree if family.deterministic else SampledTree)
    assert set(RULES) <= set(family.rules), "the rules of any tree are its rules too"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_an_implementation(name: str) -> None:
    """Its options are its own and those that all have; what it can do depends on how its trees come about."""
    told, family = connect(f"ref:drafter={name}"), METHODS[name]
    assert set(told.parameters or ()) == {*inspect.signature(family.make).parameters, "rule", "dtype", "device", "batch"}
    assert (told.method, told.checkpoint, told.lossy) == (name, family.checkpoint, "")
    assert ("deterministic" in told.capabilities) == ("rules" in told.capabilities) == family.deterministic
    assert ("sampled" in told.capabilities) == (not family.deterministic)


def test_eagle2_is_the_reference_as_it_was() -> None:
    assert engine("eagle2") is Engine
    assert connect("ref").capabilities == connect("ref:drafter=eagle2").capabilities


def test_a_lossy_rule_is_told() -> None:
    """And the lossless ones are no longer offered in its stead."""
    told = connect("ref:drafter=lookup,rule=typical")
    assert told.lossy == LOSSY["typical"] and not {"rules", "accept"} & told.capabilities


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("ref:drafter=lookp", "drafter 'lookp' is not known\n  did you mean lookup?"),
        ("ref:drafter=lookup,k=3", "there is no option 'k'"),
        ("ref:drafter=lookup,ngram=0", "ngram is 0\n  ngram must be a whole number of 1 or more"),
        (
            "ref:drafter=lookup,rule=sampled",
            "rule 'sampled' is not known to prompt lookup\n  its rules are reject",
        ),
    ],
)
def test_what_a_method_does_not_take(asked: str, told: str) -> None:
    with pytest.raises(BadInput) as error:
        connect(asked).check(shipped("coin4"), "float32", "cpu")
    assert told in str(error.value)


def test_generate_drafts_by_any_method() -> None:
    """On the terminal; what a method does not take is told before anything is loaded."""
    done = CliRunner().invoke(app, ["generate", "def f():", "--drafter", "lookup", "--max-new-tokens", "6", "--depth", "2"])
    assert done.exit_code == 0 and ", 0 passes of" in done.output, done.output
    done = CliRunner().invoke(app, ["generate", "x", "--drafter", "lookup", "--k", "3"])
    assert done.exit_code == 2 and "prompt lookup has no option k" in done.output


def test_a_method_loads_with_the_decoder() -> None:
    """Without one it is EAGLE-2; without a draft it is the control arm, whatever the method."""
    pair = shipped("dice8")
    assert type(Decoder.load(pair.target, pair.draft).drafter).__name__ == "Eagle2"
    assert type(Decoder.load(pair.target, pair.draft, METHODS["lookup"].make()).drafter).__name__ == "LookupDrafter"
    assert Decoder.load(pair.target, None, METHODS["lookup"].make()).drafter is None
