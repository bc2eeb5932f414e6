"""Whether two runs differ by more than chance: a paired bootstrap interval, and McNemar's exact test."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import comb
from random import Random

from tqdm import tqdm

_RESAMPLES, _SEED = 1000, 0


def bootstrap(difference: Callable[[Mapping[int, int]], float], counts: Sequence[int]) -> tuple[float, float]:
    """Return the 95 % interval of a difference over questions that are drawn anew, with replacement, 1,000 times.

    Questions of a kind make the same difference: `counts` says how many there are of each, and `difference` is given
    how many were drawn of each that was, by its place in `counts`. The seed is fixed.
    """
    random, bounds = Random(_SEED), list(accumulate(counts))
    samples = tqdm(range(_RESAMPLES), desc="bootstrap", leave=False, disable=None)
    drawn = (random.choices(range(len(counts)), cum_weights=bounds, k=bounds[-1]) for _ in samples)
    found = sorted(difference(Counter(kinds)) for kinds in drawn)
    return found[round(0.025 * _RESAMPLES)], found[round(0.975 * _RESAMPLES) - 1]


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value that as many questions are right in one run only by chance.

    With n questions that exactly one run has right, and k the fewer of the two counts:
    p = min(1, 2 · (C(n, 0) + … + C(n, k)) / 2ⁿ), the exact binomial test of one half.
    """
    count = only_first + only_second
    tail: int = sum(comb(count, number) for number in range(min(only_first, only_second) + 1))
    return float(min(1.0, 2 * tail / 2**count))
