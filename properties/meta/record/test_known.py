"""Known failures: what a list may excuse, what it may not, and that a list which no longer holds is red."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import date
from pathlib import Path

import pytest

from eagle2_ref.errors import BadInput
from harness import known, terminal
from harness.catalogue import selects
from harness.record.model import Record, Result, Verdict, read_record
from harness.settings import Settings
from harness.verdict import FAULT, INCONCLUSIVE, PASS, conclude, settle
from properties.meta.helpers.command import eagle2
from properties.meta.helpers.records import HOSTILE, record, rendered, result

TODAY = date(2027, 1, 31)
ENTRY = known.Entry(id="LAW-4", reason="The bonus is too cold.", link="https://example.org/bug/7", expires=TODAY)
CATALOGUE = ("SMOKE-1", "LAW-1", "LAW-4", "LAW-40", "GREEDY-1")

DEAF = """
class Engine:
    def __init__(self, target, draft=None):
        pass

    def generate(self, prompts, params, seeds):
        return [[0] * row["max_new_tokens"] for row in params]
"""
"""Answers, and repeats itself, but hears no seed: SMOKE-2 is a fault."""

LOSSY = """
from properties.meta.helpers.fake_engines import TooCold

class Engine(TooCold):
    @classmethod
    def describe(cls, **options):
        return {"capabilities": ["temperature"], "lossy": "it draws colder"}
