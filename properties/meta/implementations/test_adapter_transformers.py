"""The installed transformers through its adapter: lossless methods pass, a lossy one and a planted fault are detected."""

from __future__ import annotations

import inspect
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers.generation.utils as generation
from torch import Tensor
from typer.testing import CliRunner

from eagle2_ref.sampling import SamplingParams
from harness.case import Case
from harness.catalogue import catalogue
from harness.cli import app
from harness.distributions.exact import Law, total_variation
from harness.distributions.scoring import load_target
from harness.enumeration.exact_law import enumerate_law
from harness.implementations import connect
from harness.implementations.engine import NotApplicable
from harness.known import excuse, today
from harness.pairs import prompts, shipped
from harness.record.model import Result, Verdict
from properties.cases import StreamCase
from properties.meta.helpers.checks import result_of

LOSSLESS = ("assisted", "prompt_lookup", "early_exit")

DYNAMIC = "assisted,schedule=heuristic_transient,threshold=0.4"
"""Drafts end at an unlikely token, and their length follows the number of accepted tokens: transformers' own default."""

CERTAIN = Case("coin4", {"temperature": 0.7, "top_k": 2}, 1, 3, 3)
"""A case with so few choices that its enumeration is complete on any machine."""

STREAM = StreamCase(
    "coin4", ({"temperature": 1.0, "max_new_tokens": 12}, {"temperature": 0.7, "max_new_tokens": 5}), 500, "coin4"
)

TEXTS = [replace(prompt, tokens=prompt.tokens[: 4 + i % 3]) for i, prompt in enumerate(prompts(shipped("coin4")))]


def run_check(name: str, options: str, *case: Any, **given: Any) -> Result:
    return result_of(catalogue()[name], connect(f"transformers:{options}"), *case, prompts=TEXTS, **given)


@pytest.mark.parametrize("method", [*LOSSLESS, DYNAMIC])
def test_lossless_method_has_the_exact_law(method: str) -> None:
    """Up to rounding in float32, to which `generate` converts the logits of float64 weights too."""
    result = run_check("LAW-6", f"method={method}", CERTAIN)
    assert result.verdict == "pass", result.summary
    assert float(result.measured["executions"]) > 4 and float(result.measured["total variation"]) < 1e-6


def test_end_of_text_has_the_exact_law() -> None:
    result = run_check("LAW-6", "method=prompt_lookup", replace(CERTAIN, params={**CERTAIN.params, "eos_token_id": 1}))
    assert result.verdict == "pass", result.summary


