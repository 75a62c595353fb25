"""The simulations that judge the instrument: that they simulate what they say, and that their report can turn red."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from eagle2_ref.coins import Coins, invert
from eagle2_ref.drafters.eagle2 import Pool, rerank
from eagle2_ref.errors import BadInput
from eagle2_ref.rules import RULES
from eagle2_ref.tree import DraftTree
from harness.calibration import campaigns, coverage, report, run
from harness.calibration.campaigns import Broken, Correct
from harness.calibration.coverage import Covered, Promised
from harness.calibration.decoders import NONE, Reject, Trees, Walk, block, write
from harness.calibration.faults import FAULTS, Fault, RawBonus, RecoveredFromP
from harness.calibration.figures import BOUNDED, Calibration, Line, quantile
from harness.calibration.observe import LENGTH, Oracle, sample, tally
from harness.calibration.worlds import BUDGETS, Floats, Texts, World, follow
from harness.statistics import pit
from harness.statistics.bounds import Bound
from harness.statistics.chisquare import goodness
from harness.statistics.eprocess import WIDTHS, Counts, PitSequence, detectable_deviation

COMMITTED = Path(__file__).parents[3] / "reports" / "calibration"

SIMULATED = {"reject": Reject, "walk": Walk}


@cache
def world(vocab: int, processing: str = "T=0.7") -> World:
    return World.build(vocab, processing, 1)


def texts(n: int, seed: int = 0) -> Texts:
    return np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)


# --- what is simulated is EAGLE-2 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", SIMULATED)
@pytest.mark.parametrize("vocab", [8, 64])
def test_a_block_is_the_references_coin_for_coin(rule: str, vocab: int) -> None:
    here, n = world(vocab), 60
    trees = Trees.grow(here, texts(n))
    coins = np.random.default_rng(3).random((n, here.budget.depth + 1, here.budget.k + 1))
    written, _ = block(here, SIMULATED[rule](), trees, coins)
    lengths = set()
    for i in range(n):
        tree, numbers = reference_tree(here, trees, i)
        assert sorted(numbers[1:]) == np.flatnonzero(trees.kept[i]).tolist()
        p = torch.tensor(here.target.p[here.kind(trees.texts[i, numbers])])
        accepted = RULES[rule](tree, p, Followed(coins[i]))
        path = [numbers[node] for node in accepted.path]
        last = int(here.token(trees.texts[i, [0, *path][-1]], np.array(accepted.token)))
        assert [x for x in written.tokens[i] if x != NONE] == [*trees.tokens[i, path], last]
        lengths.add(len(path))
    assert len(lengths) >= 3


def reference_tree(here: World, trees: Trees, i: int) -> tuple[DraftTree, list[int]]:
    """What eagle2_ref keeps of the candidates of tree i, and their numbers there. Tokens are ranks in their parent's law:
    among ranks both decoders search for a token in the same order."""
    parents, values = np.full(trees.tokens.shape[1], -1), np.zeros(trees.tokens.shape[1])
    for node in np.argsort(trees.first[i], kind="stable")[-(trees.first[i] > 0).sum() :]:
        children = trees.first[i, node] + np.arange(here.budget.k)
        parents[children], values[children] = node, values[node] + trees.confidence[i, children]
    every = torch.arange(1, len(parents))
    tree = rerank(0, Pool(every, torch.tensor(parents[1:] - 1), torch.tensor(values[1:])), here.budget.m)
    numbers = [tree.token(node) for node in range(len(tree))]
    ranks = here.rank(trees.texts[i, parents[numbers]], trees.tokens[i, numbers]).tolist()
    return DraftTree.of(ranks, [tree.parent(node) for node in range(len(tree))]), numbers


class Followed(Coins):
    """Coins [depth + 1, k + 1] of a block in lockstep, handed to a rule that asks for them one by one."""

    def __init__(self, coins: Floats) -> None:
        self.coins, self.depth, self.child = coins, 0, 0

    def seek(self, position: int) -> None: ...

    def uniform(self) -> Followed:
        return self

    def __lt__(self, threshold: torch.Tensor) -> bool:
        accepted = bool(self.coins[self.depth, self.child] < float(threshold))
        self.depth, self.child = (self.depth + 1, 0) if accepted else (self.depth, self.child + 1)
        return accepted

    def categorical(self, p: torch.Tensor) -> int:
        self.depth += 1
        return invert(p, self.coins[self.depth - 1, -1])


@pytest.mark.parametrize(("rule", "fits"), [(Reject, True), (Walk, True), (RecoveredFromP, False)])
def test_texts_are_distributed_as_the_target(rule: type[Reject], fits: bool) -> None:
    """Jointly over depth + 2 tokens, from one text on, against the enumerated law; a fault does not fit."""
    here, n, length = world(8), 15_000, BUDGETS[8].depth + 2
    start = texts(1)
    written = write(here, rule(), start.repeat(n), length, np.random.default_rng(4))
    law, ends = np.ones(1), start
    for _ in range(length):
        tokens = np.tile(np.arange(8), (len(ends), 1))
        law = (law[:, None] * here.p(ends[:, None], tokens)).ravel()
        ends = follow(ends[:, None], tokens).ravel()
    observed = np.bincount(written.tokens @ 8 ** np.arange(length)[::-1], minlength=len(law))
    statistic, df = goodness(observed, n * law)
    p = chi2.sf(statistic, df)
    assert df > 50
    assert p > 1e-3 if fits else p < 1e-9


def test_laws_span_from_flat_to_peaked() -> None:
    for vocab in BUDGETS:
        likeliest = world(vocab).target.p[:, 0]
        assert likeliest.max() > 0.9
        assert likeliest.min() < 0.5


# --- what is seen of it is what the instrument would see of one text --------------------------------------------------


def test_counts_in_lockstep_are_the_instruments() -> None:
    """With impossible tokens among them."""
    strands = sample(Oracle.of(world(8, "top_p=0.9")), RawBonus(), 24, np.random.default_rng(0))
    sums = tally(strands, 2, 3)
    assert sums.impossible.sum() > 0
    for group in range(6):
        own = Counts.of([row(strands, 4 * group + i) for i in range(4)]).arrays()
        for name, array in sums.arrays().items():
            np.testing.assert_allclose(array[group // 3, group % 3], own[name], err_msg=name)


def test_strands_in_lockstep_are_the_instruments() -> None:
    here = world(64, "top_p=0.9")
    written = write(here, Reject(), texts(3), LENGTH, np.random.default_rng(5))
    strands, v = Oracle.of(here).strands(written, np.random.default_rng(7)), np.random.default_rng(7).random((3, LENGTH))
    for i in range(3):
        p = here.p(written.texts[i, :, None], np.arange(64)[None])
        children = [[int(x) for x in offered if x != NONE] for offered in written.children[i]]
        leaves = np.array([not offered for offered in children])
        own = pit.pit_sequence(p, written.tokens[i], v[i], written.offset[i], leaves, children)
        for name, array in vars(own).items():
            np.testing.assert_allclose(getattr(strands, name)[i], array, atol=1e-9, err_msg=name)


def row(strands: PitSequence, i: int) -> PitSequence:
    return PitSequence(**{f.name: getattr(strands, f.name)[i] for f in fields(PitSequence)})


# --- the report can turn red ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_a_correct_decoder_keeps_the_promises() -> None:
    figures = calibration(Correct(8, 0))
    assert all(report.false_alarms(figures, evidence).held for evidence in BOUNDED)
    assert report.tails(figures).held


@pytest.mark.usefixtures("short")
def test_evidence_that_was_fitted_to_its_data_breaks_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A likelihood ratio against the best law in hindsight is no bet: nobody had to name that law beforehand."""

    def fitted(sums: Counts) -> dict[str, Floats]:
        n, total = sums.histogram, sums.histogram.sum(axis=-1, keepdims=True)
        ratio = np.log(np.where(n > 0, n, 1) / np.where(n > 0, total * WIDTHS, 1))
        return {"histogram": (n * ratio).sum(axis=-1) / np.log(10)}

    monkeypatch.setattr(campaigns, "log10_components", fitted)
    figures = calibration(Correct(8, 0))
    assert not report.false_alarms(figures, 20.0).held
    assert not report.false_alarms(figures, 100.0).held


