"""The figures of a run: accuracy by kind, thresholds (Table 9), shifts (Table 5), perplexities (Figure 3)."""

from collections.abc import Iterable, Sequence
from statistics import fmean, quantiles
from typing import Any

from dualfocus_eval.outcomes import Outcome

# Macro perplexities under which micro is skipped; 1 skips none, since no perplexity is below it (Eq. 7).
THRESHOLDS = (1.0, 1.01, 1.02, 1.05, 1.1, 1.2, 1.3, 1.35, 1.4, 1.45, 1.5, 1.75, 2.0, 2.5, 3.0, 5.0)


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """All figures as a JSON object: a group for `overall` and each kind, then what is asked of all questions."""
    kinds = sorted({outcome.question.kind for outcome in outcomes})
    by_kind = {kind: group_figures([o for o in outcomes if o.question.kind == kind]) for kind in kinds}
    overall = group_figures(outcomes)
    return {
        "overall": overall,
        **by_kind,
        "recovered": recovered(overall),
        "thresholds": [threshold_figures(outcomes, threshold) for threshold in THRESHOLDS],
        "shifts": shift_figures(outcomes),
        "perplexity": {kind: _perplexities([o for o in outcomes if o.question.kind == kind]) for kind in kinds},
    }


def group_figures(group: Sequence[Outcome]) -> dict[str, Any]:
    """Shares of right answers, also as shared scores choose and as an oracle would; mean IoU; what micro won."""
    return {
        "questions": len(group),
        "macro": _share(o.is_right(o.macro.text) for o in group),
        "micro": _share(o.is_right(o.micro.text) for o in group),
        "chosen": _share(o.is_right(o.chosen) for o in group),
        "shared": _share(o.is_right(o.shared) for o in group),
        "oracle": _share(o.is_right(o.macro.text) or o.is_right(o.micro.text) for o in group),
        "iou": round(fmean(o.overlap for o in group), 4),
        "won_by_micro": _share(o.winner == "micro" for o in group),
    }


def recovered(group: dict[str, Any]) -> float | None:
    """How much of what the oracle gains over the better single turn the choice gains; None where it gains none."""
    single = max(group["macro"], group["micro"])
    gain = group["oracle"] - single
    return round((group["chosen"] - single) / gain, 4) if gain > 0 else None


def threshold_figures(outcomes: Sequence[Outcome], threshold: float) -> dict[str, float]:
    """Table 9: share of micro turns skipped, and accuracy, where macro's perplexity is under a threshold."""
    answers = [(o, *o.with_skipping(threshold)) for o in outcomes]
    return {
        "threshold": threshold,
        "skipped": _share(skipped for _, _, skipped in answers),
        "chosen": _share(o.is_right(text) for o, text, _ in answers),
    }


def shift_figures(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Table 5: accuracy by how many pixels the boxes were shifted, over the questions that had a box."""
    boxed = [o for o in outcomes if o.shifted]
    if not boxed:
        return {}
    unmoved = {"0": _share(o.is_right(o.chosen) for o in boxed)}
    return unmoved | {str(n): _share(o.is_right(o.shifted[n]) for o in boxed) for n in boxed[0].shifted}


def _perplexities(group: Sequence[Outcome]) -> dict[str, list[float]]:
    """Figure 3: the deciles of both answers' perplexities."""
    if len(group) < 2:
        return {}
    named = {"macro": [o.macro.perplexity for o in group], "micro": [o.micro.perplexity for o in group]}
    return {name: [round(value, 4) for value in quantiles(values, n=10)] for name, values in named.items()}


def _share(hits: Iterable[bool]) -> float:
    return round(fmean(float(hit) for hit in hits), 4)
