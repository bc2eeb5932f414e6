"""Loss curves of a run, from the line per step that it writes."""

import json
from collections import defaultdict
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Steps averaged into one point, as a share of all steps.
_POINTS = 200


def draw_curves(losses: Path, picture: Path) -> None:
    """Draw every loss over the steps of all stages as a PNG, a panel each."""
    series = _series(losses)
    figure = Figure(figsize=(8, 2.2 * len(series)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(series), 1, squeeze=False, sharex=True)[:, 0]
    for panel, (name, points) in zip(panels, series.items(), strict=True):
        panel.plot(*_smoothed(points), linewidth=1)
        panel.set_ylabel(name)
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel("step")
    figure.savefig(picture, dpi=110)


def _series(losses: Path) -> dict[str, list[tuple[int, float]]]:
    """Each loss as (step of the run, value). A step that was taken again counts as taken last."""
    records: dict[tuple[str, int], dict[str, float]] = {}
    for line in losses.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # a line that was not written to its end
            continue
        key = (record.pop("stage"), record.pop("step"))
        del record["time"]
        records[key] = record
    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for step, record in enumerate(records.values(), start=1):
        for name, value in record.items():
            series[name].append((step, value))
    return series


def _smoothed(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    width = max(1, len(points) // _POINTS)
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [group[-1][0] for group in groups], [sum(v for _, v in g) / len(g) for g in groups]
