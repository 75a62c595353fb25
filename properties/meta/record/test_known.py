"""Tests of known failures: what an entry excuses, what it does not, and that an outdated list is a fault."""

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

IGNORES_SEEDS = """
class Engine:
    def __init__(self, target, draft=None):
        pass

    def generate(self, prompts, params, seeds):
        return [[0] * row["max_new_tokens"] for row in params]
"""
"""It ignores its seeds: SMOKE-2 is a fault."""

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


def excused(result: Result, entry: known.Entry = ENTRY, day: date = TODAY) -> Verdict:
    return known.excuse(result, [entry], "", day).verdict


def judged(entry: known.Entry, *seen: Result, left_out: tuple[str, ...] = (), day: date = TODAY) -> list[tuple[Verdict, str]]:
    """Verdict and summary of KNOWN-1 for an entry, after a run of all chapters in which all others pass."""
    others = [result(name, "a") for name in CATALOGUE if name not in {each.property for each in seen}]
    results = [known.excuse(each, [entry], "", day) for each in (*seen, *others)]
    found = known.judged([entry], results, left_out, CATALOGUE, day)
    assert all((each.property, each.case) == ("KNOWN-1", entry.id) for each in found)
    return [(each.verdict, each.summary) for each in found]


# --- what an entry names and excuses -------------------------------------------------------------------------------


@pytest.mark.parametrize("selector", ["LAW", "LAW-4", "LAW-4[coin4, T=1]"])
def test_entry_names_a_chapter_a_property_or_a_case(selector: str) -> None:
    assert excused(result("LAW-4", "coin4, T=1", "fault"), named(selector)) == "known"


@pytest.mark.parametrize("selector", ["LA", "LAW-40", "LAW-4[coin4]", "LAW-4[coin4, T=1", "GREEDY", "", "LAW-"])
def test_entry_names_nothing_else(selector: str) -> None:
    assert not selects(selector, "LAW-4[coin4, T=1]")


def test_known_fault_keeps_its_measurements() -> None:
    """Reason, link and last day are added."""
    fault = result("LAW-4", "a", "fault", p_value=1e-9, measured={"total variation": 0.3}, replay="again")
    excused_fault = known.excuse(fault, [ENTRY], "", TODAY)
    assert excused_fault.excuse is not None
    excuse = excused_fault.excuse
    assert (excuse.reason, excuse.link, excuse.expires) == (ENTRY.reason, ENTRY.link, "2027-01-31")
    assert excused_fault.model_copy(update={"verdict": "fault", "excuse": None}) == fault


@pytest.mark.parametrize("verdict", ["inconclusive", "blocked", "pass", "tie", "n/a"])
def test_only_faults_are_excused(verdict: Verdict) -> None:
    other = result("LAW-4", "a", verdict, broken=verdict == "inconclusive")
    assert known.excuse(other, [ENTRY], "by its documentation", TODAY) == other


def test_entry_excuses_until_its_last_day() -> None:
    fault = result("LAW-4", "a", "fault")
    assert (excused(fault, day=TODAY), excused(fault, day=date(2027, 2, 1))) == ("known", "fault")


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("LAW-7", "known"), ("GREEDY-1", "known"), ("TREE-1", "fault"), ("STOP-2", "fault"), ("COUNT-1", "fault")],
)
def test_lossy_mode_excuses_faults_of_the_law_only(name: str, verdict: Verdict) -> None:
    found = known.excuse(result(name, "a", "fault"), [], "typical acceptance", TODAY)
    assert found.verdict == verdict
    assert (found.excuse.reason if found.excuse else "") == ("lossy by design: typical acceptance" if verdict == "known" else "")


# --- verdict of a run-----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdicts", "expected", "code"),
    [
        (["pass", "tie", "known"], "known", PASS),
        (["known", "n/a"], "known", PASS),
        (["known", "fault"], "fault", FAULT),
        (["known", "inconclusive"], "inconclusive", INCONCLUSIVE),
    ],
)
def test_known_fault_does_not_fail_a_run_and_is_no_pass(verdicts: list[Verdict], expected: Verdict, code: int) -> None:
    assert conclude([result("LAW-1", str(i), verdict) for i, verdict in enumerate(verdicts)]) == (expected, code)


