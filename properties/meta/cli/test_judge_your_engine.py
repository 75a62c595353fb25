"""docs/judge-your-engine.md, followed word for word: its files are written, its commands run and print what it shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from harness.implementations.protocol import REPLY, Request
from harness.pairs import FIXTURES
from harness.report.sentences import DECLARED
from properties.meta.helpers.command import eagle2

GUIDE = FIXTURES.parent / "docs" / "judge-your-engine.md"
BLOCK = re.compile(r"(?:<!-- (?P<note>[^\n]+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)
BY_HAND = "by hand"
"""The note above a block that needs minutes, a network or another machine."""


@dataclass(frozen=True)
class Command:
    """A line after a `$`, the exit code of its comment, and the lines shown under it, in which … stands for any text."""

    words: tuple[str, ...]
    code: int
    shown: tuple[str, ...]

    def check(self, folder: Path) -> None:
        assert self.words[0] == "eagle2", f"{self.words} cannot be run here: write `{BY_HAND}` above it"
        done = eagle2(list(self.words[1:]), folder, timeout=600)
        printed, place = " ".join(done.stdout.split()), 0
        assert done.returncode == self.code, f"{self.words} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        for piece in (" ".join(piece.split()) for line in self.shown for piece in line.split("…")):
            assert piece in printed[place:], f"{self.words} does not print {piece!r} there\n{done.stdout}{done.stderr}"
            place = printed.index(piece, place) + len(piece)


def blocks(kind: str = "") -> Iterator[tuple[str, str]]:
    """The note above each block of a kind, and its text."""
    for found in BLOCK.finditer(GUIDE.read_text(encoding="utf-8")):
        if kind in ("", found["kind"]):
            yield found["note"] or "", found["text"]


def commands(text: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, *shown = part.splitlines()
        code = re.search(r"# exit code (\d)$", line)
        yield Command(tuple(shlex.split(line, comments=True)), int(code[1]) if code else 0, tuple(shown))


def replace_line(program: str, start: str, text: str) -> str:
    """Replace the line of a program that begins with `start`, and indent the new text like it."""
    [old] = [line for line in program.splitlines(keepends=True) if line.lstrip().startswith(start)]
    indent = old[: len(old) - len(old.lstrip())]
    return program.replace(old, "".join(indent + line for line in text.splitlines(keepends=True)))


def test_commands_of_the_guide_print_what_it_shows(tmp_path: Path) -> None:
    run = 0
    engine = tmp_path / "my_engine.py"
    for note, text in blocks():
        action, _, what = note.partition(": ")
        if action == "file":
            (tmp_path / what).write_text(text)
        elif action == "instead of":
            engine.write_text(replace_line(engine.read_text(), what, text))
        elif note != BY_HAND:
            for command in commands(text):
                command.check(tmp_path)
                run += 1
    assert run >= 7


def test_blocks_without_commands_are_not_by_hand() -> None:
    shown = [(note, text) for note, text in blocks("console")]
    assert len([note for note, _ in shown if note == BY_HAND]) < len(shown) and all(list(commands(text)) for _, text in shown)


def test_json_lines_of_the_guide_fit_the_protocol() -> None:
    """Requests and replies take turns."""
    [(_, text)] = blocks("jsonl")
    lines = text.splitlines()
    requests = [TypeAdapter(Request).validate_json(line).do for line in lines[::2]]
    replies = [type(REPLY.validate_json(line)).__name__ for line in lines[1::2]]
    assert list(zip(requests, replies, strict=True)) == [
        ("describe", "Description"),
        ("open", "OpenReply"),
        ("generate", "GenerateReply"),
    ]


def test_capabilities_of_the_guide_are_those_that_reports_suggest() -> None:
    table = GUIDE.read_text(encoding="utf-8").partition("| capability | meaning |")[2].partition("\n\n")[0]
    listed = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(listed) == sorted([*DECLARED, "temperature"])
