"""`--help`, and the commands that the documentation names."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from harness.cli import app
from harness.pairs import FIXTURES

ROOT = FIXTURES.parent
COMMANDS: list[str] = [*getattr(get_command(app), "commands", {})]


def test_help_imports_no_torch() -> None:
    program = "import sys; from harness.cli import main; sys.argv = ['eagle2', '--help']\n"
    program += "try: main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("False")
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "train"])
def test_help_ends_with_an_example_of_the_command(command: str) -> None:
    lines = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).output.splitlines()
    assert all(len(line) <= 80 for line in lines)
    after_options = "\n".join(lines[max(i for i, line in enumerate(lines) if line.startswith("╰")) :])
    assert f"eagle2 {command}" in after_options


def test_commands_in_the_readme_exist() -> None:
    lines = [line.split() for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("eagle2 ")]
    assert lines and {words[1] for words in lines} <= set(COMMANDS)
    assert json.loads((ROOT / "reports" / "reference" / "badge.json").read_text())["schemaVersion"] == 1
