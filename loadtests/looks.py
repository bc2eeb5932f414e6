"""A search beside the one that a client makes by itself: `python -m loadtests.looks` (a part of `make results`).

Mode search of `dualfocus serve` in one request, and the same looks asked of `vllm serve` step by step, its prefix cache
on: what each computes one question at a time, how many questions a second each answers of 16 at once, and both beside
the modes of docs/results.md. Everything goes into docs/performance.md.
"""

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from dualfocus_eval.report.plots import draw_ways

from loadtests.asking.machine import describe
from loadtests.bench import NotRun, run_experiments, servers_of
from loadtests.plan import Asking, Experiment, small_model
from loadtests.report import put_between
from loadtests.results.figures import Cell, answered, costs, median, of_side, ratios, throughput
from loadtests.results.tables import number, spread, table

SEARCH, CLIENT = Asking("search", "plain", "search"), Asking("client", "vllm", "search-calls")
_MIXES = ("standard", "fine")
_ALONE, _AT_ONCE = 120, 32
_TITLES = {"search": "mode search", "client": "a client's search, step by step"}
_OPENING, _CLOSING = "<!-- looks -->", "<!-- /looks -->"
_REPORT = """Measured by `python -m loadtests.looks` on {machine}, {date}; the model that ships, its shipped profile.

One question at a time, {alone} questions a side; of a client's search the encoder runs are the different pictures that
it sends, which is the least there can be:

{counts}

{at_once} questions at once, both sides in turn; the ratio is the median of the rounds, in brackets the least, the
greatest and their number:

{throughputs}

![Right answers over prompt tokens computed](performance/looks.png)

The plot has the modes as asked for results.md, and both searches as asked here: questions on details, one a picture.
"""


def plan(alone: int = _ALONE, rounds: int = 5) -> list[Experiment]:
    """Return the experiments: each mix one question at a time, then many at once."""
    sides = (SEARCH, CLIENT)
    one = [Experiment(f"{mix}-1", sides, 1, alone, 1, 600, mix=mix, warm_up=4) for mix in _MIXES]
    many = [Experiment(f"{mix}-16", sides, 16, 2 * _AT_ONCE, rounds, 300, mix=mix, warm_up=_AT_ONCE) for mix in _MIXES]
    return [*one, *many]


def measure(experiments: Sequence[Experiment], folder: Path) -> dict[str, list[Cell]]:
    """Run the experiments; returns their cells by key. Raises NotRun where one failed."""
    servers = servers_of(small_model(), folder)
    try:
        run_experiments(servers, small_model(), experiments, [one.key for one in experiments], folder)
    finally:
        servers.stop_all()
    found = {one.key: json.loads((folder / f"{one.key}.json").read_text(encoding="utf-8")) for one in experiments}
    if failed := [told["failed"] for told in found.values() if "failed" in told]:
        raise NotRun("; ".join(failed))
    return {key: told["cells"] for key, told in found.items()}


def report(found: dict[str, list[Cell]]) -> str:
    """Return the section of docs/performance.md."""
    machine = describe()
    return _REPORT.format(
        machine=f"{machine['gpu'] or machine['processor']}, {machine['cores']} cores",
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        alone=len(answered(found["standard-1"][0])),
        at_once=16,
        counts=_counts_table(found),
        throughputs=_throughputs_table(found),
    )


def _counts_table(found: dict[str, list[Cell]]) -> str:
    rows = []
    for mix in _MIXES:
        for side, title in _TITLES.items():
            cells = of_side(found[f"{mix}-1"], side)
            means = [fmean(costs(cells, name)) for name in ("looks", "computed_tokens", "encoder_runs")]
            right = 100 * fmean(costs(cells, "right"))
            rows.append([mix, title, f"{right:.1f}", f"{means[0]:.2f}", f"{means[1]:.0f}", f"{means[2]:.2f}"])
    return table(("scenes", "", "right %", "looks", "prompt tokens computed", "encoder runs"), rows)


def _throughputs_table(found: dict[str, list[Cell]]) -> str:
    rows = []
    for mix in _MIXES:
        cells = found[f"{mix}-16"]
        rates = [number(median([throughput(cell) for cell in of_side(cells, side)])) for side in _TITLES]
        rows.append(
            [mix, "mode search : a client's", " : ".join(rates), spread(ratios(cells, "search", "client", throughput))]
        )
    return table(("scenes", "", "questions / s", "ratio"), rows)


def ways_beside(found: dict[str, list[Cell]], figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the ways of docs/results.md for the mixes that both searches were asked about, and these as two more.

    They are asked other questions than the modes: on details alone, one a picture.
    """
    ways = [way for way in figures["ways"] if way["mix"] in _MIXES]
    for mix in _MIXES:
        for side, title in _TITLES.items():
            cells = of_side(found[f"{mix}-1"], side)
            took = {"computed_tokens": fmean(costs(cells, "computed_tokens"))}
            right = {"chosen": fmean(costs(cells, "right"))}
            ways.append({"mix": mix, "way": f"{title}; details", "overall": right, "costs": took})
    return ways


def main() -> None:
    """Measure, and write docs/performance.md's section and plot."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.looks", description="A search beside a client's own.")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where performance.md and results/ are")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = measure(plan(), Path(folder))
    figures = json.loads((arguments.docs / "results" / "figures.json").read_text(encoding="utf-8"))
    draw_ways(ways_beside(found, figures), arguments.docs / "performance" / "looks.png")
    put_between(arguments.docs / "performance.md", (_OPENING, _CLOSING), report(found))


if __name__ == "__main__":
    main()