def test_known_fault_blocks_nothing() -> None:
    """Properties that need it are judged, and must be listed by their own ids."""
    of = record(result("SMOKE-1", "", "known"), result("LAW-1", "a", "fault"))
    properties = {claim.id: claim for claim in of.header.properties}
    properties["LAW-1"] = properties["LAW-1"].model_copy(update={"needs": ("SMOKE-1",)})
    assert [each.verdict for each in settle(of.results, properties)] == ["known", "fault"]


# --- KNOWN-1 ------------------------------------------------------------------------------------------------------


def test_entry_that_excuses_a_fault_passes() -> None:
    seen = [result("LAW-4", "a", "fault"), result("LAW-4", "b"), result("LAW-4", "c", "inconclusive")]
    assert judged(ENTRY, *seen) == [("pass", "excuses 1 of 3 until 2027-01-31")]


def test_entry_whose_cases_pass_is_a_fault() -> None:
    [(verdict, summary)] = judged(ENTRY, result("LAW-4", "a"), result("LAW-4", "b", "n/a"))
    assert verdict == "fault" and "1 pass, 1 n/a" in summary


@pytest.mark.parametrize("name", ["LAW-5", "LAWS", "LAW-4[b]", "KNOWN-1"])
def test_entry_that_names_nothing_is_a_fault(name: str) -> None:
    [(verdict, summary)] = judged(named(name), result("LAW-4", "a", "fault"))
    assert verdict == "fault" and "names nothing that was run" in summary


def test_similar_name_is_suggested() -> None:
    [(_, summary)] = judged(named("LAW-4[coin4, T=1.0 ]"), result("LAW-4", "coin4, T=1.0", "fault"))
    assert summary.endswith("did you mean LAW-4[coin4, T=1.0]?")


def test_expired_entry_is_a_fault_in_a_partial_run_too() -> None:
    for left_out in ((), ("LAW-4[b]",)):
        [(verdict, summary)] = judged(ENTRY, result("LAW-4", "a", "fault"), left_out=left_out, day=date(2027, 2, 1))
        assert verdict == "fault" and "expired on 2027-01-31" in summary and "1 fault" in summary


@pytest.mark.parametrize("verdict", ["inconclusive", "blocked"])
def test_entry_whose_cases_have_no_verdict_is_inconclusive(verdict: Verdict) -> None:
    assert [of for of, _ in judged(ENTRY, result("LAW-4", "a", verdict), result("LAW-4", "b"))] == ["inconclusive"]


@pytest.mark.parametrize("name", ["LAW", "LAW-4", "LAW-4[b]"])
def test_entry_is_not_judged_if_its_cases_were_left_out(name: str) -> None:
    """By the tier, by --only or by -k."""
    seen = result("LAW-4", "a")
    assert judged(named(name), seen, left_out=("LAW-4[b]",)) == []
    assert [verdict for verdict, _ in judged(named("LAW-4[a]"), seen, left_out=("LAW-4[b]",))] == ["fault"]
    fault = result("LAW-4", "b", "fault")
    assert [verdict for verdict, _ in judged(named(name), fault, left_out=("LAW-4[b]",))] == ["pass"], "it has excused one"


def test_entry_is_not_judged_if_its_property_was_not_collected() -> None:
    """As when pytest is given one chapter."""
    seen = [result("LAW-1", "a")]
    for name, expected in (("LAW-4[a]", []), ("GREEDY", []), ("LAW", []), ("LAW-1", ["fault"]), ("LAWS", ["fault"])):
        found = known.judged([named(name)], seen, (), CATALOGUE, TODAY)
        assert [each.verdict for each in found] == expected, name


# --- the file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
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
def test_invalid_list_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    """The message names the file and the entry; its second line shows the format."""
    path = tmp_path / "known.toml"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        known.read(str(path))
    assert reason in str(error.value) and str(path) in str(error.value) and len(str(error.value).splitlines()) == 2