@pytest.mark.usefixtures("short")
def test_a_broken_decoder_breaks_the_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaigns, "Reject", RecoveredFromP)
    figures = calibration(Correct(8, 0))
    assert not any(report.false_alarms(figures, evidence).held for evidence in BOUNDED)
    assert not report.tails(figures).held


@pytest.mark.usefixtures("short")
def test_an_impossible_token_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert report.support(calibration(Correct(8, 2))).held
    monkeypatch.setattr(campaigns, "Reject", RawBonus)
    assert not report.support(calibration(Correct(8, 2))).held


def test_a_bound_that_is_too_small_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Covered("rank CDF", 1, 2000, 0.03, 100)
    assert report.bounds(calibration(case)).held
    monkeypatch.setattr(coverage, "dkw_bound", lambda distance, *_: Bound(0.9 * distance, True, ""))
    assert not report.bounds(calibration(case)).held


def test_a_promise_that_is_too_large_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Promised(8192, 400)
    assert report.sight(calibration(case)).held
    seen = detectable_deviation(8192).value
    monkeypatch.setattr(coverage, "detectable_deviation", lambda _n: Bound(0.8 * seen, False, ""))
    assert not report.sight(calibration(case)).held


@pytest.mark.parametrize("name", ["RecoveredFromP", "RawBonus, top_p=0.9"])
def test_a_planted_fault_is_convicted(name: str) -> None:
    """By its evidence, or by a token that cannot be."""
    (number,) = (i for i, fault in enumerate(FAULTS) if fault.name == name)
    (found,) = calibration(Broken(8, number, 64, 4)).detections
    assert quantile(found.verdict, 1.0) <= found.spent
    assert found.first == ("support" if "top_p" in name else "child")


