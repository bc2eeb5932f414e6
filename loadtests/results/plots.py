"""Plots of a run: latency by mode, ratios with their spread, the latency-throughput curve."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from loadtests.plan import ARRIVALS
from loadtests.results.figures import Cell, latencies, median, of_side, quantile, stages, throughput
from loadtests.results.goals import judge
from loadtests.results.run_files import Run
from loadtests.results.tables import STAGES, arrival_rate

_COLOURS = {"macro": "#7a8ba6", "adaptive": "#2f7f6f", "dual": "#e0913a", "drafted": "#b5532a"}
_PERCENTILES = ((0.5, "#2f7f6f"), (0.95, "#e0913a"), (0.99, "#b5532a"))
_EXPERIMENTS = ("modes-1", "modes-4", "modes-16")


def draw_plots(run: Run, folder: Path) -> list[str]:
    """Write the plots that the run has the figures for; returns their files' names."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for subject in run.subjects:
        if any(run.of(subject, experiment) for experiment in _EXPERIMENTS):
            drawn.append(_draw(folder / f"modes-{subject}.png", 2, partial(_modes, run, subject)))
        if cells := run.of(subject, ARRIVALS):
            drawn.append(_draw(folder / f"arrivals-{subject}.png", 2, partial(_arrivals, cells)))
    if any(verdict.spread for verdict in judge(run)):
        drawn.append(_draw(folder / "goals.png", 1, partial(_goals, run)))
    return drawn


def _draw(path: Path, columns: int, fill: Callable[[Sequence[Axes]], None]) -> str:
    figure = Figure(figsize=(4.2 * columns + 3.6 * (columns == 1), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    fill(figure.subplots(1, columns, squeeze=False)[0])
    figure.savefig(path, dpi=110)
    return path.name


def _modes(run: Run, subject: str, panels: Sequence[Axes]) -> None:
    for side, colour in _COLOURS.items():
        found = [of_side(run.of(subject, experiment), side) for experiment in _EXPERIMENTS]
        measured = [cells for cells in found if cells]
        users = [cells[0]["users"] for cells in measured]
        for panel, figure in zip(panels, (_median_latency, _median_throughput), strict=True):
            panel.plot(users, [figure(cells) for cells in measured], "o-", color=colour, label=side)
    for panel, title in zip(panels, ("seconds a question, median", "questions a second"), strict=True):
        panel.set(xlabel="questions at once", ylabel=title, ylim=(0, None))
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=8)


def _median_latency(cells: Sequence[Cell]) -> float:
    return median(latencies(cells))


def _median_throughput(cells: Sequence[Cell]) -> float:
    return median([throughput(cell) for cell in cells])


def _arrivals(cells: Sequence[Cell], panels: Sequence[Axes]) -> None:
    answered = [throughput(cell) for cell in cells]
    for share, colour in _PERCENTILES:
        found = [quantile(latencies([cell]), share) for cell in cells]
        panels[0].plot(answered, found, "o-", color=colour, label=f"p{100 * share:.0f}")
    panels[0].set(xlabel="answers a second", ylabel="seconds from arrival to answer", ylim=(0, None))
    rates = [arrival_rate(cell) for cell in cells]
    for name in STAGES:
        timed = [stages([cell]).get(name) for cell in cells]
        if all(timed):
            panels[1].plot(rates, [quantile(seconds or [], 0.95) for seconds in timed], "o-", label=name)
    panels[1].set(xlabel="arrivals a second", ylabel="seconds by stage, p95", ylim=(0, None))
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)


def _goals(run: Run, panels: Sequence[Axes]) -> None:
    """What was measured as a share of the goal: left of 1 is better for latencies, right of it for throughputs."""
    (panel,) = panels
    judged = [verdict for verdict in judge(run) if verdict.spread is not None]
    for place, verdict in enumerate(reversed(judged)):
        found, bound = verdict.spread, verdict.goal.bound
        assert found is not None
        colour = _COLOURS["adaptive" if verdict.is_reached else "drafted"]
        panel.plot([found.least / bound, found.greatest / bound], [place, place], color=colour)
        panel.plot(found.median / bound, place, "o", color=colour)
    names = [
        f"{'≤' if verdict.goal.is_ceiling else '≥'} {verdict.goal.bound:g}  {verdict.goal.subject}: "
        f"{verdict.goal.side} : {verdict.goal.against}, {verdict.goal.experiment}"
        for verdict in reversed(judged)
    ]
    panel.set_yticks(range(len(names)), names, fontsize=7)
    panel.axvline(1.0, color="#444", linewidth=1)
    panel.set_xlabel("measured / goal")
    panel.grid(alpha=0.3)
