"""junit.xml: one testcase for each case of a property, for whatever collects test results."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from harness.record.model import Record, Result, Verdict
from harness.report.view import Case, cases, catalogue
from harness.report.words import excused, number, shown, witness

ELEMENT: dict[Verdict, str] = {
    "fault": "failure",
    "inconclusive": "error",
    "blocked": "error",
    "n/a": "skipped",
    "known": "skipped",
}


def junit(record: Record) -> str:
    """Faults are failures; a known one is skipped, with its reason; no answer is an error, never a pass; a tie passes."""
    chapter = {p.id: p.chapter for p in catalogue(record)}
    kinds = [ELEMENT.get(result.verdict) for result in record.results]
    totals = {
        "name": f"eagle2 verify {fit(record.header.implementation)}",
        "tests": str(len(kinds)),
        "failures": str(kinds.count("failure")),
        "errors": str(kinds.count("error")),
        "skipped": str(kinds.count("skipped")),
        "time": f"{record.footer.seconds:.3f}",
        "timestamp": fit(record.header.started),
    }
    root = ET.Element("testsuites", {key: totals[key] for key in totals if key not in ("timestamp", "skipped")})
    suite = ET.SubElement(root, "testsuite", totals)
    for case in cases(record):
        testcase(suite, case, chapter[case.result.property])
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def testcase(suite: ET.Element, told: Case, chapter: str) -> None:
    result = told.result
    name = fit(f"{result.property} [{result.case}]" if result.case else result.property)
    case = ET.SubElement(suite, "testcase", {"classname": fit(chapter), "name": name, "time": f"{result.seconds:.3f}"})
    if result.verdict in ELEMENT:
        outcome = ET.SubElement(case, ELEMENT[result.verdict], {"message": fit(message(result))})
        if result.verdict != "n/a":
            outcome.set("type", "broken" if result.broken else result.verdict)
            outcome.text = details(told)
    else:
        ET.SubElement(case, "system-out").text = details(told)


def message(result: Result) -> str:
    return f"known: {excused(result.excuse)}" if result.excuse else result.summary


def details(case: Case) -> str:
    """Everything that was measured, one line each, and how to run it again."""
    result = case.result
    lines = [f"{result.verdict}: {result.summary}", *(f"{name}: {number(value)}" for name, value in result.measured.items())]
    lines += [f"p-value: {number(result.p_value)}"] if result.p_value is not None else []
    lines += [f"p-value, {name}: {number(p)}" for name, p in result.diagnostics.items()]
    lines += [f"a pass would have seen: {result.sensitivity}"] if result.sensitivity else []
    lines += [f"witness: {witness(result.witness)}"] if result.witness else []
    lines += [f"replay: {command}" for command in (case.replay, result.replay) if command]
    return fit("\n".join(lines))


def fit(text: str) -> str:
    """XML 1.0 cannot hold most control characters in any spelling, so they are shown escaped."""
    return shown(text, 8000)
