"""The documentation site builds without a warning, and what it says about the repository is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import eagle2_ref
from harness.benchmark.arms import SPECULATIVE, TUNED, VANILLA
from harness.benchmark.figures import ALL, figures_of, method_figures_of
from harness.benchmark.record import read_bench, read_comparison
from harness.catalogue import catalogue
from harness.pairs import FIXTURES

ROOT = FIXTURES.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
PUBLIC_PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(DOCS.rglob("*.md")),
    ROOT / "reports" / "README.md",
    ROOT / "eagle2_ref" / "README.md",
    *sorted((ROOT / "reports" / "findings").glob("*.md")),
]


def build(docs: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "--fail-on-warning",
        "--keep-going",
        "--quiet",
        "--builder",
        "html",
        str(docs),
        str(out),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_site_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("furo")
    done = build(DOCS, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    assert {page for page in pages if not (tmp_path / page).is_file()} == set()
    assert 'id="term-law"' in (tmp_path / "glossary.html").read_text(encoding="utf-8")
    api = (tmp_path / "api.html").read_text(encoding="utf-8")
    exported: list[str] = vars(eagle2_ref)["__all__"]
    assert {name for name in exported if name[0] != "_" and f'id="eagle2_ref.{name}"' not in api} == set()
    assert "<svg" in next((tmp_path / "_images").glob("imports*.svg")).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PUBLIC_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_public_pages_lead_somewhere(page: Path) -> None:
    links = {link for link in LINK.findall(page.read_text(encoding="utf-8")) if not link.startswith(("http", "mailto:"))}
    assert {link for link in links if not (page.parent / link).exists()} == set()


def test_evidence_page_lists_every_property() -> None:
    rows = re.findall(r"^\| ([A-Z]+-\d+) \|", (DOCS / "evidence.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(each.id for each in catalogue().values())


def test_glossary_is_alphabetical_and_defines_each_term_once() -> None:
    terms = re.findall(r"^([^\n:{][^\n]*)\n: ", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(terms) > 40 and terms == sorted(set(terms), key=str.casefold)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1200


def test_readme_shows_figures_of_the_records() -> None:
    """τ and speed of EAGLE-2 with its default budget and a tuned one, on both pairs, with those of the committed records."""
    methods = method_figures_of(read_comparison(ROOT / "reports" / "smollm2" / "compare", whole=True))
    speed = figures_of(read_bench(ROOT / "reports" / "bench", whole=True))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for t, pairs in (
        (0.0, ("`smollm2`, bfloat16, two threads", "`stdlib`, float32, one thread, version 0.1.0")),
        (1.0, ("", "")),
    ):
        arms = {row.arm: row for row in methods if row.prompts == ALL and row.temperature == t}
        chat = [(arms[name].tau, arms[name].speed) for name in ("eagle2", "eagle2:draft_vocab=8192, tuned")]
        tau = {row.arm: row.tau for row in speed.arms if row.temperature == t}
        ratio = {row.arm: row.median for row in speed.ratios if row.over == VANILLA and row.temperature == t}
        small = [(tau[name], ratio[name]) for name in (SPECULATIVE, TUNED)]
        for pair, found in ((pairs[0], chat), (pairs[1], small)):
            cells = " | ".join(f"{a:.2f} | {b:.2f}" for a, b in found)
            assert f"| {pair} | {t:g} | {cells} |".replace("|  |", "| |") in text


@pytest.mark.parametrize("page", ["README.md", "docs/engines.md"])
def test_pages_state_how_many_methods_were_judged(page: str) -> None:
    """README and the page of the engines count the records of reports/engines."""
    index = (ROOT / "reports" / "engines" / "index.md").read_text(encoding="utf-8")
    records = [path.parent for path in (ROOT / "reports" / "engines").glob("*/*/record.jsonl")]
    reference = [each for each in records if each.parent.name.startswith("eagle2_ref-")]
    bfloat16 = [each for each in records if each.name.endswith("-bfloat16")]
    faults, rows = map(int, re.findall(r"(\d+) of (\d+) methods", index)[0])
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    float32 = len(records) - len(reference) - len(bfloat16)
    assert rows == len(records) and f"{rows} rows" in text and f"{faults} rows have a fault" in text
    assert f"{float32} methods of five engines in float32, {len(bfloat16)} of them also in bfloat16" in text
    assert f"{len(reference)} methods of the reference" in text


def test_list_of_findings_has_every_title() -> None:
    """README.md of the findings repeats the title of every page, with a capital where the version is left out."""
    folder = ROOT / "reports" / "findings"
    rows = dict(
        re.findall(
            r"^\| \[\d+\]\((.+?)\) \| [\w ]+ \| (.+) \|$", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    titles = {page.name: page.read_text(encoding="utf-8").partition("\n")[0] for page in folder.glob("[0-9]*.md")}
    assert rows.keys() == titles.keys()
    assert {name for name, title in titles.items() if not title.lower().endswith(rows[name].lower())} == set()


def test_scripts_of_findings_are_short() -> None:
    scripts = {page.with_suffix(".py") for page in (ROOT / "reports" / "findings").glob("[0-9]*.md")}
    assert {script.name for script in scripts if len(script.read_text(encoding="utf-8").splitlines()) > 40} == set()
