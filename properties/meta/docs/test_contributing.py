"""The examples of docs/contributing work as they are printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from harness import mutants
from harness.context import Context, run_check
from harness.pairs import FIXTURES
from harness.settings import Settings
from properties.meta.helpers.command import eagle2

GUIDES = FIXTURES.parent / "docs" / "contributing"
EXAMPLE = re.compile(r"<!-- (?:example|file: (?P<file>\S+)) -->\n```python\n(?P<code>.*?)```", re.DOTALL)


def example(guide: str) -> re.Match[str]:
    """The example of a guide."""
    [found] = EXAMPLE.finditer((GUIDES / guide).read_text(encoding="utf-8"))
    assert len(found["code"].splitlines()) <= 30, "an example is short"
    return found


def run(guide: str) -> dict[str, Any]:
    """Execute the example of a guide, and return what it defines."""
    defined: dict[str, Any] = {"__name__": "example"}
    exec(compile(example(guide)["code"], guide, "exec"), defined)  # noqa: S102  it is our own documentation
    return defined


def test_example_of_a_property_passes_for_the_reference() -> None:
    result = run_check(
        run("add-a-property.md")["emits_one_token"], "", Context.open_run(Settings("ref:k=2,depth=2,m=4", pair="coin4"))
    )
    assert (result.property, result.verdict) == ("STOP-9", "pass"), result.summary
    assert result.work is not None and result.work.value == 3


def test_example_of_an_adapter_passes_smoke(tmp_path: Path) -> None:
    found = example("add-an-adapter.md")
    (tmp_path / found["file"]).write_text(found["code"], encoding="utf-8")
    done = eagle2(["smoke", "py:my_engine:Engine", "--pair", "coin4"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_guide_names_the_parts_of_the_gallery() -> None:
    text = (GUIDES / "add-a-mutant.md").read_text(encoding="utf-8")
    table = text.partition("| `part` | what is wrong | file |")[2].partition("\n\n")[0]
    named = {part: row for row in table.splitlines()[2:] for part in re.findall(r"`([a-z ]+)`", row.split(" | ")[0])}
    assert named.keys() == {each.part for each in mutants.GALLERY.values()}
    for part, row in named.items():
        files = [GUIDES / file for file in re.findall(r"\]\((.+?)\)", row)]
        assert files and any(f'part="{part}"' in file.read_text(encoding="utf-8") for file in files), part


def test_example_of_a_mutant_is_killed(tmp_path: Path) -> None:
    """In a process of its own, so that the gallery of this process does not get another mutant."""
    found = example("add-a-mutant.md")
    (tmp_path / found["file"]).write_text(found["code"], encoding="utf-8")
    case = "LAW-1[coin4, T=1.0 top_k=2, reject, k=2 depth=3 m=7]"
    done = eagle2(["verify", "py:my_mutant:TopKIgnored", "--only", case, "-n", "0"], tmp_path)
    assert done.returncode == 1 and "total variation" in " ".join(done.stdout.split()), done.stdout + done.stderr
