"""What a reader sees: pages, summaries, the terminal, and the sections of the documentation. Everything is made from a record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from eagle2_ref.errors import BadInput
from harness.benchmark import result_plots as plots
from harness.benchmark import result_tables as tables
from harness.benchmark.arms import SPECULATIVE, TUNED, VANILLA
from harness.benchmark.figures import ALL, EXPECTED_ORDER, OrderCheck, figures_of, method_figures_of, order_checks
from harness.benchmark.record import (
    BenchRecord,
    BudgetPoint,
    CompareRecord,
    Divergence,
    Header,
    HeadTemperature,
    MethodFigures,
    PassLatency,
    Record,
    Reliability,
    StepBound,
    StepProfile,
    TuningResult,
    VerdictLatency,
)
from harness.benchmark.regression import ArmChange
from harness.files import write_atomic
from harness.report import layout
from harness.report.layout import Block, Command, Facts, Page, Paragraph, Section
from harness.report.tables import Table
from harness.report.text import (
    date_and_time,
    escape_markdown,
    join_names,
    join_sentences,
    number,
    plural,
    printable,
    seconds,
)

BENCH_MARK, COMPARE_MARK, REAL_MARK = "speed", "family", "smollm2"
"""Names of the sections of the documentation that the commands write with --readme; the last one for the pair smollm2."""

SECTION_FILE = Path("docs/benchmarks.md")
"""The file with these sections, relative to the root of the repository."""

PUBLISHED = "Published figures"
CUT_OFF = "This run was cut off: the figures are those of the texts that were decoded."
CUDA_CLOCK = "On this device the clock waits for all launched work, at both ends of every timed text and of every profiled part."


# --- bench ----------------------------------------------------------------------------------------------------------------


def bench_page(record: BenchRecord) -> Page:
    """The page of `eagle2 bench`."""
    batches, profiles = figures_of(record).batches, record.of(StepProfile)
    latencies, points = record.of(PassLatency), record.of(BudgetPoint)
    sections = (
        section_of("Speed", tables.speed_table(record)),
        section_of("Batches", *plots.batch_plots(batches), tables.batch_table(batches)),
        section_of(
            "Where the time goes",
            *([plots.step_plot(profiles)] if profiles else []),
            *([plots.latency_plot(latencies)] if latencies else []),
            tables.step_table(profiles),
            tables.roofline_table(record.of(StepBound)),
        ),
        section_of(
            "Draft tokens",
            *([plots.budget_plot(points, record.header.settings.m)] if points else []),
            *plots.accepted_plots(record),
            tables.tuning_table(record.of(TuningResult)),
        ),
        section_of(
            "Confidence of the head", *reliability_plots(record), tables.head_temperature_table(record.of(HeadTemperature))
        ),
        section_of("Each prompt", *plots.prompt_plots(record)),
        section_of("All figures", tables.time_table(record), tables.count_table(record), tables.ratio_table(record)),
        section_of("Time until a verdict", _untitled(tables.verdict_table(record.of(VerdictLatency)))),
    )
    return result_page("Decoding speed", bench_answer(record), bench_settings(record), record, sections, record.header.arms)


def bench_answer(record: BenchRecord) -> str:
    """The result in one sentence: speed of the head's decoding as a multiple of decoding without drafts."""
    parts = []
    for arm, what in ((SPECULATIVE, "decoding with the head is"), (TUNED, "with a tuned budget it is")):
        found = [one for one in figures_of(record).ratios if (one.arm, one.over) == (arm, VANILLA)]
        each = [f"{one.median:.2f} times as fast as without drafts at temperature {one.temperature:g}" for one in found]
        short = [one.replace(" as fast as without drafts", "") for one in each]
        parts += [f"{what} {join_names([*each[:1], *short[1:]] if arm == SPECULATIVE else short, len(each))}"] if each else []
    answer = "; ".join(parts)
    return f"{answer[0].upper()}{answer[1:]}." if answer else "No arms were compared."


def bench_settings(record: BenchRecord) -> str:
    """The settings in one line."""
    settings = record.header.settings
    further = "".join(
        f", {name.replace('_', ' ')} {value:g}"
        for name in ("head_temperature", "node", "layer")
        if (value := getattr(settings, name)) != type(settings).model_fields[name].default
    )
    return (
        f"{_common_settings(record)}; rule {settings.rule}, k = {settings.k}, depth = {settings.depth},"
        f" m = {settings.m}{further}; seed {settings.seed}. All arms run in one process and take turns, prompt by prompt."
    )


