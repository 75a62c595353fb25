"""One property said of one implementation, be it a class in a test: what scene.py does for connectables, with nothing reduced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.implementations import Implementation
from harness.pairs import Pair, Prompt, shipped
from harness.pytest_plugin import Judge
from harness.record.model import Result
from harness.settings import Settings
from properties.meta.helpers.mutant_stage import Heard, _hear, _property
from properties.subject import Subject


def heard(
    name: str,
    implementation: Implementation,
    pair: Pair | None = None,
    texts: list[Prompt] | None = None,
    asked: Settings | None = None,
    **given: Any,
) -> Result:
    """The result a property comes to; `given` is what pytest would parametrize it with."""
    told, function = _property(name)
    asked = asked or Settings()
    subject = Subject.of(asked, implementation, pair or shipped("coin4"))
    try:
        function(judge=Judge(told, "", asked, _hear), subject=replace(subject, texts=texts or subject.texts), **given)
    except Heard as said:
        return said.result
    raise AssertionError(f"{name} came to no verdict")