"""

EXPIRES = "expires = 2099-01-31"
LISTED = f"""
[[known]]
id = "SMOKE-2"
reason = "seeds are ignored"
link = "https://example.org/bug/8"
{EXPIRES}
"""


def named(name: str) -> known.Entry:
    return ENTRY.model_copy(update={"id": name})


def excused(of: Result, entry: known.Entry = ENTRY, day: date = TODAY) -> Verdict:
    return known.excuse(of, [entry], "", day).verdict


def judged(entry: known.Entry, *seen: Result, left_out: tuple[str, ...] = (), day: date = TODAY) -> list[tuple[Verdict, str]]:
    """What KNOWN-1 says of an entry, after a run of all chapters in which the others pass."""
    others = [result(name, "a") for name in CATALOGUE if name not in {each.property for each in seen}]
    told = known.judged([entry], [known.excuse(each, [entry], "", day) for each in (*seen, *others)], left_out, CATALOGUE, day)
    assert all((each.property, each.case) == ("KNOWN-1", entry.id) for each in told)
    return [(each.verdict, each.summary) for each in told]


# --- what an entry names, and what it may excuse -------------------------------------------------------------------


@pytest.mark.parametrize("selector", ["LAW", "LAW-4", "LAW-4[coin4, T=1]"])
def test_an_entry_names_a_chapter_a_property_or_a_case(selector: str) -> None:
    assert excused(result("LAW-4", "coin4, T=1", "fault"), named(selector)) == "known"


@pytest.mark.parametrize("selector", ["LA", "LAW-40", "LAW-4[coin4]", "LAW-4[coin4, T=1", "GREEDY", "", "LAW-"])
def test_an_entry_names_nothing_else(selector: str) -> None:
    assert not selects(selector, "LAW-4[coin4, T=1]")


def test_a_known_fault_keeps_what_was_seen() -> None:
    """The reason, the link and the last day are added; what was measured stays."""
    fault = result("LAW-4", "a", "fault", p_value=1e-9, measured={"total variation": 0.3}, replay="again")
    told = known.excuse(fault, [ENTRY], "", TODAY)
    assert told.excuse is not None
    assert (told.excuse.reason, told.excuse.link, told.excuse.expires) == (ENTRY.reason, ENTRY.link, "2027-01-31")
    assert told.model_copy(update={"verdict": "fault", "excuse": None}) == fault


@pytest.mark.parametrize("verdict", ["inconclusive", "blocked", "pass", "tie", "n/a"])
def test_nothing_but_a_fault_is_excused(verdict: Verdict) -> None:
    """A crash or missing data stays what it is."""
    told = result("LAW-4", "a", verdict, broken=verdict == "inconclusive")
    assert known.excuse(told, [ENTRY], "by its documentation", TODAY) == told


def test_an_entry_excuses_to_its_last_day_and_no_longer() -> None:
    fault = result("LAW-4", "a", "fault")
    assert (excused(fault, day=TODAY), excused(fault, day=date(2027, 2, 1))) == ("known", "fault")


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("LAW-7", "known"), ("GREEDY-1", "known"), ("TREE-1", "fault"), ("STOP-2", "fault"), ("COUNT-1", "fault")],
)
def test_a_lossy_mode_excuses_its_law_alone(name: str, verdict: Verdict) -> None:
    told = known.excuse(result(name, "a", "fault"), [], "typical acceptance keeps what is likely enough", TODAY)
    assert told.verdict == verdict
    if told.excuse:
        assert told.excuse.reason == "lossy by design: typical acceptance keeps what is likely enough"


# --- what follows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdicts", "expected", "code"),
    [
        (["pass", "tie", "known"], "known", PASS),
        (["known", "n/a"], "known", PASS),
        (["known", "fault"], "fault", FAULT),
        (["known", "inconclusive"], "inconclusive", INCONCLUSIVE),
    ],
)
def test_a_known_fault_is_not_red_and_no_pass(verdicts: list[Verdict], expected: Verdict, code: int) -> None:
    assert conclude([result("LAW-1", str(i), verdict) for i, verdict in enumerate(verdicts)]) == (expected, code)


def test_a_known_fault_blocks_nothing() -> None:
    """What rests on it is judged, and has to be listed by its own name."""
    of = record(result("SMOKE-1", "", "known"), result("LAW-1", "a", "fault"))
    properties = {claim.id: claim for claim in of.header.properties}
    properties["LAW-1"] = properties["LAW-1"].model_copy(update={"needs": ("SMOKE-1",)})
    assert [each.verdict for each in settle(of.results, properties)] == ["known", "fault"]


# --- the list is judged too ----------------------------------------------------------------------------------------


def test_an_entry_that_excuses_a_fault_holds() -> None:
    seen = [result("LAW-4", "a", "fault"), result("LAW-4", "b"), result("LAW-4", "c", "inconclusive")]
    assert judged(ENTRY, *seen) == [("pass", "excuses 1 of 3 until 2027-01-31")]


def test_an_entry_whose_cases_pass_is_red() -> None:
    [(verdict, told)] = judged(ENTRY, result("LAW-4", "a"), result("LAW-4", "b", "n/a"))
    assert verdict == "fault" and "1 pass, 1 n/a" in told


@pytest.mark.parametrize("name", ["LAW-5", "LAWS", "LAW-4[b]", "KNOWN-1"])
def test_an_entry_that_names_nothing_is_red(name: str) -> None:
    [(verdict, told)] = judged(named(name), result("LAW-4", "a", "fault"))
    assert verdict == "fault" and "names nothing that was run" in told


def test_a_typing_error_is_told() -> None:
    [(_, told)] = judged(named("LAW-4[coin4, T=1.0 ]"), result("LAW-4", "coin4, T=1.0", "fault"))
    assert told.endswith("did you mean LAW-4[coin4, T=1.0]?")


def test_an_entry_that_has_expired_is_red_even_where_little_was_run() -> None:
    for left_out in ((), ("LAW-4[b]",)):
        [(verdict, told)] = judged(ENTRY, result("LAW-4", "a", "fault"), left_out=left_out, day=date(2027, 2, 1))
        assert verdict == "fault" and "expired on 2027-01-31" in told and "1 fault" in told


@pytest.mark.parametrize("verdict", ["inconclusive", "blocked"])
def test_of_an_entry_whose_cases_came_to_no_verdict_nothing_is_said(verdict: Verdict) -> None:
    assert [of for of, _ in judged(ENTRY, result("LAW-4", "a", verdict), result("LAW-4", "b"))] == ["inconclusive"]


@pytest.mark.parametrize("name", ["LAW", "LAW-4", "LAW-4[b]"])
def test_a_case_that_was_left_out_may_be_the_one(name: str) -> None:
    """By a tier, by --only or by -k: such a run cannot tell."""
    seen = result("LAW-4", "a")
    assert judged(named(name), seen, left_out=("LAW-4[b]",)) == []
    assert [verdict for verdict, _ in judged(named("LAW-4[a]"), seen, left_out=("LAW-4[b]",))] == ["fault"]
    fault = result("LAW-4", "b", "fault")
    assert [verdict for verdict, _ in judged(named(name), fault, left_out=("LAW-4[b]",))] == ["pass"], "it has excused one"


def test_a_property_that_was_not_collected_may_be_the_one() -> None:
    """As where pytest is given one file of the chapters."""
    seen = [result("LAW-1", "a")]
    for name, expected in (("LAW-4[a]", []), ("GREEDY", []), ("LAW", []), ("LAW-1", ["fault"]), ("LAWS", ["fault"])):
        told = known.judged([named(name)], seen, (), CATALOGUE, TODAY)
        assert [each.verdict for each in told] == expected, name


# --- the file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("known = 7", "'known' is no list"),
        ("[[knwon]]\nid = 'LAW'", "'knwon'"),
        ("[[known]", "is no list of known failures"),
        (LISTED.replace("reason", "because"), "entry 1 (SMOKE-2): reason: Field required"),
        (LISTED.replace("seeds are ignored", ""), "entry 1 (SMOKE-2): reason:"),
        (LISTED.replace("link", "url"), "entry 1 (SMOKE-2): link: Field required"),
        (LISTED.replace(EXPIRES, ""), "entry 1 (SMOKE-2): expires: Field required"),
        (LISTED.replace(EXPIRES, "expires = 20990131"), "entry 1 (SMOKE-2): expires:"),
        (LISTED.replace(EXPIRES, "expires = 'soon'"), "entry 1 (SMOKE-2): expires:"),
        (LISTED.replace(EXPIRES, "expires = 2099-02-30"), "is no list of known failures"),
        (LISTED + "until = 2099-01-31", "entry 1 (SMOKE-2): until: Extra inputs"),
        (LISTED.replace('"SMOKE-2"', "7"), "entry 1 (7): id:"),
        (LISTED + LISTED, "lists 'SMOKE-2' 2 times"),
    ],
)
def test_a_list_that_cannot_be_understood_is_refused(text: str, told: str, tmp_path: Path) -> None:
    """With the file, the entry, and what an entry has."""
    path = tmp_path / "known.toml"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        known.read(str(path))
    assert told in str(error.value) and str(path) in str(error.value) and len(str(error.value).splitlines()) == 2


def test_a_list_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no list of known failures"):
        known.read(str(tmp_path / "no.toml"))
    assert known.read("") == ()


def test_workers_read_the_list_that_was_meant() -> None:
    settings = Settings.parse("ref", ["known=known.toml"]).absolute()
    assert Path(settings.known).is_absolute() and f"known={settings.known}" in settings.unparse()


# --- where it is shown ---------------------------------------------------------------------------------------------


def with_reason(reason: str = ENTRY.reason) -> Record:
    entry = ENTRY.model_copy(update={"reason": reason})
    fault = known.excuse(result("LAW-4", "a", "fault", replay="again"), [entry], "", TODAY)
    return record(fault, result("LAW-1", "b"), verdict="known")


def test_reason_link_and_day_are_shown_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = rendered(with_reason(), tmp_path)
    suite = ET.fromstring(files["junit.xml"]).find("testsuite")  # noqa: S314 - our own text
    assert suite is not None
    skipped = suite.find("testcase/skipped")
    assert skipped is not None and suite.get("skipped") == "1" and suite.get("failures") == "0"
    terminal.show_record(with_reason(), tmp_path)
    summary = files["summary.md"].replace("\\", "")
    for text in (files["index.html"], summary, skipped.get("message") or "", " ".join(capsys.readouterr().out.split())):
        assert "The bonus is too cold. (https://example.org/bug/7, until 2027-01-31)" in text
    assert '"message": "known, 1 of 2 checks"' in files["badge.json"]
    assert "1 of 2 checks found a fault" in files["index.html"] and "### Known faults" in summary
    assert "eagle2 replay LAW-4.1" in files["index.html"], "it can be seen again like any other"


def test_a_reason_is_shown_as_text(tmp_path: Path) -> None:
    text = rendered(with_reason(HOSTILE), tmp_path)["index.html"]
    assert "<script" not in text and "alert(1)" in text


# --- the whole way -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", ["0", "2"])
def test_a_run_is_not_red_by_what_is_listed(jobs: str, tmp_path: Path) -> None:
    """Under xdist as without; and neither by an entry of a chapter that was not asked for."""
    (tmp_path / "deaf.py").write_text(DEAF)
    (tmp_path / "known.toml").write_text(LISTED + LISTED.replace("SMOKE-2", "GREEDY-1"))
    words = ["verify", "py:deaf:Engine", "--only", "SMOKE", "-n", jobs, "--out", "out"]
    done = eagle2([*words, "--known", "known.toml"], tmp_path, timeout=600)
    assert done.returncode == PASS, done.stdout + done.stderr
    assert "seeds are ignored (https://example.org/bug/8, until 2099-01-31)" in " ".join(done.stdout.split())
    seen = read_record(tmp_path / "out" / "record.jsonl")
    told = [(each.property, each.case, each.verdict) for each in seen.results]
    assert told == [("SMOKE-1", "", "pass"), ("SMOKE-2", "", "known"), ("KNOWN-1", "SMOKE-2", "pass")]
    assert seen.footer.verdict == "known" and seen.header.command.endswith("--known known.toml")
    if jobs == "0":
        assert eagle2(words, tmp_path).returncode == FAULT, "without its list it is"


def test_what_is_recorded_and_judged_elsewhere_has_its_list_too(tmp_path: Path) -> None:
    (tmp_path / "deaf.py").write_text(DEAF)
    (tmp_path / "known.toml").write_text(LISTED)
    words = ["--only", "SMOKE", "-n", "0", "--out", "out", "--known", "known.toml"]
    for begun in (["record", "py:deaf:Engine", "-o", "run.jsonl"], ["judge", "run.jsonl"]):
        done = eagle2([*begun, *words], tmp_path)
        assert done.returncode == PASS and "SMOKE-2   known" in done.stdout, done.stdout + done.stderr


def test_a_list_that_no_longer_holds_is_red(tmp_path: Path) -> None:
    (tmp_path / "known.toml").write_text(LISTED)
    words = ["verify", "ref:k=2,depth=2,m=4", "--pair", "coin4", "--only", "SMOKE", "-n", "0", "--out", "out"]
    done = eagle2([*words, "--known", "known.toml"], tmp_path, timeout=600)
    assert done.returncode == FAULT and "names no fault any more: 1 pass" in " ".join(done.stdout.split())
    assert "list of known failures" in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")


def test_a_mode_that_is_lossy_by_design_says_so_in_its_description(tmp_path: Path) -> None:
    (tmp_path / "lossy.py").write_text(LOSSY)
    words = ["verify", "py:lossy:Engine", "--only", "LAW-6", "-n", "0", "--out", "out"]
    done = eagle2(words, tmp_path)
    assert done.returncode == PASS and "lossy by design: it draws colder" in done.stdout, done.stdout + done.stderr
    [told] = [each for each in read_record(tmp_path / "out" / "record.jsonl").results if each.verdict != "n/a"]
    assert told.verdict == "known" and float(told.measured["total variation"]) > 0.01, "the effect stays"
