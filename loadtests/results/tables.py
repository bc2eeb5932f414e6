"""The report's tables, as Markdown; every figure comes from a run's files."""

from collections.abc import Iterable, Sequence

from loadtests.plan import ARRIVALS
from loadtests.results.figures import (
    Cell,
    Spread,
    costs,
    latencies,
    latency,
    median,
    of_side,
    quantile,
    ratios,
    share_of,
    stages,
    throughput,
)
from loadtests.results.goals import Verdict, judge
from loadtests.results.run_files import TITLES, Run, threshold_of

SIDES = {
    "macro": "macro",
    "adaptive": "adaptive",
    "dual": "two looks",
    "drafted": "two looks, boxes drafted",
    "calls": "three calls of a client's, caching on",
    "uncached": "three calls of a client's, caching off",
    "bare": "three calls of a client's, caching and pictures off",
    "loop": "the `transformers` loop",
    "off": "`mode: off`",
    "chat": "`vllm serve`",
}
STAGES = ("queue", "fetch", "decode", "macro", "grounding", "crop", "micro", "select")
_MODES, _PAIRS = ("modes-1", "modes-4", "modes-16"), ("cached", "drafted", "uncached", "bare", "loop", "overhead")
_COUNTED = (
    ("modes-1", "macro"),
    ("modes-1", "dual"),
    ("modes-1", "drafted"),
    ("modes-16", "dual"),
    ("cached-1", "calls"),
    ("cached-16", "calls"),
    ("uncached-1", "uncached"),
    ("bare-1", "bare"),
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, its columns but the first two to the right."""
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * 2 + ['--:'] * (len(head) - 2))} |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def number(value: float) -> str:
    """Write a figure with three digits that count, down to thousandths."""
    if 0 < value < 0.001:
        return "<0.001"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(found: Spread) -> str:
    """Write a ratio with its spread."""
    return f"{found.median:.2f} ({found.least:.2f}-{found.greatest:.2f}, {found.rounds})"


def goals_table(run: Run) -> str:
    """Each goal, what was measured, and whether it is reached."""
    rows = [_goal_row(verdict) for verdict in judge(run)]
    return table(("model", "ratio", "goal", "measured", ""), rows)


def _goal_row(verdict: Verdict) -> list[str]:
    goal = verdict.goal
    bound = f"{'≤' if goal.is_ceiling else '≥'} {goal.bound:g}"
    if verdict.spread is None:
        return [goal.subject, goal.text, bound, "not measured", _cell(verdict.why)]
    return [goal.subject, goal.text, bound, spread(verdict.spread), "reached" if verdict.is_reached else "**missed**"]


def modes_table(run: Run) -> str:
    """Latency and throughput by mode and concurrency."""
    rows = []
    for subject in run.subjects:
        for experiment in _MODES:
            cells = run.of(subject, experiment)
            rows += [_mode_row(subject, of_side(cells, side), side) for side in _sides(cells)]
    return table(("model", "", "at once", "median s", "p95 s", "questions / s", "questions"), rows)


def _mode_row(subject: str, cells: Sequence[Cell], side: str) -> list[str]:
    seconds = latencies(cells)
    rate = median([throughput(cell) for cell in cells])
    figures = (median(seconds), quantile(seconds, 0.95), rate)
    return [subject, SIDES[side], str(cells[0]["users"]), *map(number, figures), str(len(seconds))]


def pairs_table(run: Run) -> str:
    """Ratios of the sides that were asked in turn."""
    rows = []
    for subject in run.subjects:
        for experiment, cells in run.cells[subject].items():
            if experiment.rpartition("-")[0] in _PAIRS:
                rows.append(_pair_row(subject, cells))
    head = ("model", "this : that", "at once", "s : s, medians", "latency ratio", "throughput ratio")
    return table(head, sorted(rows, key=lambda row: (row[0], row[1], int(row[2]))))


def _pair_row(subject: str, cells: Sequence[Cell]) -> list[str]:
    one, other = _sides(cells)
    medians = [number(median(latencies(of_side(cells, side)))) for side in (one, other)]
    compared = [spread(ratios(cells, one, other, figure)) for figure in (latency, throughput)]
    return [subject, f"{SIDES[one]} : {SIDES[other]}", str(cells[0]["users"]), " : ".join(medians), *compared]


def counts_table(run: Run) -> str:
    """Tokens, encoder runs and steps a question: what holds on any machine."""
    rows = []
    for subject in run.subjects:
        for experiment, side in _COUNTED:
            if cells := of_side(run.of(subject, experiment), side):
                rows.append(_count_row(subject, side, cells))
    head = (
        "model",
        "",
        "at once",
        "prompt tokens computed",
        "most",
        "tokens written",
        "encoder runs",
        "steps of the box",
    )
    return table(head, rows)


def _count_row(subject: str, side: str, cells: Sequence[Cell]) -> list[str]:
    computed = costs(cells, "computed_tokens")
    runs, steps = costs(cells, "encoder_runs"), _box_steps(cells)
    figures = [median(computed), max(computed), median(costs(cells, "completion_tokens"))]
    unknown = [number(median(found)) if found else "" for found in (runs, steps)]
    return [subject, SIDES[side], str(cells[0]["users"]), *map(number, figures), *unknown]


def _box_steps(cells: Sequence[Cell]) -> list[float]:
    records = [record for cell in cells for record in cell["records"] if record["cost"]]
    steps = [record["cost"]["engine_steps"].get("grounding") for record in records]
    return [step for step in steps if step is not None]


def arrivals_table(run: Run) -> str:
    """The open loop: by rate of arrival, the whole question and each of its stages."""
    rows = []
    for subject in run.subjects:
        for cell in run.of(subject, ARRIVALS):
            rows += _arrival_rows(subject, cell)
    return table(("model", "stage", "arrivals / s", "answers / s", "questions", "p50 s", "p95 s", "p99 s"), rows)


def _arrival_rows(subject: str, cell: Cell) -> list[list[str]]:
    rate = [number(arrival_rate(cell)), number(throughput(cell)), str(len(latencies([cell])))]
    timed = {"**all**": latencies([cell])} | {name: stages([cell]).get(name, []) for name in STAGES}
    return [
        [subject, name, *rate, *(number(quantile(seconds, share)) for share in (0.5, 0.95, 0.99))]
        for name, seconds in timed.items()
        if seconds
    ]


def arrival_rate(cell: Cell) -> float:
    """Return the arrivals a second that an open loop's cell had."""
    began = [record["began"] for record in cell["records"]]
    return len(began) / float(max(began))


def adaptive_lines(run: Run) -> str:
    """With which threshold second looks were skipped, and how many were."""
    lines = []
    for subject in run.subjects:
        cells = of_side(run.of(subject, "adaptive-1"), "adaptive")
        found = threshold_of(run, subject)
        if cells and found is not None:
            share = 100 * share_of(cells, "skipped")
            lines.append(f"- {subject}: `--skip-below {found:.6g}`, {share:.0f} % of second looks skipped.")
    return "\n".join(lines)


def missed_tables(run: Run) -> str:
    """For each goal that was missed: median seconds by stage of both sides."""
    parts = []
    for verdict in judge(run):
        if verdict.spread is not None and not verdict.is_reached:
            goal = verdict.goal
            cells = run.of(goal.subject, goal.experiment)
            rows = [_stage_row(goal.subject, of_side(cells, side), side) for side in (goal.side, goal.against)]
            parts.append(f"{goal.text} ({goal.subject}):\n\n{table(('model', '', *STAGES, 'all'), rows)}")
    return "\n\n".join(parts) or "No goal was missed."


def _stage_row(subject: str, cells: Sequence[Cell], side: str) -> list[str]:
    timed = stages(cells)
    known = [number(median(timed[name])) if name in timed else "" for name in STAGES]
    return [subject, SIDES[side], *known, number(median(latencies(cells)))]


def failures_lines(run: Run) -> str:
    """What could not be run, and why."""
    return "\n".join(
        f"- {subject}, {experiment}: {_cell(why)}"
        for subject, failed in run.failures.items()
        for experiment, why in failed.items()
    )


def models_lines(run: Run) -> str:
    """What the models' short names stand for."""
    return "; ".join(f"`{subject}` is {TITLES[subject]}" for subject in run.subjects)


def _sides(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell["side"] for cell in cells))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:200]