def bench_section(record: BenchRecord) -> str:
    """The section of the documentation, in Markdown."""
    found = [tables.speed_table(record), tables.batch_speedup_table(figures_of(record).batches)]
    return markdown_section(record, bench_settings(record), [table for table in found if table.rows])


def show_regression(rows: Sequence[ArmChange], before: BenchRecord, console: Console) -> None:
    """The comparison with an earlier run on the terminal."""
    header = before.header
    console.print(Text(printable(f"\nCompared with commit {header.commit}, {header.started[:10]}; in brackets: now / then.")))
    console.print(tables.regression_table(rows).terminal())
    changed = any(row.changed_counts for row in rows)
    what = "A count changed by more than 2 %" if changed else "No count changed by more than 2 %"
    console.print(Text(f"{what}. Times do not decide."), style="red" if changed else "")


# --- compare --------------------------------------------------------------------------------------------------------------


def compare_page(record: CompareRecord) -> Page:
    """The page of `eagle2 compare`."""
    settings, entrants = record.header.settings, record.header.entered
    own, equal = [one for one in entrants if one.own], [one for one in entrants if one.equal]
    title = f"All methods with {settings.m} draft tokens per pass"
    kinds = [plot for t in settings.temperatures if (plot := plots.kind_plot(record, t))]
    points = record.of(BudgetPoint)
    trees = [plots.tree_plot(points, t) for t in dict.fromkeys(point.temperature for point in points)]
    sections = (
        section_of(
            "Methods with their own options",
            plots.method_plot(record, "methods", "All methods with their own options", own),
            _untitled(tables.own_options_table(record)),
            tables.tuning_table(record.of(TuningResult)),
        ),
        section_of(
            "Greedy texts",
            Paragraph(greedy_answer(record)),
            tables.divergence_table(record.of(Divergence)),
            tables.repetition_table(record),
        ),
        section_of(
            "Equal budget",
            *([plots.method_plot(record, "equal", title, equal)] if equal else []),
            _untitled(tables.equal_budget_table(record)),
            *([Paragraph(order)] if (order := order_answer(record)) else []),
            tables.order_table(order_checks(record)),
        ),
        section_of("Cost of drafting", _untitled(tables.cost_table(record))),
        section_of(
            "Kinds of prompts",
            *kinds,
            tables.kind_table(record, "tau", "τ by kind of prompt"),
            tables.kind_table(record, "speed", "Speed as a multiple of ordinary decoding's, by kind of prompt"),
        ),
        section_of("Draft tokens and confidence, with one head", *trees, *reliability_plots(record)),
        section_of("Methods that were not run", _untitled(tables.left_out_table(record))),
        section_of(PUBLISHED, *plots.published_plots(), tables.published_table()),
    )
    arms = {
        one.arm: f"{one.title} ({one.paper}), rule {one.rule}; {', '.join(f'{k}={v}' for k, v in one.options.items())}"
        for one in entrants
    }
    page = result_page("Methods compared", compare_answer(record), compare_settings(record), record, sections, arms)
    if not is_broken(record):
        return page
    return replace(page, verdict="fault", warning=join_sentences(page.warning, greedy_answer(record)))


def compare_answer(record: CompareRecord) -> str:
    """The result in one sentence: the method with the most tokens per target pass, and the fastest one."""
    titles = {one.arm: one.title for one in record.header.entered if one.own}
    rows = [row for row in method_figures_of(record) if row.prompts == ALL and row.arm in titles]
    parts = []
    for temperature in record.header.settings.temperatures:
        if found := [row for row in rows if row.temperature == temperature]:
            longest, fastest = max(found, key=lambda row: row.tau), max(found, key=lambda row: row.speed)
            parts.append(f"at temperature {temperature:g} {_winners(longest, fastest, titles)}")
    answer = "; ".join(parts)
    return f"{answer[0].upper()}{answer[1:]}." if answer else "No methods were compared."


def _winners(longest: MethodFigures, fastest: MethodFigures, titles: dict[str, str]) -> str:
    speed = f"{fastest.speed:.2f} times as fast as ordinary decoding"
    who = f"and is the fastest, {speed}" if fastest is longest else f"and {titles[fastest.arm]} is the fastest, {speed}"
    return f"{titles[longest.arm]} emits the most tokens per target pass, {longest.tau:.2f}, {who}"


