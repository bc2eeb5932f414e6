"""The figures of a run, all from what was asked once but for shifts and other ways to score."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from statistics import fmean, median, quantiles
from typing import Any

from dualfocus_eval.asking.passes import FIRST
from dualfocus_eval.asking.records import Record
from dualfocus_eval.report.outcomes import Judged, Outcome, covered, iou
from dualfocus_eval.samples import Benchmark, Scored

# Macro perplexities under which micro is skipped; 1 skips none, since no perplexity is below it (Eq. 7).
THRESHOLDS = (1.0, 1.01, 1.02, 1.05, 1.1, 1.2, 1.3, 1.35, 1.4, 1.45, 1.5, 1.75, 2.0, 2.5, 3.0, 5.0)
_ANSWERS: dict[str, Callable[[Judged], Scored]] = {
    "macro": lambda one: one.macro,
    "micro": lambda one: one.micro,
    "chosen": lambda one: one.chosen,
    "oracle": lambda one: one.oracle,
}
_SCORING, _SHIFT = "scoring ", "shift "
_COUNTED = ("prompt_tokens", "completion_tokens", "looks", "computed_tokens", "encoder_runs", "engine_steps")


def figures(benchmark: Benchmark, judged: Sequence[Judged]) -> dict[str, Any]:
    """All figures as a JSON object: of all questions, by category, then what is asked of all."""
    categories = sorted({one.outcome.sample.category for one in judged} - {""})
    by_category = {name: [one for one in judged if one.outcome.sample.category == name] for name in categories}
    overall = group_figures(benchmark, judged)
    return {
        "overall": overall,
        "categories": {name: group_figures(benchmark, group) for name, group in by_category.items()},
        "quoted": {name: _quoted(benchmark, map(answer, judged)) for name, answer in _ANSWERS.items()},
        "recovered": recovered(overall),
        "right_choice": _right_choice(judged),
        "thresholds": [_threshold_figures(benchmark, judged, threshold) for threshold in THRESHOLDS],
        "shifts": _shift_figures(benchmark, judged),
        "wins": _wins(judged),
        "perplexity": {
            name: _perplexities(group) for name, group in (by_category or {"overall": list(judged)}).items()
        },
        "boxes": _box_figures([one.outcome for one in judged]),
        "selections": dict(Counter(str(one.outcome.selection) for one in judged).most_common()),
    }


def group_figures(benchmark: Benchmark, group: Sequence[Judged]) -> dict[str, Any]:
    """The headline of each answer, also as other scores choose and as an oracle would; mean IoU; what micro won."""
    scorings = [name for name in group[0].varied if name.startswith(_SCORING)]
    answers = {name: headline(benchmark, map(answer, group)) for name, answer in _ANSWERS.items()}
    oracle = answers.pop("oracle")
    others = {
        name.removeprefix(_SCORING): headline(benchmark, (one.varied[name] for one in group)) for name in scorings
    }
    ious = [iou(one.outcome) for one in group if one.outcome.sample.box]
    boxes = {"iou": round(fmean(ious), 4)} if ious else {}
    won = _share(one.outcome.winner == "micro" for one in group)
    return {"questions": len(group), **answers, **others, "oracle": oracle, **boxes, "won_by_micro": won}


def recovered(group: dict[str, Any]) -> float | None:
    """How much of what the oracle gains over the better single turn the choice gains; None where it gains none."""
    single = max(group["macro"], group["micro"])
    gain = group["oracle"] - single
    return round((group["chosen"] - single) / gain, 4) if gain > 0 else None


def _right_choice(judged: Sequence[Judged]) -> dict[str, Any]:
    """How often the better answer was chosen, where one is better: of answers right or wrong, where one is right."""
    differing = [one for one in judged if one.macro.score != one.micro.score]
    share = _share(one.chosen.score == one.oracle.score for one in differing) if differing else None
    return {"questions": len(differing), "chosen": share}


def _threshold_figures(benchmark: Benchmark, judged: Sequence[Judged], threshold: float) -> dict[str, float]:
    """Table 9: share of micro turns skipped, and the headline, where macro's perplexity is under a threshold."""
    return {
        "threshold": threshold,
        "skipped": _share(one.skips(threshold) for one in judged),
        "chosen": headline(benchmark, (one.with_skipping(threshold) for one in judged)),
    }


