"""Plots of a run: right answers by category, skipping by a threshold, and the perplexities of both answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualfocus_eval.report.outcomes import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PATHS = ("macro", "micro", "chosen", "oracle")
_WIDTH = 0.2
_SLANTED: dict[str, Any] = {"rotation": 30, "ha": "right", "fontsize": 7}
_ALL = "all questions"
_MOST_PANELS = 4
_COLOURS = {"macro": "#7a8ba6", "micro": "#e0913a", "chosen": "#2f7f6f", "oracle": "#c9c9c9"}


def draw_plots(outcomes: Sequence[Outcome], figures: dict[str, Any], folder: Path) -> None:
    """Write `accuracy.png`, `skipping.png` and `perplexity.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = {"overall": figures["overall"], **figures["categories"]}
    _draw(folder / "accuracy.png", 1, lambda panels: _accuracy(panels[0], groups), max(6.4, 0.9 * len(groups)))
    _draw(folder / "skipping.png", 1, lambda panels: _skipping(panels[0], figures["thresholds"]))
    kinds = _kinds(figures)
    _draw(folder / "perplexity.png", len(kinds), lambda panels: _perplexities(panels, kinds, outcomes))


def _kinds(figures: dict[str, Any]) -> list[str]:
    """Return the largest categories, as many as a row of panels holds; one panel of all questions without any."""
    categories = figures["categories"]
    largest = sorted(categories, key=lambda name: -categories[name]["questions"])[:_MOST_PANELS]
    return sorted(largest) or [_ALL]


def draw_calibration(found: dict[str, Any], path: Path) -> None:
    """Write the plot of a calibration: accuracy, and seconds a question, over the share of second looks skipped."""
    _draw(path, 2, lambda panels: _calibration(panels, found))


def _calibration(panels: "Sequence[Axes]", found: dict[str, Any]) -> None:
    skipped = [100 * point["skipped"] for point in found["curve"]]
    picked = found["picked"]
    for panel, name, scale, unit in zip(
        panels, ("accuracy", "seconds"), (100, 1), ("right answers, %", "seconds a question"), strict=True
    ):
        panel.plot(skipped, [scale * point[name] for point in found["curve"]], color=_COLOURS["chosen"])
        picked = found["picked"]
        panel.plot(100 * picked["skipped"], scale * picked[name], "o", color=_COLOURS["micro"])
        panel.annotate(
            f" --skip-below {picked['threshold']:g}", (100 * picked["skipped"], scale * picked[name]), fontsize=8
        )
        panel.set_xlabel("second looks skipped, %")
        panel.set_ylabel(unit)
        panel.grid(alpha=0.3)


def draw_search(found: dict[str, Any], path: Path) -> None:
    """Write the plot of a search's calibration: accuracy over looks, by each of what it may go by."""
    _draw(path, 1, lambda panels: _search(panels[0], found))


def _search(panel: "Axes", found: dict[str, Any]) -> None:
    for (name, told), colour in zip(found["signals"].items(), (_COLOURS["chosen"], _COLOURS["micro"]), strict=True):
        points = told["curve"]
        panel.plot(
            [one["looks"] for one in points], [100 * one["accuracy"] for one in points], color=colour, label=name
        )
        panel.plot(told["picked"]["looks"], 100 * told["picked"]["accuracy"], "o", color=colour)
    panel.set_xlabel("looks a question")
    panel.set_ylabel("right answers, %")
    panel.legend()
    panel.grid(alpha=0.3)


def draw_ways(ways: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the plot of right answers over prompt tokens computed a question: a panel a mix, a point a way to look."""
    mixes = list(dict.fromkeys(found["mix"] for found in ways))
    _draw(path, len(mixes), lambda panels: _ways(panels, mixes, ways))


def _ways(panels: "Sequence[Axes]", mixes: Sequence[str], ways: Sequence[dict[str, Any]]) -> None:
    for panel, mix in zip(panels, mixes, strict=True):
        for place, found in enumerate(one for one in ways if one["mix"] == mix):
            at = found["costs"]["computed_tokens"], 100 * found["overall"]["chosen"]
            # The later ones are smaller: of equal ones each is seen.
            panel.plot(*at, "o", color=f"C{place}", label=found["way"], markersize=12 - place)
        panel.set_title(mix)
        panel.set_xlabel("prompt tokens computed a question")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("right answers, %")
    panels[-1].legend(fontsize=7)


def _draw(path: Path, columns: int, fill: Any, inches: float | None = None) -> None:
    # Where only a server was installed, figures are told and none is drawn.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(inches or 3.2 * columns + 3.2 * (columns == 1), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    fill(figure.subplots(1, columns, squeeze=False)[0])
    figure.savefig(path, dpi=110)


def _accuracy(panel: "Axes", groups: dict[str, dict[str, float]]) -> None:
    for number, path in enumerate(_PATHS):
        places = [group + (number - 1.5) * _WIDTH for group in range(len(groups))]
        shares = [100 * group[path] for group in groups.values()]
        bars = panel.bar(places, shares, _WIDTH, label=path, color=_COLOURS[path])
        panel.bar_label(bars, fmt="%.0f", fontsize=7)
    panel.set_xticks(range(len(groups)), groups, **(_SLANTED if len(groups) > 5 else {}))
    panel.set_ylabel("right answers, %")
    panel.set_ylim(0, 108)
    panel.legend(ncols=4, fontsize=8, loc="lower right")


def _skipping(panel: "Axes", thresholds: Sequence[dict[str, float]]) -> None:
    skipped = [100 * row["skipped"] for row in thresholds]
    panel.plot(skipped, [100 * row["chosen"] for row in thresholds], marker="o", color=_COLOURS["chosen"])
    for row, share in zip(thresholds, skipped, strict=True):
        panel.annotate(f"{row['threshold']:g}", (share, 100 * row["chosen"]), fontsize=7, rotation=35)
    panel.set_xlabel("micro turns skipped, % (by macro's perplexity under the number at the point)")
    panel.set_ylabel("right answers, %")
    panel.grid(alpha=0.3)


def _perplexities(panels: "Sequence[Axes]", kinds: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    for panel, kind in zip(panels, kinds, strict=True):
        group = [outcome for outcome in outcomes if kind in (_ALL, outcome.sample.category)]
        for path in ("macro", "micro"):
            values = [min(getattr(outcome, path).perplexity, 10.0) for outcome in group]
            panel.hist(values, bins=36, range=(1, 10), alpha=0.6, label=path, color=_COLOURS[path])
        panel.set_title(kind)
        panel.set_yscale("log")
        panel.set_xlabel("perplexity (10: or more)")
    panels[0].set_ylabel("questions")
    panels[0].legend()
