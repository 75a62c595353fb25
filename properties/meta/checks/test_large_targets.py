"""A large target on a CPU is judged with fewer texts. They still detect planted faults, and the weights are in memory once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from eagle2_ref.methods import METHODS
from harness.catalogue import catalogue
from harness.context import Context, Reduction, run_check
from harness.implementations import connect
from harness.implementations.reference import load_target
from harness.kill_matrix.stage import REDUCTION, Stage, is_dead
from harness.mutants import GALLERY
from harness.pairs import Pair, shipped
from harness.settings import Settings
from properties.meta.helpers.checks import context

FEWER = replace(REDUCTION, texts=4)
CHAPTERS = ("STOP", "TREE", "CACHE", "GREEDY", "TOLD", "COUNT", "BATCH")
KILLS = {
    name: (one.id, case)
    for one in reversed(GALLERY.values())
    for name, case in one.killers.items()
    if name.startswith(CHAPTERS) or name in ("LAW-3", "LAW-8")
}
"""For each property that decodes with the run's own pair, the first mutant that it must detect."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.build(tmp_path_factory.mktemp("stage"))


@pytest.mark.parametrize("name", sorted(KILLS))
def test_planted_fault_is_detected_with_a_quarter_of_the_texts(name: str, stage: Stage) -> None:
    label, case = KILLS[name]
    fewer = replace(stage.context(name, f"mutant:{label}"), reduction=FEWER)
    result = run_check(catalogue()[name], case, fewer)
    assert is_dead(result), f"{GALLERY[label].fault} {result.verdict}: {result.summary}"
    right = replace(stage.context(name, f"ref:drafter={GALLERY[label].method}"), reduction=FEWER)
    assert run_check(catalogue()[name], case, right).verdict in ("pass", "tie")


@pytest.mark.parametrize(
    ("size", "device", "texts"), [(1, "cpu", 1), (538 << 20, "cpu", 4), (99 << 30, "cpu", 8), (99 << 30, "cuda", 1)]
)
def test_reduction_follows_the_size_of_the_weights(size: int, device: str, texts: int, tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(size)  # a sparse file
    assert Reduction.for_pair(Pair("x", tmp_path, tmp_path, own=True), device) == Reduction(texts=texts)


def test_numbers_are_scaled_but_never_below_the_least() -> None:
    fewer = context(connect("ref"), reduction=FEWER)
    assert [fewer.scaled(n, least) for n, least in ((40, 1), (41, 1), (3, 1), (40, 24), (3, 9))] == [10, 11, 1, 24, 3]
    assert context(connect("ref")).scaled(40, 24) == 40
    assert (len(fewer.some_prompts(8)), len(fewer.some_prompts(3)), len(fewer.some_prompts(3, 1))) == (2, 2, 1)


def test_engines_of_one_dtype_share_the_network(tmp_path: Path) -> None:
    """Also of a folder that links to the same files, but not where a file has changed."""
    target = shipped("coin4").target
    first = load_target(str(target), "float64", "cpu")
    for file in target.iterdir():
        (tmp_path / file.name).symlink_to(file)
    assert load_target(str(tmp_path), "float64", "cpu").network is first.network
    assert load_target(str(target), "float32", "cpu").network is not first.network
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_bytes((target / "config.json").read_bytes())
    assert load_target(str(tmp_path), "float64", "cpu").network is not first.network


@pytest.mark.parametrize("method", METHODS)
def test_open_engines_of_one_method_share_the_weights(method: str) -> None:
    """An EAGLE-3 drafter reads a copy of the network; the original must stay known while the engine is open."""
    pair = shipped("coin4")
    engines = [connect(f"ref:drafter={method}").open(pair, dtype="float64").raw for _ in range(2)]
    first, second = (engine.decoder.target.network.embedding for engine in engines)
    assert first is second


def test_call_on_a_large_target_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(pair="coin4", time_limit=7.0)
    assert Context.open_run(settings).implementation.time_limit == 7.0
    monkeypatch.setattr("harness.context.BYTES_PER_TEXT_DIVISOR", shipped("coin4").weight_bytes // 3)
    assert Context.open_run(settings).implementation.time_limit == 21.0
