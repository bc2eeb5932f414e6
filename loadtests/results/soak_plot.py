"""The plot of a soak: memory of both processes, KV blocks, throughput and latency over its minutes."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from loadtests.results.soak_figures import Sample

_COLOURS = ("#2f7f6f", "#e0913a")


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Write the plot as a PNG."""
    figure = Figure(figsize=(8.4, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    (memory, blocks), (rate, seconds) = figure.subplots(2, 2, sharex=True)
    _lines(memory, samples, {name: [getattr(each, name) / 1e9 for each in samples] for name in ("server", "engine")})
    _lines(blocks, samples, {"in use": [each.kv_blocks for each in samples]})
    _lines(rate, samples, {"answered": [each.rate for each in samples]})
    _lines(seconds, samples, {name: [getattr(each, name) for each in samples] for name in ("p50", "p95")})
    memory.set_ylabel("resident memory, GB")
    blocks.set_ylabel("KV blocks")
    rate.set(ylabel="questions a second", xlabel="minutes")
    seconds.set(ylabel="seconds a question", xlabel="minutes")
    figure.savefig(path, dpi=110)


def _lines(panel: Axes, samples: Sequence[Sample], values: dict[str, list[float | None]]) -> None:
    minutes = [sample.seconds / 60 for sample in samples]
    for (name, line), colour in zip(values.items(), _COLOURS, strict=False):
        # Matplotlib leaves a gap where there is no number.
        panel.plot(minutes, [float("nan") if value is None else value for value in line], color=colour, label=name)
    panel.set_ylim(0, None)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