def test_unedited_reports_the_distance_of_each_method(tmp_path: Path) -> None:
    """Rounding in float32 for lossless methods, a large distance for the ensemble."""
    done = CliRunner().invoke(app, ["unedited", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    rows = [line.split(" | ") for line in (tmp_path / "summary.md").read_text().splitlines()]
    lossless, lossy = ([float(row[4]) for row in rows if row[1:2] == [promise]] for promise in ("lossless", "lossy"))
    assert len(lossless) == 3 and max(lossless) < 1e-6 and min(lossy) > 0.1


def emitted_law(p: Tensor, q: Tensor, weight: float | None) -> Law:
    """The law of n + 1 tokens that transformers' rule emits.

    Args:
        p: target distributions, [n + 1, V]; tokens after the emitted ones are sampled from them.
        q: drafter distributions, [n, V].
        weight: of the target in an ensemble.
    """

    def run() -> list[int]:
        drafted = torch.multinomial(q, 1).T
        emitted, _ = generation._speculative_sampling(
            drafted, q.log()[None], len(q), p.log()[None], assistant_ensemble_weight=weight
        )
        tokens = emitted[0].tolist()
        return [*tokens, *(torch.multinomial(row, 1).item() for row in p[len(tokens) :])]

    return enumerate_law(run, window=len(p)).law


@pytest.mark.skipif(
    "is_done_candidate" in inspect.signature(generation._speculative_sampling).parameters,
    reason="an older transformers passes other arguments",
)
def test_acceptance_rule_is_exact_in_float64() -> None:
    """`generate` itself converts all distributions to float32."""
    generator = torch.Generator().manual_seed(2)
    p, q = ((2 * torch.randn(n, 3, generator=generator, dtype=torch.float64)).softmax(-1) for n in (3, 2))
    expected = {text: float(p[0, text[0]] * p[1, text[1]] * p[2, text[2]]) for text in product(range(3), repeat=3)}
    assert total_variation(emitted_law(p, q, None), expected) <= 1e-12
    assert total_variation(emitted_law(p, q, 0.9), expected) > 1e-3


@pytest.mark.parametrize("method", LOSSLESS)
def test_lossless_method_passes_the_sampled_check(method: str) -> None:
    result = run_check("LAW-7", f"method={method}", STREAM)
    assert result.verdict == "pass", result.summary


@pytest.mark.parametrize(
    ("name", "method"),
    [("TREE-1", "assisted"), ("TREE-1", "prompt_lookup"), ("COUNT-1", "early_exit"), ("COUNT-1", DYNAMIC)],
)
def test_recorded_blocks_pass_the_structural_checks(name: str, method: str) -> None:
    result = run_check(name, f"method={method}", pair=shipped("dice8"))
    assert result.verdict == "pass", result.summary


@pytest.mark.parametrize(("name", "case"), [("LAW-6", CERTAIN), ("LAW-7", STREAM)], ids=["LAW-6", "LAW-7"])
def test_ensemble_is_a_known_fault(name: str, case: Case | StreamCase) -> None:
    """Its documentation says that it is lossy."""
    options = "method=ensemble,weight=0.2"
    result = run_check(name, options, case)
    assert result.verdict == "fault", result.summary
    known = excuse(result, (), connect(f"transformers:{options}").lossy, today())
    assert known.verdict == "known" and known.excuse is not None and "lossy by design" in known.excuse.reason


def accepting(drafted: Tensor, _q: Tensor, length: int, logits: Tensor, **_options: Any) -> tuple[Tensor, Tensor]:
    """A faulty rule: every draft token is accepted, and the bonus token is sampled correctly."""
    bonus = torch.multinomial(logits[:, -1].softmax(-1), 1)
    return torch.cat([drafted[:, -length:], bonus], dim=-1), torch.tensor(length)


@pytest.mark.parametrize(("name", "case"), [("LAW-6", CERTAIN), ("LAW-7", STREAM)], ids=["LAW-6", "LAW-7"])
def test_planted_fault_is_detected(name: str, case: Case | StreamCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "_speculative_sampling", accepting)
    verdicts: dict[str, Verdict] = {m: run_check(name, f"method={m}", case).verdict for m in ("assisted", "prompt_lookup")}
    assert verdicts == {"assisted": "fault", "prompt_lookup": "pass"}  # it does not use the patched function


@pytest.mark.parametrize("method", LOSSLESS)
def test_reported_log_probabilities_are_the_targets(method: str) -> None:
    """After all processors, which depend on the preceding text; of accepted, recovered and bonus tokens."""
    params = {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.4, "max_new_tokens": 16}
    (output,) = connect(f"transformers:method={method},logprobs=true").open(shipped("coin4")).generate([[2, 3, 2]], [params], [5])
    model, text = load_target(shipped("coin4"), "float32"), [2, 3, 2, *output.tokens]
    assert output.logprobs is not None
    for end, reported in enumerate(output.logprobs, start=3):
        prefix = torch.tensor([text[:end]])
        with torch.inference_mode():
            law = SamplingParams.of(params).processors()(prefix, model(prefix).logits[:, -1]).log_softmax(-1)
        assert reported == pytest.approx(float(law[0, text[end]]), abs=1e-4)


@pytest.mark.parametrize(("method", "reason"), [("universal", "tokenizer"), ("mtp", "num_mtp_layers")])
def test_refusal_quotes_transformers(method: str, reason: str) -> None:
    engine = connect(f"transformers:method={method}").open(shipped("coin4"))
    with pytest.raises(NotApplicable, match=reason):
        engine.generate([[1]], [{"temperature": 1.0, "max_new_tokens": 1}], [0])


def test_text_depends_on_its_seed_alone() -> None:
    """With the constant schedule. The heuristic one carries over from call to call, so that a text depends on earlier ones."""
    prompt, params = [2, 3, 2], {"temperature": 1.0, "max_new_tokens": 12}
    engine = connect("transformers:method=assisted").open(shipped("coin4"))
    many = engine.generate([prompt] * 4, [params] * 4, [7, 8, 9, 7])
    assert many[0] == many[3] == engine.generate([prompt], [params], [7])[0] and many[0] != many[1]
