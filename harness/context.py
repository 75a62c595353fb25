"""What a check is given, and the one place that runs checks: `run_check`, for pytest, the kill matrix and replay."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eagle2_ref.errors import BadInput
from harness import activity, canary, tracebacks
from harness.catalogue import Check, name
from harness.distributions.noise import Noise, measure_noise
from harness.distributions.scoring import TargetScorer, load_target
from harness.files import write_atomic
from harness.implementations import SHAPE, SHARING, Implementation, connect, fit_vocabulary
from harness.implementations.engine import AdapterError, Engine, Missing, NotApplicable
from harness.pairs import FIXTURES, Pair, Prompt, prompts, shipped
from harness.record.model import Quantity, Result, Verdict
from harness.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NOISE_TOKENS = 96
"""Length of the texts on which rounding noise is measured."""

TOY_TEXTS = [[0], [2, 1], [3, 0, 1, 5]]

LONGEST_MESSAGE = 400
"""Characters of an engine's message that a result quotes; the file of its traceback has all."""

OPEN_ENGINES = 4
"""Engines that stay open, of those that can be closed: each may be a process with a model in it."""

log = logging.getLogger(__name__)


BYTES_PER_TEXT_DIVISOR = 128 << 20
"""A target on a CPU gets fewer texts, by one more divisor for so many bytes of weights, which a pass reads in about 10 ms."""


