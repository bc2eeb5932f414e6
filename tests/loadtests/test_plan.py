"""What a run would ask of whom."""

from collections import defaultdict
from pathlib import Path

import pytest

from loadtests.asking.order import Order
from loadtests.plan import (
    ADAPTIVE_1,
    CALIBRATION,
    PACE,
    Experiment,
    full_plan,
    hurried,
    llava_model,
    order,
    planned,
    poisson,
    quick_plan,
)

PLANS = {"full": full_plan(1.0), "quick": quick_plan()}
SUBJECT = llava_model(Path("model"))


def orders(plan: list[Experiment]) -> dict[str, Order]:
    """Every order of a plan, its servers named by their kind."""
    kinds = {kind: f"http://{kind}" for experiment in plan for kind in experiment.kinds}
    return {one.key: order(plan, one, SUBJECT, kinds, throughput=0.5) for one in plan}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_no_server_is_asked_a_question_twice(plan: list[Experiment]) -> None:
    asked: dict[str, list[int]] = defaultdict(list)
    for told in orders(plan).values():
        urls = {side.name: side.url for side in told.sides}
        for cell in [*told.warm_up, *(cell for cells in told.rounds for cell in cells)]:
            asked[urls[cell.side]] += cell.questions
    for numbers in asked.values():
        assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_sides_of_different_servers_are_asked_the_same_in_turn(plan: list[Experiment]) -> None:
    told = orders(plan)["cached-16"]
    assert len(told.rounds) == 2
    for cells in told.rounds:
        assert [cell.side for cell in cells] == ["dual", "calls"]
        assert cells[0].questions == cells[1].questions


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_calibration_knows_the_questions_that_are_asked_adaptively(plan: list[Experiment]) -> None:
    told = orders(plan)
    calibrated = [cell.questions for cells in told[CALIBRATION].rounds for cell in cells]
    adaptive = [cell.questions for cells in told[ADAPTIVE_1].rounds for cell in cells if cell.side == "adaptive"]
    assert calibrated == adaptive
    # Not on the server that is then asked adaptively: it would know the pictures.
    assert told[CALIBRATION].sides[0].url != told[ADAPTIVE_1].sides[0].url


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_at_most_two_engines_are_alive(plan: list[Experiment]) -> None:
    assert {len(experiment.kinds) for experiment in plan} <= {1, 2}


def test_a_full_run_is_over_in_time_on_the_models_it_is_made_for() -> None:
    assert planned([*full_plan(1.0), *full_plan(PACE["small"])]) <= 45 * 60


def test_a_late_run_takes_less_time_and_still_measures_everything() -> None:
    for experiment in full_plan(1.0):
        late = hurried(experiment)
        assert late.seconds == experiment.seconds / 2
        assert (late.least_rounds, late.sides, late.questions) == (1, experiment.sides, experiment.questions)


def test_of_a_fast_model_throughput_is_not_that_of_a_single_wave() -> None:
    plan = {one.key: one for one in full_plan(PACE["small"])}
    assert [plan[f"cached-{users}"].questions for users in (16, 4, 1)] == [64, 16, 1]
    assert [plan[f"cached-{users}"].warm_up for users in (16, 4, 1)] == [16, 4, 1]


def test_every_side_is_warmed_up_by_as_many_users_as_then_ask() -> None:
    plan = full_plan(PACE["small"])
    experiment = next(one for one in plan if one.key == "cached-16")
    told = order(plan, experiment, SUBJECT, {"plain": "http://plain", "vllm": "http://vllm"})
    assert [(cell.side, cell.users, len(cell.questions)) for cell in told.warm_up] == [
        ("dual", 16, 16),
        ("calls", 16, 16),
    ]


def test_the_loop_is_asked_no_more_than_it_can_answer_in_time() -> None:
    told = orders(PLANS["full"])["loop-16"]
    asked = {cell.side: (cell.users, len(cell.questions)) for cell in told.rounds[0]}
    assert asked == {"dual": (16, 16), "loop": (2, 2)}


def test_arrivals_are_poissons() -> None:
    moments = poisson(2.0, 100.0, seed=1)
    gaps = [later - sooner for sooner, later in zip([0.0, *moments], moments, strict=False)]
    mean = sum(gaps) / len(gaps)
    spread = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert len(moments) == 200
    assert mean == pytest.approx(0.5, rel=0.2)
    assert spread**0.5 == pytest.approx(mean, rel=0.25)  # as an exponential's is
    assert poisson(2.0, 100.0, seed=1) == moments
    assert poisson(2.0, 100.0, seed=2) != moments


@pytest.mark.parametrize(("rate", "count"), [(0.01, 6), (1000.0, 250)])
def test_arrivals_are_neither_too_few_nor_too_many(rate: float, count: int) -> None:
    assert len(poisson(rate, 10.0, seed=0)) == count


def test_an_open_loop_has_a_user_for_every_arrival() -> None:
    told = orders(PLANS["full"])["arrivals"]
    (cell,) = told.rounds[-1]
    assert cell.moments is not None
    assert cell.users == len(cell.moments) == len(cell.questions)
    assert told.least_rounds == len(told.rounds)
