"""Whether two runs differ by more than chance: a paired bootstrap interval, and McNemar's exact test."""

from collections.abc import Callable, Sequence
from math import comb
from random import Random

from tqdm import tqdm

_RESAMPLES, _SEED = 1000, 0


def bootstrap(difference: Callable[[Sequence[int]], float], units: int) -> tuple[float, float]:
    """Return the 95 % interval of a difference over questions that are drawn anew, with replacement, 1,000 times.

    `difference` is given which of the `units` were drawn: the same ones for both runs. The seed is fixed.
    """
    random = Random(_SEED)
    samples = tqdm(range(_RESAMPLES), desc="bootstrap", leave=False, disable=None)
    found = sorted(difference(random.choices(range(units), k=units)) for _ in samples)
    return found[round(0.025 * _RESAMPLES)], found[round(0.975 * _RESAMPLES) - 1]


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value that as many questions are right in one run only by chance.

    With n questions that exactly one run has right, and k the fewer of the two counts:
    p = min(1, 2 · (C(n, 0) + … + C(n, k)) / 2ⁿ), the exact binomial test of one half.
    """
    count = only_first + only_second
    tail: int = sum(comb(count, number) for number in range(min(only_first, only_second) + 1))
    return float(min(1.0, 2 * tail / 2**count))