def order_answer(record: CompareRecord) -> str:
    """Whether the order of τ that the papers report holds at equal budget; empty if it cannot be checked."""
    if not (checks := order_checks(record)):
        return ""
    titles = {one.method: one.title for one in record.header.entered if one.equal}
    tiers = (", ".join(titles[name] for name in tier if name in titles) for tier in EXPECTED_ORDER)
    temperatures = dict.fromkeys(one.temperature for one in checks)
    found = [f"at temperature {t:g} {_held([one for one in checks if one.temperature == t])}" for t in temperatures]
    return (
        f"Expected order of τ at equal budget, m = {record.header.settings.m}: {' > '.join(filter(None, tiers))}. Measured:"
        f" {'; '.join(found)}."
    )


def _held(checks: Sequence[OrderCheck]) -> str:
    held = sum(one.holds is True for one in checks)
    parts = [f"it holds for {f'all {held}' if held == len(checks) else f'{held} of {len(checks)}'} pairs of neighbours"]
    for holds, what in ((False, "fails for"), (None, "is undecided for")):
        pairs = [f"{one.first.title} > {one.second.title}" for one in checks if one.holds is holds]
        parts += [f"{what} {join_names(pairs, len(pairs))}"] if pairs else []
    return join_names(parts)


def greedy_answer(record: CompareRecord) -> str:
    """Whether every method emitted the text of ordinary decoding at temperature 0."""
    if 0 not in record.header.settings.temperatures:
        return "Temperature 0, at which every method must emit the text of ordinary decoding, was not measured."
    texts = len(record.header.prompts) * sum(not one.peer for one in record.header.entered)
    differing = record.of(Divergence)
    faults = [one for one in differing if not one.is_tie]
    if not differing:
        return f"At temperature 0 all {plural(texts, 'text')} equal those of ordinary decoding, token for token."
    answer = (
        f"At temperature 0 {texts - len(differing)} of {plural(texts, 'text')} equal those of ordinary decoding, token for"
        f" token. Differences that rounding explains: {len(differing) - len(faults)}; other differences: {len(faults)}"
    )
    if not faults:
        return f"{answer}."
    arms = join_names(dict.fromkeys(one.arm for one in faults), 20)
    return f"{answer}, of {arms}. A method with other differences is BROKEN, and its figures mean nothing."


def is_broken(record: CompareRecord) -> bool:
    """Whether a greedy text differs from ordinary decoding's, and rounding does not explain it."""
    return any(not one.is_tie for one in record.of(Divergence))


def left_out_answer(record: CompareRecord) -> str:
    """The methods that were not run, with their reasons; empty if all were run."""
    left_out = "; ".join(f"{arm}: {reason}" for arm, reason in record.header.left_out.items())
    return f"Not run: {left_out}." if left_out else ""


def compare_settings(record: CompareRecord) -> str:
    """The settings in one line."""
    settings = record.header.settings
    model = f"{settings.model.model}. " if settings.model else ""
    return (
        f"{model}{_common_settings(record)}; every method with its own acceptance rule, on the network of the arm {VANILLA};"
        f" seed {settings.seed}. All methods run in one process and take turns, prompt by prompt."
    )


def compare_mark(record: CompareRecord) -> str:
    """The name of the section of the documentation that shows a record."""
    return REAL_MARK if record.header.settings.pair == REAL_MARK else COMPARE_MARK


def compare_section(record: CompareRecord) -> str:
    """The section of the documentation, in Markdown. Kinds of prompts are shown where they are those of question files."""
    found = [tables.own_options_table(record), tables.equal_budget_table(record)]
    if compare_mark(record) == REAL_MARK:
        found += [tables.kind_table(record, "tau", "τ by kind of prompt"), tables.repetition_table(record)]
    found = [table for table in found if table.rows]
    answers = (left_out_answer(record), order_answer(record), greedy_answer(record))
    return markdown_section(record, compare_settings(record), found, answers)


# --- shared ---------------------------------------------------------------------------------------------------------------


def show_page(page: Page, console: Console) -> None:
    """The tables and sentences of a page on the terminal, the answer after them. Published figures are left to the page."""
    console.print()
    for section in page.sections:
        for block in section.blocks if section.heading != PUBLISHED else ():
            if isinstance(block, Table):
                console.print(replace(block, title=block.title or section.heading).terminal())
                console.print(Text(printable(f"{block.caption}\n" if block.caption else ""), style="dim"))
            elif isinstance(block, Paragraph) and not block.kind:
                console.print(Text(f"{printable(block.text)}\n"))
    console.print(Text(printable(page.answer)))
    if page.warning:
        console.print(Text(printable(page.warning), style="red" if page.verdict == "fault" else "yellow"))
    console.print(Text(printable(page.meta), style="dim"))


