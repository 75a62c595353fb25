"""docs/quickstart.md shows what its commands print."""

from __future__ import annotations

import re
from pathlib import Path

from harness.pairs import FIXTURES
from properties.meta.helpers.command import eagle2

PAGE = (FIXTURES.parent / "docs" / "quickstart.md").read_text(encoding="utf-8")


def test_draft_tree_is_the_one_that_the_command_draws(tmp_path: Path) -> None:
    [shown] = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    [words] = re.findall(r'^\$ eagle2 generate "(.*?)" (.* --show-tree)$', PAGE, re.MULTILINE)
    done = eagle2(["generate", words[0], *words[1].split()], tmp_path)
    assert done.returncode == 0 and shown in done.stdout, done.stdout + done.stderr


def test_replayed_id_is_the_first_fault_that_verify_prints(tmp_path: Path) -> None:
    [mutant] = re.findall(r"^\$ eagle2 verify (mutant:\w+) ", PAGE, re.MULTILINE)
    [id] = re.findall(r"^\$ eagle2 replay (\S+) ", PAGE, re.MULTILINE)  # noqa: A001
    found = eagle2(["verify", mutant, "--only", id.partition(".")[0], "-n", "0"], tmp_path)
    assert found.returncode == 1 and f"eagle2 replay {id}" in found.stdout.split("\n"), found.stdout + found.stderr
    assert eagle2(["replay", id], tmp_path).returncode == 1
