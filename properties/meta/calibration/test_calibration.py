"""The simulated decoders are EAGLE-2, and every promise of a calibration fails if it does not hold."""

from __future__ import annotations

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
from harness.calibration import campaigns, claims, coverage, report, run
from harness.calibration.campaigns import Broken, Correct
from harness.calibration.coverage import Covered, Promised
from harness.calibration.decoders import NONE, Reject, Trees, Walk, decode, decode_block
from harness.calibration.faults import FAULTS, Fault, RawBonus, RecoveredFromP
from harness.calibration.figures import BOUNDED, Calibration, Header, ShardLine, quantile
from harness.calibration.observations import LENGTH, Scorer, count_campaigns, sample
from harness.calibration.toy_pairs import BUDGETS, Floats, Texts, ToyPair, follow
from harness.statistics import pit
from harness.statistics.bounds import Bound
from harness.statistics.chisquare import goodness
from harness.statistics.eprocess import WIDTHS, Counts, PitSequence, detectable_deviation

COMMITTED = Path(__file__).parents[3] / "reports" / "calibration"

SIMULATED = {"reject": Reject, "walk": Walk}


@cache
def pair(vocab: int, processing: str = "T=0.7") -> ToyPair:
    return ToyPair.build(vocab, processing, 1)


def texts(n: int, seed: int = 0) -> Texts:
    return np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)


# --- the simulated decoder is EAGLE-2 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", SIMULATED)
@pytest.mark.parametrize("vocab", [8, 64])
def test_simulated_block_equals_the_references_for_the_same_coins(rule: str, vocab: int) -> None:
    here, n = pair(vocab), 60
    trees = Trees.grow(here, texts(n))
    coins = np.random.default_rng(3).random((n, here.budget.depth + 1, here.budget.k + 1))
    written, _ = decode_block(here, SIMULATED[rule](), trees, coins)
    lengths = set()
    for i in range(n):
        tree, numbers = reference_tree(here, trees, i)
        assert sorted(numbers[1:]) == np.flatnonzero(trees.kept[i]).tolist()
        p = torch.tensor(here.target.p[here.kind(trees.texts[i, numbers])])
        accepted = RULES[rule](tree, p, BlockCoins(coins[i]))
        path = [numbers[node] for node in accepted.path]
        last = int(here.token(trees.texts[i, [0, *path][-1]], np.array(accepted.token)))
        assert [x for x in written.tokens[i] if x != NONE] == [*trees.tokens[i, path], last]
        lengths.add(len(path))
    assert len(lengths) >= 3


def reference_tree(here: ToyPair, trees: Trees, i: int) -> tuple[DraftTree, list[int]]:
    """The reranked tree of eagle2_ref from the candidates of tree i, and the indices of its nodes.

    Tokens are ranks in the distribution of their parent, so that both decoders search for a token in the same order.
    """
    parents, values = np.full(trees.tokens.shape[1], -1), np.zeros(trees.tokens.shape[1])
    for node in np.argsort(trees.first[i], kind="stable")[-(trees.first[i] > 0).sum() :]:
        children = trees.first[i, node] + np.arange(here.budget.k)
        parents[children], values[children] = node, values[node] + trees.confidence[i, children]
    every = torch.arange(1, len(parents))
    tree = rerank(0, Pool(every, torch.tensor(parents[1:] - 1), torch.tensor(values[1:])), here.budget.m)
    numbers = [tree.token(node) for node in range(len(tree))]
    ranks = here.rank(trees.texts[i, parents[numbers]], trees.tokens[i, numbers]).tolist()
    return DraftTree.of(ranks, [tree.parent(node) for node in range(len(tree))]), numbers


