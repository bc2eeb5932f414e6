"""Eq. 7 and Eq. 8."""

import math
import random

import pytest
from dualfocus_engine.method.perplexity import macro_wins, mean_loss, perplexity

from ..builders import perplexity_by_hand


@pytest.mark.parametrize(
    ("logprobs", "loss", "value"),
    [
        ([0.0], 0.0, 1.0),
        ([math.log(0.5)], math.log(2), 2.0),
        ([math.log(0.5), math.log(0.125)], math.log(4), 4.0),
        # A mean, not a sum: a long sure answer is not more surprising than a short unsure one.
        ([math.log(0.9)] * 50, -math.log(0.9), 1 / 0.9),
        ([-1.0, -2.0, -6.0], 3.0, math.e**3),
    ],
)
def test_perplexity_of_known_answers(logprobs: list[float], loss: float, value: float) -> None:
    assert mean_loss(logprobs) == pytest.approx(loss)
    assert perplexity(mean_loss(logprobs)) == pytest.approx(value)


@pytest.mark.parametrize("seed", range(20))
def test_perplexity_is_equation_7(seed: int) -> None:
    rng = random.Random(seed)
    logprobs = [-rng.expovariate(1.0) for _ in range(rng.choice([1, 2, 17, 128, 5000]))]
    assert perplexity(mean_loss(logprobs)) == pytest.approx(perplexity_by_hand(logprobs), rel=1e-12)


def test_thousands_of_tokens_lose_no_precision() -> None:
    assert mean_loss([-0.1] * 10_000) == pytest.approx(0.1, rel=1e-15)


@pytest.mark.parametrize("logprobs", [[-1e5], [-1e5] * 3000, [-1e308, -1.0], [-math.inf], [-math.inf, 0.0]])
def test_unlikely_tokens_overflow_nothing(logprobs: list[float]) -> None:
    value = perplexity(mean_loss(logprobs))
    assert math.isfinite(value)
    assert value > 1e300


def test_losses_beyond_the_largest_number_are_still_told_apart() -> None:
    assert macro_wins(mean_loss([-1e5]), mean_loss([-2e5]))


@pytest.mark.parametrize("logprobs", [[], [math.nan], [-0.1, math.nan, -0.2]])
def test_answer_without_a_number_can_not_be_preferred(logprobs: list[float]) -> None:
    assert mean_loss(logprobs) == math.inf
    assert not macro_wins(mean_loss(logprobs), mean_loss([-1e300]))
    assert macro_wins(mean_loss([-1e300]), mean_loss(logprobs))


def test_perplexity_is_never_below_one() -> None:
    # A rounding error of the softmax can make a log-probability a little positive.
    assert perplexity(mean_loss([1e-7])) == 1.0


@pytest.mark.parametrize(
    ("macro", "micro", "wins"),
    [
        (0.5, 0.6, True),
        (0.6, 0.5, False),
        (0.5, 0.5, False),
        (0.0, 0.0, False),
        (math.inf, math.inf, False),
        (0.0, math.inf, True),
        (0.5, math.nextafter(0.5, 1), True),
    ],
)
def test_macro_wins_only_where_it_is_strictly_less_surprising(macro: float, micro: float, wins: bool) -> None:
    assert macro_wins(macro, micro) is wins
