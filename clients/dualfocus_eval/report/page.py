"""A run's figures as text: the tables on the terminal, and `docs/results.md`."""

from collections.abc import Iterable, Sequence
from typing import Any

# What a question took: the column's head, the figure and its digits.
_WORK = {
    "looks": ("looks", 2),
    "tokens": ("computed_tokens", 0),
    "encoder runs": ("encoder_runs", 2),
    "steps": ("engine_steps", 1),
    "seconds": ("median_seconds", 3),
}
_USUAL, _SEARCH = "standard", "search, 4 looks"
_HEADS = {"questions": "asked", "iou": "mean IoU", "won_by_micro": "won by micro %"}


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown tables."""
    parts = [
        groups_table(figures),
        "Micro skipped where macro's perplexity is under a threshold (Table 9's form):",
        grid(["threshold", *(f"{row['threshold']:g}" for row in figures["thresholds"])], _skipping(figures)),
    ]
    if figures["shifts"]:
        parts += [
            "Boxes shifted by so many pixels (Table 5's form; questions that had a box):",
            grid(["pixels", *figures["shifts"]], [["chosen %", *map(percent, figures["shifts"].values())]]),
        ]
    if any(figures["perplexity"].values()):
        parts += [
            "Deciles of the answers' perplexities (Figure 3's form):",
            grid(["", *(f"{n}0 %" for n in range(1, 10))], list(_deciles(figures["perplexity"]))),
        ]
    return "\n\n".join(parts)


def groups_table(figures: dict[str, Any]) -> str:
    """The headlines of all questions and of each category as a Markdown table."""
    groups = {"overall": figures["overall"], **figures["categories"]}
    columns = figures["overall"]
    rows = [[name, *(_format_cell(column, group.get(column)) for column in columns)] for name, group in groups.items()]
    return grid(["questions on", *(_HEADS.get(column, f"{column} %") for column in columns)], rows)


def ways_table(ways: Sequence[dict[str, Any]]) -> str:
    """Ways to look at the same questions as a Markdown table, one a row: right answers, then what a question took."""
    categories = list(ways[0]["categories"])
    rows = [
        [
            found["way"],
            *(percent(found["categories"][name]["chosen"]) for name in categories),
            percent(found["overall"]["chosen"]),
            *(f"{found['costs'][name]:.{digits}f}" for name, digits in _WORK.values()),
        ]
        for found in ways
    ]
    return grid(["", *categories, "overall", *_WORK], rows)


def goals(figures: dict[str, Any]) -> str:
    """What the model was to reach, and what it reaches, as a Markdown table."""
    return grid(
        ["goal", "reached", ""], [[goal, reached, "yes" if met else "**no**"] for goal, reached, met in _goals(figures)]
    )


def _goals(figures: dict[str, Any]) -> Iterable[tuple[str, str, bool]]:
    overall, detail, whole = figures["overall"], *(figures["categories"][name] for name in ("detail", "global"))
    gain, single = detail["chosen"] - detail["macro"], max(overall["macro"], overall["micro"])
    yield "detail: chosen ≥ macro + 20 points", f"{percent(gain)} points", gain >= 0.20
    yield "detail: chosen ≥ 93 %", percent(detail["chosen"]), detail["chosen"] >= 0.93
    yield "global: chosen ≥ 96.7 % (the model before less 0.5)", percent(whole["chosen"]), whole["chosen"] >= 0.967
    told = f"{percent(whole['chosen'])} to {percent(whole['micro'])}"
    yield "global: chosen ≥ micro", told, whole["chosen"] >= whole["micro"]
    told = f"{percent(whole['chosen'])} to {percent(whole['macro'])}"
    yield "global: chosen within 1 point of macro, or better", told, whole["chosen"] >= whole["macro"] - 0.01
    told = f"{percent(overall['chosen'])} to {percent(single)}"
    yield "overall: chosen ≥ the better single turn", told, overall["chosen"] >= single
    share = figures["recovered"]
    told = "nothing to gain" if share is None else f"{percent(share)} %"
    yield "the choice recovers ≥ 80 % of the oracle's gain", told, share is None or share >= 0.8
    yield "detail: mean IoU ≥ 0.6", f"{detail['iou']:.2f}", detail["iou"] >= 0.6
    skipped, cost = _best_skipping(figures)
    yield (
        "skipping ≥ 40 % of micro turns for ≤ 0.5 point",
        f"{percent(skipped)} % for {percent(cost)}",
        skipped >= 0.4,
    )
    cost = figures["shifts"]["0"] - figures["shifts"]["10"]
    yield "a shift of 10 pixels costs ≤ 1 point", f"{percent(cost)}", cost <= 0.01
    yield from _goals_of_ways(_by_way(figures["ways_of_all"]))
    searched, dual = (_by_way(figures["ways"])[_USUAL, way]["costs"]["computed_tokens"] for way in (_SEARCH, "dual"))
    yield "search ≤ 1.3 times dual's prompt tokens", f"{searched / dual:.2f} times", searched <= 1.3 * dual


def _by_way(ways: Sequence[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(found["mix"], found["way"]): found for found in ways}


def _goals_of_ways(ways: dict[tuple[str, str], dict[str, Any]]) -> Iterable[tuple[str, str, bool]]:
    def right(mix: str, way: str, kind: str | None = None) -> float:
        found = ways[mix, way]
        share: float = (found["categories"][kind] if kind else found["overall"])["chosen"]
        return share

    found = right("several", "regions", "several")
    yield "objects apart: each read, by regions ≥ 80 %", percent(found), found >= 0.8
    found, dual = right("fine", _SEARCH), right("fine", "dual")
    told = f"{percent(found)}, dual {percent(dual)}"
    yield "fine print: by search ≥ 75 % where dual has ≤ 45 %", told, found >= 0.75 and dual <= 0.45
    found = right(_USUAL, _SEARCH)
    yield "overall: by search ≥ 94 %", percent(found), found >= 0.94


def _best_skipping(figures: dict[str, Any]) -> tuple[float, float]:
    """The largest share skipped that costs at most half a point, and what it costs."""
    full = figures["overall"]["chosen"]
    fair = [row for row in figures["thresholds"] if full - row["chosen"] <= 0.005]
    best = max(fair, key=lambda row: row["skipped"])
    return best["skipped"], full - best["chosen"]


def _skipping(figures: dict[str, Any]) -> list[list[str]]:
    return [[f"{name} %", *(percent(row[name]) for row in figures["thresholds"])] for name in ("skipped", "chosen")]


def _deciles(perplexities: dict[str, dict[str, list[float]]]) -> Iterable[list[str]]:
    for kind, answers in perplexities.items():
        for path, deciles in answers.items():
            yield [f"{kind}, {path}", *(f"{value:.2f}" for value in deciles)]


def _format_cell(name: str, value: float | None) -> str:
    if value is None:  # the category has no targets
        return ""
    return {"questions": f"{value:.0f}", "iou": f"{value:.2f}"}.get(name, percent(value))


def percent(share: float) -> str:
    """A share of 1 in percent."""
    return f"{100 * share:.1f}"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