class BlockCoins(Coins):
    """The coins of a simulated block, [depth + 1, k + 1], in the order in which a rule of eagle2_ref uses them."""

    def __init__(self, coins: Floats) -> None:
        self.coins, self.depth, self.child = coins, 0, 0

    def seek(self, position: int) -> None: ...

    def uniform(self) -> BlockCoins:
        return self

    def __lt__(self, threshold: torch.Tensor) -> bool:
        accepted = bool(self.coins[self.depth, self.child] < float(threshold))
        self.depth, self.child = (self.depth + 1, 0) if accepted else (self.depth, self.child + 1)
        return accepted

    def categorical(self, p: torch.Tensor) -> int:
        self.depth += 1
        return invert(p, self.coins[self.depth - 1, -1])


@pytest.mark.parametrize(("rule", "fits"), [(Reject, True), (Walk, True), (RecoveredFromP, False)])
def test_simulated_texts_are_distributed_as_the_target(rule: type[Reject], fits: bool) -> None:
    """The joint distribution of depth + 2 tokens after one text; that of a faulty rule differs."""
    here, n, length = pair(8), 15_000, BUDGETS[8].depth + 2
    start = texts(1)
    written = decode(here, rule(), start.repeat(n), length, np.random.default_rng(4))
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


def test_distributions_range_from_flat_to_peaked() -> None:
    for vocab in BUDGETS:
        likeliest = pair(vocab).target.p[:, 0]
        assert likeliest.max() > 0.9
        assert likeliest.min() < 0.5


# --- vectorised statistics equal those of one text --------------------------------------------------------------------