def test_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no file"):
        known.read(str(tmp_path / "no.toml"))
    assert known.read("") == ()


def test_workers_read_the_same_list() -> None:
    settings = Settings.parse("ref", ["known=known.toml"]).absolute()
    assert Path(settings.known).is_absolute() and f"known={settings.known}" in settings.unparse()


# --- reports -----------------------------------------------------------------------------------------------------


def with_reason(reason: str = ENTRY.reason) -> Record:
    entry = ENTRY.model_copy(update={"reason": reason})
    fault = known.excuse(result("LAW-4", "a", "fault", replay="again"), [entry], "", TODAY)
    return record(fault, result("LAW-1", "b"), verdict="known")


def test_reason_link_and_day_are_in_every_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert "eagle2 replay LAW-4.1" in files["index.html"]


def test_reason_is_escaped(tmp_path: Path) -> None:
    text = rendered(with_reason(HOSTILE), tmp_path)["index.html"]
    assert "<script" not in text and "alert(1)" in text


# --- commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", ["0", "2"])
def test_run_with_a_listed_fault_succeeds(jobs: str, tmp_path: Path) -> None:
    """With xdist and without; an entry of a chapter that does not run changes nothing."""
    (tmp_path / "ignores_seeds.py").write_text(IGNORES_SEEDS)
    (tmp_path / "known.toml").write_text(LISTED + LISTED.replace("SMOKE-2", "GREEDY-1"))
    words = ["verify", "py:ignores_seeds:Engine", "--only", "SMOKE", "-n", jobs, "--out", "out"]
    done = eagle2([*words, "--known", "known.toml"], tmp_path, timeout=600)
    assert done.returncode == PASS, done.stdout + done.stderr
    assert "seeds are ignored (https://example.org/bug/8, until 2099-01-31)" in " ".join(done.stdout.split())
    seen = read_record(tmp_path / "out" / "record.jsonl")
    assert [(each.property, each.case, each.verdict) for each in seen.results] == [
        ("SMOKE-1", "", "pass"),
        ("SMOKE-2", "", "known"),
        ("KNOWN-1", "SMOKE-2", "pass"),
    ]
    assert seen.footer.verdict == "known" and seen.header.command.endswith("--known known.toml")
    if jobs == "0":
        assert eagle2(words, tmp_path).returncode == FAULT


def test_record_and_judge_take_a_list(tmp_path: Path) -> None:
    (tmp_path / "ignores_seeds.py").write_text(IGNORES_SEEDS)
    (tmp_path / "known.toml").write_text(LISTED)
    words = ["--only", "SMOKE", "-n", "0", "--out", "out", "--known", "known.toml"]
    for command in (["record", "py:ignores_seeds:Engine", "-o", "run.jsonl"], ["judge", "run.jsonl"]):
        done = eagle2([*command, *words], tmp_path)
        assert done.returncode == PASS and "SMOKE-2   known" in done.stdout, done.stdout + done.stderr


def test_outdated_list_fails_a_run(tmp_path: Path) -> None:
    (tmp_path / "known.toml").write_text(LISTED)
    words = ["verify", "ref:k=2,depth=2,m=4", "--pair", "coin4", "--only", "SMOKE", "-n", "0", "--out", "out"]
    done = eagle2([*words, "--known", "known.toml"], tmp_path, timeout=600)
    assert done.returncode == FAULT and "names no fault any more: 1 pass" in " ".join(done.stdout.split())
    assert "list of known failures" in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")


def test_lossy_implementation_is_a_known_fault(tmp_path: Path) -> None:
    (tmp_path / "lossy.py").write_text(LOSSY)
    words = ["verify", "py:lossy:Engine", "--only", "LAW-6", "-n", "0", "--out", "out"]
    done = eagle2(words, tmp_path)
    assert done.returncode == PASS and "lossy by design: it draws colder" in done.stdout, done.stdout + done.stderr
    found = [each for each in read_record(tmp_path / "out" / "record.jsonl").results if each.verdict != "n/a"]
    assert found and all(each.verdict == "known" and each.effect and each.effect.value > 0.01 for each in found)
