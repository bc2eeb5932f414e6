"""Eq. 7."""

import math
import random

import pytest
from dualfocus_engine.method.perplexity import mean_nll, perplexity

from ..builders import perplexity_by_hand


@pytest.mark.parametrize(
    ("logprobs", "nll", "value"),
    [
        ([0.0], 0.0, 1.0),
        ([math.log(0.5)], math.log(2), 2.0),
        ([math.log(0.5), math.log(0.125)], math.log(4), 4.0),
        # A mean, not a sum: a long confident answer beats a short doubtful one.
        ([math.log(0.9)] * 50, -math.log(0.9), 1 / 0.9),
        ([-1.0, -2.0, -6.0], 3.0, math.e**3),
    ],
)
def test_perplexity_of_known_answers(logprobs: list[float], nll: float, value: float) -> None:
    assert mean_nll(logprobs) == pytest.approx(nll)
    assert perplexity(mean_nll(logprobs)) == pytest.approx(value)


@pytest.mark.parametrize("seed", range(20))
def test_perplexity_is_equation_7(seed: int) -> None:
    rng = random.Random(seed)
    logprobs = [-rng.expovariate(1.0) for _ in range(rng.choice([1, 2, 17, 128, 5000]))]
    assert perplexity(mean_nll(logprobs)) == pytest.approx(perplexity_by_hand(logprobs), rel=1e-12)


def test_thousands_of_tokens_lose_no_precision() -> None:
    assert mean_nll([-0.1] * 10_000) == pytest.approx(0.1, rel=1e-15)


@pytest.mark.parametrize("logprobs", [[-1e5], [-1e5] * 3000, [-1e308, -1.0], [-math.inf], [-math.inf, 0.0]])
def test_unlikely_tokens_overflow_nothing(logprobs: list[float]) -> None:
    assert perplexity(mean_nll(logprobs)) == math.inf


@pytest.mark.parametrize("logprobs", [[], [math.nan], [-0.1, math.nan, -0.2]])
def test_answer_without_a_number_can_not_be_preferred(logprobs: list[float]) -> None:
    assert mean_nll(logprobs) == math.inf


def test_perplexity_is_never_below_one() -> None:
    # A rounding error of the softmax can make a log-probability a little positive.
    assert perplexity(mean_nll([1e-7])) == 1.0
