"""docs/read-the-decoder.md is true: every file, symbol and line that it names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.pairs import FIXTURES

ROOT = FIXTURES.parent
PAGE = ROOT / "docs" / "read-the-decoder.md"
ROW = re.compile(
    r"^\| (?P<paper>.+?) \| .+? \| \[.+?\]\(\.\./(?P<file>.+?\.py)\) \| `(?P<symbol>.+?)` \| `(?P<line>.+)` \|$", re.MULTILINE
)
SECTIONS = [
    "section 2",
    "section 4.1",
    "section 4.2",
    "section 5",
    "EAGLE, section 3.1",
    "EAGLE, section 3.2",
    "EAGLE, section 3.3",
]


def rows(text: str) -> Iterator[tuple[str, str, str, str]]:
    """Paper section, file, symbol and line of each row."""
    for row in ROW.finditer(text):
        yield row["paper"], row["file"], row["symbol"], row["line"].replace("\\|", "|")


def source_of(symbol: str, file: Path) -> str:
    """Source of a class, function, method or module variable, such as `Tree.ancestors`.

    Raises:
        LookupError: the file has no such symbol.
    """
    text = file.read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for name in symbol.split("."):
        node = next((child for child in ast.iter_child_nodes(node) if name in names(child)), ast.Pass())
    source = None if isinstance(node, ast.Pass) else ast.get_source_segment(text, node)
    if source is None:
        raise LookupError(f"{file.name} has no {symbol}")
    return source


def names(node: ast.AST) -> list[str]:
    """What a statement defines."""
    match node:
        case ast.ClassDef() | ast.FunctionDef():
            return [node.name]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.Assign():
            return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def problems(text: str, root: Path) -> list[str]:
    """Rows of a page that are not true of the code under `root`."""
    found = []
    for _, file, symbol, line in rows(text):
        try:
            source = source_of(symbol, root / file)
        except (LookupError, FileNotFoundError) as error:
            found.append(str(error))
            continue
        if " ".join(line.split()) not in " ".join(source.split()):
            found.append(f"{file}: {symbol} has no line `{line}`")
    return found


def test_page_names_existing_files_symbols_and_lines() -> None:
    assert problems(PAGE.read_text(encoding="utf-8"), ROOT) == []


def test_page_covers_the_sections_of_the_papers() -> None:
    text = PAGE.read_text(encoding="utf-8")
    papers = [paper for paper, *_ in rows(text)]
    assert len(papers) == len(re.findall(r"\.py\) \| `", text)) >= 30, "a row has another form"
    assert {section for section in SECTIONS if not any(paper.startswith(section) for paper in papers)} == set()


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("[tree.py](../eagle2_ref/tree.py) | `Tree.ancestors` | `mask[node] \\|= mask[child]`", "has no line"),
        ("[tree.py](../eagle2_ref/tree.py) | `Tree.descendants` | `mask`", "has no Tree.descendants"),
        ("[trees.py](../eagle2_ref/trees.py) | `Tree` | `parents: Tensor`", "No such file"),
    ],
)
def test_wrong_rows_are_found(row: str, problem: str) -> None:
    [found] = problems(f"| section 2 | an idea | {row} |\n", ROOT)
    assert problem in found
