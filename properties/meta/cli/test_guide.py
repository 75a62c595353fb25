"""docs/judge-your-engine.md, followed word for word: its files are written, its commands are run, and print what it shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from harness.implementations.protocol import REPLY, Request
from harness.pairs import FIXTURES
from properties.meta.helpers.command import eagle2

GUIDE = FIXTURES.parent / "docs" / "judge-your-engine.md"
BLOCK = re.compile(r"(?:<!-- (?P<note>[^\n]+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)
BY_HAND = "by hand"
"""What a block says above it that takes minutes, a network or another machine."""


@dataclass(frozen=True)
class Command:
    """A line behind a `$`, the exit code that its comment tells, and the lines shown under it; … stands for anything."""

    words: tuple[str, ...]
    code: int
    shown: tuple[str, ...]

    def check(self, folder: Path) -> None:
        assert self.words[0] == "eagle2", f"{self.words} cannot be run here: say `{BY_HAND}` above it"
        done = eagle2(list(self.words[1:]), folder, timeout=600)
        said, place = " ".join(done.stdout.split()), 0
        assert done.returncode == self.code, f"{self.words} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        for piece in (" ".join(piece.split()) for line in self.shown for piece in line.split("…")):
            assert piece in said[place:], f"{self.words} does not print {piece!r} there\n{done.stdout}{done.stderr}"
            place = said.index(piece, place) + len(piece)


def blocks(kind: str = "") -> Iterator[tuple[str, str]]:
    """What stands above a block, and its text."""
    for found in BLOCK.finditer(GUIDE.read_text(encoding="utf-8")):
        if kind in ("", found["kind"]):
            yield found["note"] or "", found["text"]


def commands(text: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, *shown = part.splitlines()
        code = re.search(r"# exit code (\d)$", line)
        yield Command(tuple(shlex.split(line, comments=True)), int(code[1]) if code else 0, tuple(shown))


def put(text: str, instead_of: str, into: str) -> str:
    """A program in which one line, found by how it begins, is another text of the same indentation."""
    [old] = [line for line in into.splitlines(keepends=True) if line.lstrip().startswith(instead_of)]
    indent = old[: len(old) - len(old.lstrip())]
    return into.replace(old, "".join(indent + line for line in text.splitlines(keepends=True)))


def test_the_guide_word_for_word(tmp_path: Path) -> None:
    run = 0
    engine = tmp_path / "my_engine.py"
    for note, text in blocks():
        about, _, what = note.partition(": ")
        if about == "file":
            (tmp_path / what).write_text(text)
        elif about == "instead of":
            engine.write_text(put(text, what, engine.read_text()))
        elif note != BY_HAND:
            for command in commands(text):
                command.check(tmp_path)
                run += 1
    assert run >= 7


def test_what_is_done_by_hand_is_an_exception() -> None:
    shown = [(note, text) for note, text in blocks("console")]
    assert len([note for note, _ in shown if note == BY_HAND]) < len(shown) and all(list(commands(text)) for _, text in shown)


def test_the_lines_of_json_are_the_protocols() -> None:
    """A request, its reply, and so on."""
    [(_, text)] = blocks("jsonl")
    requests, replies = text.splitlines()[::2], text.splitlines()[1::2]
    asked = [TypeAdapter(Request).validate_json(line).do for line in requests]
    told = [type(REPLY.validate_json(line)).__name__ for line in replies]
    due = [("describe", "Description"), ("open", "OpenReply"), ("generate", "GenerateReply")]
    assert list(zip(asked, told, strict=True)) == due