def _shift_figures(benchmark: Benchmark, judged: Sequence[Judged]) -> dict[str, float]:
    """Table 5: the headline by how many pixels the boxes were shifted, over the questions that had a box."""
    names = [name for name in judged[0].varied if name.startswith(_SHIFT)]
    boxed = [one for one in judged if names and all(name in one.outcome.varied for name in names)]
    if not boxed:
        return {}
    moved = {name.removeprefix(_SHIFT): headline(benchmark, (one.varied[name] for one in boxed)) for name in names}
    return {"0": headline(benchmark, (one.chosen for one in boxed)), **moved}


def _wins(judged: Sequence[Judged]) -> list[dict[str, float | None]]:
    """Figure 3: by tenths of the questions, the surest macro answers first, what micro won and each answer's score."""
    ranked = sorted(judged, key=lambda one: one.outcome.macro.perplexity)
    bounds = [len(ranked) * tenth // 10 for tenth in range(11)]
    return [
        {
            "tenth": tenth,
            "macro_perplexity": _finite(ranked[end - 1].outcome.macro.perplexity),
            "won_by_micro": _share(one.outcome.winner == "micro" for one in ranked[begin:end]),
            **{
                name: round(fmean(answer(one).score for one in ranked[begin:end]), 4)
                for name, answer in _ANSWERS.items()
            },
        }
        for tenth, (begin, end) in enumerate(pairwise(bounds), 1)
        if end > begin
    ]


def _perplexities(group: Sequence[Judged]) -> dict[str, list[float]]:
    """Figure 3: the deciles of both answers' perplexities."""
    named = {
        "macro": [one.outcome.macro.perplexity for one in group],
        "micro": [one.outcome.micro.perplexity for one in group],
    }
    finite = {name: [value for value in values if math.isfinite(value)] for name, values in named.items()}
    if min(map(len, finite.values())) < 2:
        return {}
    return {name: [round(value, 4) for value in quantiles(values, n=10)] for name, values in finite.items()}


def _box_figures(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Of questions whose target is known: the share that had a box, mean IoU, mean share of it inside the crop."""
    known = [one for one in outcomes if one.sample.box]
    if not known:
        return {}
    return {
        "questions": len(known),
        "had_box": _share(one.box is not None for one in known),
        "iou": round(fmean(map(iou, known)), 4),
        "covered": round(fmean(map(covered, known)), 4),
    }


def costs(records: Iterable[Record]) -> dict[str, float]:
    """Tokens, seconds and work a question, as the server counted them; only what it told."""
    first = [record for record in records if record["variant"] == FIRST and "error" not in record]
    told = [{**(record["tokens"] or {}), **(record.get("work") or {})} for record in first]
    found = {name: [one[name] for one in told if name in one] for name in _COUNTED}
    seconds = [record["seconds"]["all"] for record in first if record["seconds"]["all"] is not None]
    means = {name: round(fmean(values), 2) for name, values in found.items() if values}
    return {**means, **({"median_seconds": round(median(seconds), 4)} if seconds else {})}


def headline(benchmark: Benchmark, scored: Iterable[Scored]) -> float:
    """Return the figure that a benchmark is quoted by first, a share of 1."""
    return next(iter(_quoted(benchmark, scored).values()))


def _quoted(benchmark: Benchmark, scored: Iterable[Scored]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in benchmark.figures(list(scored)).items()}


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _share(hits: Iterable[bool]) -> float:
    return round(fmean(float(hit) for hit in hits), 4)
