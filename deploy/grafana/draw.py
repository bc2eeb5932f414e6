"""Draw the dashboard without Grafana: `python deploy/grafana/draw.py --prometheus URL --minutes 10 --out picture.png`.

Every panel's expressions are asked of a Prometheus, as Grafana asks them; the colours and axes are matplotlib's.
"""

import argparse
import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, Formatter, PercentFormatter

_DASHBOARD = Path(__file__).parent / "dashboards" / "dualfocus.json"
_VARIABLE = re.compile(r"\$(?:job|namespace|service)")
_COLUMNS = 24
_POINTS = 240
# Inches of a column and of a row of Grafana's grid.
_CELL = (0.6, 0.3)
_STYLE: Any = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.titleweight": "bold"}
# Of Grafana's units: how a value is written alone, and what is written along an axis.
_WRITTEN = {"s": "{:.2f} s", "percentunit": "{:.0%}", "reqps": "{:.1f} /s", "short": "{:.3g}", "bytes": "{:.3g} B"}
# One for each axis: how many decimals there are goes by the axis.
_ALONG: dict[str, Callable[[], Formatter]] = {
    "percentunit": lambda: PercentFormatter(1.0),
    "bytes": lambda: EngFormatter("B"),
    "s": lambda: EngFormatter("s"),
}

Series = list[tuple[str, list[float], list[float]]]


class Prometheus:
    """What a Prometheus holds of the last minutes."""

    def __init__(self, url: str, minutes: float) -> None:
        self._client = httpx.Client(base_url=url, timeout=30)
        self._end = time.time()
        self._seconds = minutes * 60

    def series(self, target: dict[str, Any]) -> Series:
        """Return the series of a panel's target: name, minutes before now, and values."""
        step = self._seconds / _POINTS
        query = _VARIABLE.sub(".*", target["expr"].replace("$__rate_interval", f"{max(int(4 * step), 15)}s"))
        asked: dict[str, str | float] = {
            "query": query,
            "start": self._end - self._seconds,
            "end": self._end,
            "step": step,
        }
        answer = self._client.get("/api/v1/query_range", params=asked).raise_for_status().json()
        return [(_name(target, row["metric"]), *self._points(row["values"])) for row in answer["data"]["result"]]

    def _points(self, values: list[tuple[float, str]]) -> tuple[list[float], list[float]]:
        return [(at - self._end) / 60 for at, _ in values], [float(value) for _, value in values]


def _name(target: dict[str, Any], labels: dict[str, str]) -> str:
    """Fill a legend's labels in, as Grafana does."""
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), target.get("legendFormat", ""))


def draw(prometheus: Prometheus, out: Path) -> None:
    """Draw every panel that has data where the dashboard has it; rows of panels keep their titles."""
    panels = json.loads(_DASHBOARD.read_text(encoding="utf-8"))["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    with mpl.rc_context(_STYLE):
        figure = pyplot.figure(figsize=(_COLUMNS * _CELL[0], rows * _CELL[1]))
        for panel in panels:
            series = [line for target in panel.get("targets", ()) for line in prometheus.series(target)]
            _draw_panel(figure, rows, panel, series)
        figure.savefig(out, dpi=80, pil_kwargs={"optimize": True})


def _draw_panel(figure: Figure, rows: int, panel: dict[str, Any], series: Series) -> None:
    place = panel["gridPos"]
    left, top = place["x"] / _COLUMNS, 1 - place["y"] / rows
    if panel["type"] == "row":
        figure.text(left + 0.01, top - 0.5 / rows, panel["title"], fontsize=11, va="center", color="#555555")
        return
    width, height = place["w"] / _COLUMNS, place["h"] / rows
    # Room for the title above, and for the numbers along the axes.
    axes = figure.add_axes((left + 0.05, top - height + 0.9 / rows, width - 0.06, height - 2.1 / rows))
    axes.set_title(panel["title"], loc="left", fontsize=8)
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    if panel["type"] == "stat":
        _draw_number(axes, series, unit)
    else:
        _draw_lines(axes, series, unit, panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal")


def _draw_number(axes: Axes, series: Series, unit: str) -> None:
    axes.axis("off")
    latest = series[0][2][-1] if series else math.nan  # a share of nothing is no number
    text = "no data" if math.isnan(latest) else _WRITTEN[unit].format(latest)
    axes.text(0, 0.4, text, fontsize=18, va="center", transform=axes.transAxes)


def _draw_lines(axes: Axes, series: Series, unit: str, stacked: bool) -> None:
    if not series:
        axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes, color="#888888")
    elif stacked:
        times = max((line[1] for line in series), key=len)
        by_time = [dict(zip(line[1], line[2], strict=True)) for line in series]
        heights = [[values.get(at, 0.0) for at in times] for values in by_time]
        axes.stackplot(times, heights, labels=[line[0] for line in series], alpha=0.7)
    else:
        for name, times, values in series:
            axes.plot(times, values, label=name, linewidth=1)
    axes.set_ylim(bottom=0)
    axes.margins(x=0)
    axes.grid(alpha=0.2)
    if unit in _ALONG:
        axes.yaxis.set_major_formatter(_ALONG[unit]())
    if series:
        axes.legend(fontsize=6, ncols=2, edgecolor="none", framealpha=0.8, loc="upper left")


def main() -> None:
    """Draw what a Prometheus holds."""
    parser = argparse.ArgumentParser(description="Draw the dashboard from a Prometheus.")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="its address")
    parser.add_argument("--minutes", type=float, default=10.0, help="how far back")
    parser.add_argument("--out", type=Path, default=Path("dashboard.png"))
    arguments = parser.parse_args()
    draw(Prometheus(arguments.prometheus, arguments.minutes), arguments.out)


if __name__ == "__main__":
    main()