def test_vectorised_counts_equal_those_of_single_texts() -> None:
    """Some of the tokens are impossible."""
    sequences = sample(Scorer.of(pair(8, "top_p=0.9")), RawBonus(), 24, np.random.default_rng(0))
    sums = count_campaigns(sequences, 2, 3)
    assert sums.impossible.sum() > 0
    for group in range(6):
        own = Counts.of([row(sequences, 4 * group + i) for i in range(4)]).arrays()
        for name, array in sums.arrays().items():
            np.testing.assert_allclose(array[group // 3, group % 3], own[name], err_msg=name)


def test_vectorised_strands_equal_those_of_single_texts() -> None:
    here = pair(64, "top_p=0.9")
    written = decode(here, Reject(), texts(3), LENGTH, np.random.default_rng(5))
    sequences, v = Scorer.of(here).sequences(written, np.random.default_rng(7)), np.random.default_rng(7).random((3, LENGTH))
    for i in range(3):
        p = here.p(written.texts[i, :, None], np.arange(64)[None])
        children = [[int(x) for x in offered if x != NONE] for offered in written.children[i]]
        leaves = np.array([not offered for offered in children])
        own = pit.pit_sequence(p, written.tokens[i], v[i], written.offset[i], leaves, children)
        for name, array in vars(own).items():
            np.testing.assert_allclose(getattr(sequences, name)[i], array, atol=1e-9, err_msg=name)


def row(sequences: PitSequence, i: int) -> PitSequence:
    return PitSequence(**{f.name: getattr(sequences, f.name)[i] for f in fields(PitSequence)})


# --- promises can fail ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_promises_hold_for_a_correct_decoder() -> None:
    figures = calibration(Correct(8, 0))
    assert all(claims.false_alarms(figures, evidence).held for evidence in BOUNDED)
    assert claims.tails(figures).held


@pytest.mark.usefixtures("short")
def test_evidence_fitted_to_its_data_breaks_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A likelihood ratio against the best distribution in hindsight is not an e-value."""

    def fitted(sums: Counts) -> dict[str, Floats]:
        n, total = sums.histogram, sums.histogram.sum(axis=-1, keepdims=True)
        ratio = np.log(np.where(n > 0, n, 1) / np.where(n > 0, total * WIDTHS, 1))
        return {"histogram": (n * ratio).sum(axis=-1) / np.log(10)}

    monkeypatch.setattr(campaigns, "log10_components", fitted)
    figures = calibration(Correct(8, 0))
    assert not claims.false_alarms(figures, 20.0).held
    assert not claims.false_alarms(figures, 100.0).held


@pytest.mark.usefixtures("short")
def test_faulty_decoder_breaks_the_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaigns, "Reject", RecoveredFromP)
    figures = calibration(Correct(8, 0))
    assert not any(claims.false_alarms(figures, evidence).held for evidence in BOUNDED)
    assert not claims.tails(figures).held


@pytest.mark.usefixtures("short")
def test_impossible_token_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert claims.support(calibration(Correct(8, 2))).held
    monkeypatch.setattr(campaigns, "Reject", RawBonus)
    assert not claims.support(calibration(Correct(8, 2))).held


def test_bound_that_is_too_small_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Covered("rank CDF", 1, 2000, 0.03, 100)
    assert claims.bounds(calibration(case)).held
    monkeypatch.setattr(coverage, "dkw_bound", lambda distance, *_: Bound(0.9 * distance, True, ""))
    assert not claims.bounds(calibration(case)).held


def test_overstated_power_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Promised(8192, 400)
    assert claims.stated_power(calibration(case)).held
    seen = detectable_deviation(8192).value
    monkeypatch.setattr(coverage, "detectable_deviation", lambda _n: Bound(0.8 * seen, False, ""))
    assert not claims.stated_power(calibration(case)).held


@pytest.mark.parametrize("name", ["RecoveredFromP", "RawBonus, top_p=0.9"])
def test_planted_fault_is_detected(name: str) -> None:
    """By its evidence, or by an impossible token."""
    (number,) = (i for i, fault in enumerate(FAULTS) if fault.name == name)
    (found,) = calibration(Broken(8, number, 64, 4)).detections
    assert quantile(found.verdict, 1.0) <= found.spent
    assert found.first == ("support" if "top_p" in name else "child")


def test_correct_decoder_is_never_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (campaigns, claims):
        monkeypatch.setattr(module, "FAULTS", (Fault(Reject),))
    figures = calibration(Broken(8, 0, 64, 4))
    assert set(figures.detections[0].verdict) == {np.inf}
    assert report.spread(figures.detections[0].verdict) == "never"
    assert not claims.detection(figures).held


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Campaigns of 1,024 tokens."""
    monkeypatch.setattr(campaigns, "LOOKS", 4)


def calibration(*shards: run.Shard) -> Calibration:
    header = Header(tier="quick", shards=len(shards), code="", versions={}, command="")
    lines = [ShardLine.model_validate_json(run.work(shard).model_dump_json()) for shard in shards]
    return Calibration(header, tuple(lines))


# --- the command ------------------------------------------------------------------------------------------------------


def test_interrupted_run_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished shards are not run again; a shard with an unfinished line is; other code starts again."""
    monkeypatch.setattr(run, "plan", lambda _quick: [Promised(n, 10) for n in (1000, 2000, 3000)])
    monkeypatch.setattr(report, "render", lambda _record, _out: [])
    done: list[int] = []
    work = run.work

    def noted(shard: Promised) -> ShardLine:
        done.append(shard.n)
        return work(shard)

    monkeypatch.setattr(run, "work", noted)
    (path,) = run.calibrate(tmp_path)
    whole = path.read_text()
    assert done == [1000, 2000, 3000]
    path.write_text(whole[: whole.rindex('"figures"')])
    with pytest.raises(BadInput, match="run it again"):
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


def test_committed_calibration_keeps_every_promise() -> None:
    committed = Calibration.read(COMMITTED / run.RECORD)
    assert committed.header.tier == "full"
    assert all(one["campaigns"] >= 2000 for one in committed.correct.values())
    assert [claim for claim in claims.claims(committed) if not claim.held] == []
    assert all(one.rate(evidence).value <= 1 / evidence for one in committed.alarms for evidence in BOUNDED)


def test_committed_calibration_can_be_drawn(tmp_path: Path) -> None:
    page, summary = report.render(COMMITTED / run.RECORD, tmp_path)
    assert page.read_text(encoding="utf-8").count("<svg") == 7
    assert summary.read_text(encoding="utf-8").count("holds") == len(claims.claims(Calibration.read(COMMITTED / run.RECORD)))
