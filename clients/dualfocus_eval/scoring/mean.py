"""Accuracy, over all questions and by category: SEED's dimensions, GQA's kinds, TextVQA's one."""

from collections.abc import Iterable, Sequence
from math import fsum

from dualfocus_eval.samples import Scored


def by_category(scored: Sequence[Scored]) -> dict[str, float]:
    """Return the mean score of all questions as `accuracy`, then each category's by its name.

    Raises ValueError where nothing is scored.
    """
    figures = {"accuracy": mean_score(scored)}
    for category in categories(scored):
        figures[category] = mean_score(one for one in scored if one.sample.category == category)
    return figures


def categories(scored: Iterable[Scored]) -> list[str]:
    """Return the categories' names in order, without that of questions that have none."""
    return sorted({one.sample.category for one in scored} - {""})


def mean_score(scored: Iterable[Scored]) -> float:
    """Return the mean score, by weight. Raises ValueError where nothing is scored."""
    pairs = [(one.score, one.weight) for one in scored]
    if not pairs:
        raise ValueError("the mean of no data points")
    return fsum(score * weight for score, weight in pairs) / sum(weight for _, weight in pairs)