def test_a_correct_decoder_is_never_convicted(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (campaigns, report):
        monkeypatch.setattr(module, "FAULTS", (Fault(Reject),))
    figures = calibration(Broken(8, 0, 64, 4))
    assert set(figures.detections[0].verdict) == {np.inf}
    assert report.spread(figures.detections[0].verdict) == "never"
    assert not report.power(figures).held


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Campaigns of 1,024 tokens."""
    monkeypatch.setattr(campaigns, "LOOKS", 4)


def calibration(*shards: run.Shard) -> Calibration:
    return Calibration({}, tuple(json.loads(json.dumps(run.work(shard))) for shard in shards))


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards that are written down are not done again; a torn line is; other code starts anew."""
    monkeypatch.setattr(run, "plan", lambda _quick: [Promised(n, 10) for n in (1000, 2000, 3000)])
    monkeypatch.setattr(report, "render", lambda _record, _out: [])
    done: list[int] = []
    work = run.work

    def noted(shard: Promised) -> Line:
        done.append(shard.n)
        return work(shard)

    monkeypatch.setattr(run, "work", noted)
    (path,) = run.calibrate(tmp_path)
    whole = path.read_text()
    assert done == [1000, 2000, 3000]
    path.write_text(whole[: whole.rindex('"figures"')])
    with pytest.raises(ValueError, match="run it again"):
        Calibration.read(path)
    run.calibrate(tmp_path)
    assert done == [1000, 2000, 3000, 3000]
    assert len(Calibration.read(path).lines) == 3
    monkeypatch.setattr(run, "fingerprint", lambda: "other")
    run.calibrate(tmp_path)
    assert done == [1000, 2000, 3000, 3000, 1000, 2000, 3000]
    with pytest.raises(BadInput, match="give another --out"):
        run.calibrate(tmp_path, quick=True)


# --- what is committed ------------------------------------------------------------------------------------------------


def test_the_committed_calibration_keeps_every_promise() -> None:
    committed = Calibration.read(COMMITTED / run.RECORD)
    assert committed.header["tier"] == "full"
    assert all(one["campaigns"] >= 2000 for one in committed.correct.values())
    assert [claim for claim in report.claims(committed) if not claim.held] == []
    assert all(one.rate(evidence).value <= 1 / evidence for one in committed.alarms for evidence in BOUNDED)


def test_the_committed_summary_is_that_of_the_record() -> None:
    committed = Calibration.read(COMMITTED / run.RECORD)
    assert (COMMITTED / "summary.md").read_text(encoding="utf-8") == report.summary(committed)