def publish(page: Page, out: Path, console: Console) -> None:
    """Show a page on the terminal, and write it next to the record, with summary.md and one SVG file per plot."""
    show_page(page, console)
    path = layout.write(page, out if out.is_dir() else out.parent, files=True)[0]
    console.print(f"page: {path}", soft_wrap=True, markup=False)


def write_section(section: str, mark: str, file: Path = SECTION_FILE) -> Path:
    """Write a section of a file between its two marks, and return the path of the file."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"no file {file}: {error.strerror}", "run the command in the root of the repository") from None
    return write_atomic(file, replace_section(text, section, mark, file))


def replace_section(text: str, section: str, mark: str, file: Path) -> str:
    """The text with a new section between its marks."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise BadInput(f"{file} has no section {begin} … {end}", "put the two marks, once, where the figures belong")
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{section}\n{end}", text, flags=re.DOTALL)


def machine_line(header: Header) -> str:
    """Processor, threads, versions and commit in one line."""
    machine = header.machine
    where = [machine.get("processor", ""), machine.get("gpu", ""), f"{machine.get('threads')} of {machine.get('cores')} cores"]
    versions = ", ".join(f"{name} {value}" for name, value in header.versions.items())
    dtype = f"{header.settings.dtype} on {header.settings.device}"
    return f"{', '.join(filter(None, where))}; {dtype}; {versions}; commit {header.commit}"


def _common_settings(record: BenchRecord | CompareRecord) -> str:
    settings, prompts = record.header.settings, record.header.prompts
    kinds = len({prompt.kind for prompt in prompts})
    return (
        f"Pair {settings.pair}, {plural(len(prompts), 'prompt')} of {plural(kinds, 'kind')} ({settings.prompts}),"
        f" {settings.tokens} new tokens each, {plural(settings.repeats, 'repeat')}"
    )


def result_page(
    title: str, answer: str, settings: str, record: Record[Any, Any], sections: Iterable[Section], arms: dict[str, str]
) -> Page:
    header, footer = record.header, record.footer
    took = f" · {seconds(footer.seconds)}" if footer else ""
    memory = [(f"peak memory, {name}", f"{number(value)} MiB") for name, value in footer.memory.items()] if footer else []
    facts = (*header.machine.items(), *header.versions.items(), *((f"arm {name}", what) for name, what in arms.items()), *memory)
    measured = Section(
        "How it was measured",
        (
            Facts((*facts, ("commit", header.commit))),
            *([Paragraph(CUDA_CLOCK, "note")] if header.settings.device.startswith("cuda") else []),
            Command(header.command),
        ),
        id="measured",
    )
    return Page(
        title=title,
        answer=answer,
        sections=(*(section for section in sections if section.blocks), measured),
        show_verdict=False,
        verdict="tie" if footer else "inconclusive",
        eyebrow=header.command,
        meta=f"{settings} {machine_line(header)} · {date_and_time(header.started)}{took}",
        warning="" if footer else CUT_OFF,
    )


def section_of(heading: str, *blocks: Block) -> Section:
    """A section without its empty tables."""
    return Section(heading, tuple(block for block in blocks if not isinstance(block, Table) or block.rows), id=_anchor(heading))


def _anchor(heading: str) -> str:
    return re.sub(r"\W+", "-", heading.lower())


def _untitled(table: Table) -> Table:
    """A table without its title, which is the heading of its section."""
    return replace(table, title="")


def reliability_plots(record: Record[Any, Any]) -> Iterator[Block]:
    for temperature in record.header.settings.temperatures:
        if found := [one for one in record.of(Reliability) if one.temperature == temperature]:
            yield plots.reliability_plot(found)


def markdown_section(record: Record[Any, Any], settings: str, found: Iterable[Table], answers: Iterable[str] = ()) -> str:
    """Settings and machine, then each table with its caption, then sentences."""
    machine = f"{machine_line(record.header)}; {record.header.started[:10]}."
    blocks = [f"{escape_markdown(settings, 600)}\n{escape_markdown(machine, 600)}"]
    for table in found:
        blocks += ["\n".join(table.markdown()), *([escape_markdown(table.caption, 1200)] if table.caption else [])]
    return "\n\n".join([*blocks, *(escape_markdown(answer, 2400) for answer in answers if answer)])
