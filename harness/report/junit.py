"""junit.xml: one testcase for each case of a property, for tools that collect test results."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from harness.record.model import Record, Result, Verdict
from harness.report.cases import Case, cases, catalogue
from harness.report.sentences import excuse_sentence, witness_sentence
from harness.report.text import number, printable

ELEMENTS: dict[Verdict, str] = {
    "fault": "failure",
    "inconclusive": "error",
    "blocked": "error",
    "n/a": "skipped",
    "known": "skipped",
}
"""Element of a testcase by verdict. A missing answer is an error, never a pass; a tie passes."""


def junit(record: Record) -> str:
    """The record as JUnit XML."""
    chapters = {one.id: one.chapter for one in catalogue(record)}
    elements = [ELEMENTS.get(result.verdict) for result in record.results]
    totals = {
        "name": f"eagle2 verify {_text(record.header.implementation)}",
        "tests": str(len(elements)),
        "failures": str(elements.count("failure")),
        "errors": str(elements.count("error")),
        "skipped": str(elements.count("skipped")),
        "time": f"{record.footer.seconds:.3f}",
        "timestamp": _text(record.header.started),
    }
    root = ET.Element("testsuites", {key: totals[key] for key in totals if key not in ("timestamp", "skipped")})
    suite = ET.SubElement(root, "testsuite", totals)
    for case in cases(record):
        _testcase(suite, case, chapters[case.result.property])
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _testcase(suite: ET.Element, case: Case, chapter: str) -> None:
    result = case.result
    name = _text(f"{result.property} [{result.case}]" if result.case else result.property)
    element = ET.SubElement(suite, "testcase", {"classname": _text(chapter), "name": name, "time": f"{result.seconds:.3f}"})
    if result.verdict in ELEMENTS:
        outcome = ET.SubElement(element, ELEMENTS[result.verdict], {"message": _text(_message(result))})
        if result.verdict != "n/a":
            outcome.set("type", "broken" if result.broken else result.verdict)
            outcome.text = _details(case)
    else:
        ET.SubElement(element, "system-out").text = _details(case)


def _message(result: Result) -> str:
    return f"known: {excuse_sentence(result.excuse)}" if result.excuse else result.summary


def _details(case: Case) -> str:
    """Everything that was measured, one line each, and the commands that run the case again."""
    result = case.result
    lines = [f"{result.verdict}: {result.summary}", *(f"{name}: {number(value)}" for name, value in result.measured.items())]
    lines += [f"p-value: {number(result.p_value)}"] if result.p_value is not None else []
    lines += [f"p-value, {name}: {number(p)}" for name, p in result.diagnostics.items()]
    lines += [f"smallest detectable effect: {result.sensitivity}"] if result.sensitivity else []
    lines += [f"witness: {witness_sentence(result.witness)}"] if result.witness else []
    lines += [f"replay: {command}" for command in case.commands]
    return _text("\n".join(lines))


def _text(text: str) -> str:
    """XML 1.0 cannot hold most control characters, so they are shown escaped."""
    return printable(text, 8000)
