"""The registry: what each method needs, which rules can judge it, and how it becomes an implementation."""

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
        ("ref:drafter=lookup,ngram=0", "ngram is 0\n  ngram must be a whole number of 1 or more"),
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
    """Options that a method does not have are refused before anything is loaded."""
    done = CliRunner().invoke(app, ["generate", "def f():", "--drafter", "lookup", "--max-new-tokens", "6", "--depth", "2"])
    assert done.exit_code == 0 and ", 0 passes of" in done.output, done.output
    done = CliRunner().invoke(app, ["generate", "x", "--drafter", "lookup", "--k", "3"])
    assert done.exit_code == 2 and "prompt lookup has no option k" in done.output


def test_a_decoder_loads_any_method() -> None:
    """EAGLE-2 by default; ordinary decoding without a draft."""
    pair = shipped("dice8")
    assert type(Decoder.load(pair.target, pair.draft).drafter).__name__ == "Eagle2"
    assert type(Decoder.load(pair.target, pair.draft, METHODS["lookup"].make()).drafter).__name__ == "LookupDrafter"
    assert Decoder.load(pair.target, None, METHODS["lookup"].make()).drafter is None