@dataclass(frozen=True)
class Reduction:
    """Divisors of sample sizes: the kill matrix and the tests of checks look for large faults, which few samples show.

    samples: of LAW-4. tokens: of LAW-7. instances: random trees and laws of LAW-2. texts: texts, and tokens of a text, that are
    decoded with the run's own pair; results state how many there were, and the fault size that this number detects.
    """

    samples: int = 1
    tokens: int = 1
    instances: int = 1
    texts: int = 1

    @classmethod
    def for_pair(cls, pair: Pair, device: str) -> Reduction:
        """Fewer texts for a large target on a CPU, where the time of a pass is that of reading the weights.

        It depends on the size of the checkpoint and not on a clock, so that a run can be repeated.
        """
        return cls(texts=min(8, max(1, pair.weight_bytes // BYTES_PER_TEXT_DIVISOR)) if device == "cpu" else 1)


@dataclass(frozen=True)
class Context:
    """What a check is given: the implementation under test, what it decodes, and what its output is compared with.

    Args:
        settings: the settings of the run.
        implementation: the implementation under test.
        pair: the pair to decode with.
        prompts: prompts of that pair, cut where they fill more than half of its context.
        shared: folder in which the processes of a run share measurements, if there are several.
        reduction: divisors of sample sizes.
        out: folder of the record, where tracebacks are stored; None for a check outside a run.
        committed: folder that holds PAIR/tau.json, the committed acceptance lengths.
        check_id, case_id: the property and the case that are being checked.
    """

    settings: Settings
    implementation: Implementation
    pair: Pair
    prompts: list[Prompt]
    shared: Path | None = None
    reduction: Reduction = Reduction()
    committed: Path = FIXTURES / "pairs"
    out: Path | None = None
    check_id: str = ""
    case_id: str = ""
    _engines: dict[Any, Engine] = field(default_factory=dict)
    _noise: dict[tuple[Pair, str], Noise] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings, implementation: Implementation, pair: Pair, shared: Path | None = None) -> Context:
        """A context with the prompts of a pair."""
        texts = [replace(prompt, tokens=prompt.tokens[: pair.context // 2]) for prompt in prompts(pair)]
        return cls(settings, implementation, pair, texts, shared, Reduction.for_pair(pair, settings.device))

    @classmethod
    def open_run(cls, settings: Settings, shared: Path | None = None) -> Context:
        """The context of a run: its implementation connected, its pair found."""
        if settings.impl.partition(":")[0] in SHARING:
            canary.baseline()  # before the implementation is imported, which may change torch
        implementation = connect(settings.impl, settings.time_limit, Path(settings.tape) if settings.tape else None)
        found = cls.of(settings, implementation, implementation.find_pair(settings), shared)
        slow = replace(implementation, time_limit=implementation.time_limit * found.reduction.texts)  # its passes are slow
        return replace(found, implementation=slow, out=Path(settings.out).resolve())

    def on(self, check_id: str, case_id: str = "") -> Context:
        """The same context for one check and one of its cases; engines stay open."""
        return replace(self, check_id=check_id, case_id=case_id)

    # --- results ---------------------------------------------------------------------------------------------------

    def result(
        self,
        verdict: Verdict,
        summary: str,
        *,
        work: tuple[int, str] | None = None,
        effect: tuple[float, str] | None = None,
        detectable: tuple[float, str] | None = None,
        **evidence: Any,
    ) -> Result:
        """The result of this check on this case. Quantities are given as (value, unit); `evidence` are fields of `Result`."""
        quantities = {"work": work, "effect": effect, "detectable": detectable}
        return Result(
            property=self.check_id,
            case=self.case_id,
            verdict=verdict,
            summary=summary,
            replay=self.settings.command(name(self.check_id, self.case_id)),
            **{field: Quantity(value=pair[0], unit=pair[1]) for field, pair in quantities.items() if pair},
            **evidence,
        )

    def seed(self, salt: int = 0) -> int:
        """A seed that depends on the property, the case and --seed, not on the process or the order of checks."""
        text = f"{self.check_id}[{self.case_id}] {self.settings.seed} {salt}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")

    # --- the implementation ----------------------------------------------------------------------------------------

    def open(self, pair: Pair, speculate: bool = True, **options: Any) -> Engine:
        """An engine on a pair; engines are reused by later checks.

        The run's device and dtype are passed where its constructor takes them, and of the budget k, depth and m those bounds
        that it has, as far as the vocabulary allows.
        """
        options = {option: value for option, value in options.items() if option not in SHAPE or self.implementation.takes(option)}
        options = fit_vocabulary(options, pair.vocab_size)
        common = {option: getattr(self.settings, option) for option in ("dtype", "device") if self.implementation.takes(option)}
        key = (pair, speculate, *sorted(options.items()))
        engine = self._engines.pop(key, None) or self.implementation.open(pair, speculate=speculate, **{**common, **options})
        self._engines[key] = engine  # the most recent last
        closable = [other for other in self._engines.values() if other.closable]
        for oldest in closable[:-OPEN_ENGINES]:
            oldest.close()
        return engine

    def batched(self, pair: Pair, **options: Any) -> dict[str, Any]:
        """Options for an engine that emits much text: many texts in a pass, where the implementation offers that."""
        size = self.scaled(32) if pair == self.pair else 128
        return options | ({"batch": size} if "batch" in self.implementation.capabilities else {})

    @property
    def low_precision(self) -> bool:
        """Whether rounding alone departs from the float64 law by more than samples resolve.

        Verdicts then rest on the comparison with the control arm.
        """
        return self.settings.dtype in ("bfloat16", "float16")

    def toy(self) -> Pair:
        """The smallest pair without ties that the implementation can load: coin4, or dice8, whose heads have a usual size."""
        small = shipped("coin4")
        tree: dict[str, Any] = {"k": 2, "depth": 3, "m": 6} if "budget" in self.implementation.capabilities else {}
        try:
            self.open(small, **tree).raw  # noqa: B018
        except (NotApplicable, AdapterError):
            return shipped("dice8")
        return small

    # --- what its output is compared with --------------------------------------------------------------------------

    def scaled(self, n: int, least: int = 1) -> int:
        """A number of texts or tokens of the run's own pair: n, or fewer if its target is large, but at least `least`."""
        return max(min(n, least), -(-n // self.reduction.texts))

    def some_prompts(self, n: int, least: int = 2) -> list[Prompt]:
        """n prompts, evenly spread, or fewer, as `scaled` has it; all of them in the full tier."""
        n = self.scaled(n, least)
        return self.prompts if self.settings.tier == "full" else self.prompts[:: max(1, len(self.prompts) // n)][:n]

    def scorer(self, pair: Pair) -> TargetScorer:
        """Scores of texts by the target in float64."""
        return _scorer(pair, self.settings.device)

    def target_model(self, pair: Pair, dtype: str) -> PreTrainedModel:
        """The target, run by transformers alone."""
        return _target_model(pair, dtype, self.settings.device)

    def noise(self, pair: Pair, dtype: str) -> Noise:
        """Rounding noise of a dtype in the target's logits, on texts that depend on the pair alone.

        It takes seconds: each process measures it once, and the first one for all processes of the run.
        """
        if (pair, dtype) not in self._noise:
            self._noise[pair, dtype] = self._shared_noise(pair, dtype)
        return self._noise[pair, dtype]

    def _shared_noise(self, pair: Pair, dtype: str) -> Noise:
        key = hashlib.sha256(f"{pair.target} {dtype} {self.settings.device}".encode()).hexdigest()[:16]
        file = self.shared / f"noise-{key}.json" if self.shared else None
        if file and file.exists():
            return Noise(**json.loads(file.read_text()))
        noise = self._measure_noise(pair, dtype)
        if file:
            write_atomic(file, json.dumps(asdict(noise)))
        return noise

    def _measure_noise(self, pair: Pair, dtype: str) -> Noise:
        length = min(NOISE_TOKENS, pair.context - 1)
        texts = [prompt.tokens for prompt in self.prompts[:3]] if pair == self.pair else TOY_TEXTS
        filled = tuple(tuple(token % pair.vocab_size for token in (text * length)[:length]) for text in texts)
        return _noise(pair, dtype, self.settings.device, filled)


def run_check(check: Check, case: str, context: Context) -> Result:
    """Run a check on one of its cases. Whatever stops it becomes a result too: a crash is never silent, and never a pass.

    The log receives the traceback of an unexpected exception.
    """
    context, start = context.on(check.id, case), time.perf_counter()
    with activity.checking(name(check.id, case)):
        result = _run(check, case, context)
        if context.implementation.shares_process and not canary.unchanged():
            reason = "the implementation changed what torch computes in its process"
            activity.end_process(reason)
            return context.result("inconclusive", f"{reason}: connect it through cmd:, in a process of its own", broken=True)
    return result.model_copy(update={"seconds": round(time.perf_counter() - start, 3)})


def _run(check: Check, case: str, context: Context) -> Result:
    try:
        return check.function(context, *check.arguments(case))
    except NotApplicable as error:
        return context.result("n/a", str(error))
    except AdapterError as error:
        trace = error.traceback or tracebacks.format_error(error.__cause__)
        return context.result("inconclusive", _with_place(context, str(error), trace), broken=True)
    except BadInput as error:
        return context.result("inconclusive", str(error), broken=True)
    except Missing as error:
        return context.result("inconclusive", str(error))
    except Exception as error:
        log.exception("%s failed", name(check.id, case))
        message = f"the check itself failed: {type(error).__name__}: {error}"
        return context.result("inconclusive", _with_place(context, message, tracebacks.format_error(error)))


def _with_place(context: Context, message: str, trace: str) -> str:
    """A message on one line, with the place in the author's code and the file that has the traceback."""
    if not trace:
        return message
    line = " ".join(message.split())[:LONGEST_MESSAGE]
    place = tracebacks.place(trace)
    where = f" ({place})" if place and place not in line else ""
    file = tracebacks.store(trace, name(context.check_id, context.case_id), context.out) if context.out else ""
    return f"{line}{where}{f'; traceback in {file}' if file else ''}"


@cache
def _scorer(pair: Pair, device: str) -> TargetScorer:
    return TargetScorer(_target_model(pair, "float64", device))


@cache
def _noise(pair: Pair, dtype: str, device: str, texts: tuple[tuple[int, ...], ...]) -> Noise:
    high = _target_model(pair, "float64", device)
    # The model in the dtype under test is needed here alone, and not kept in memory.
    return measure_noise(high if dtype == "float64" else load_target(pair, dtype, device), high, texts)


@cache
def _target_model(pair: Pair, dtype: str, device: str) -> PreTrainedModel:
    return load_target(pair, dtype, device)
