"""The arithmetic behind the report."""

import pytest
from recorded import cell, pair, record

from loadtests.results.figures import (
    Spread,
    costs,
    latency,
    median,
    quantile,
    ratios,
    share_of,
    stages,
    threshold,
    throughput,
)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([3.0], 0.99, 3.0), ([1, 2, 3, 4, 5], 0.5, 3), ([4, 1, 3, 2], 0.5, 2.5), ([0, 10], 0.95, 9.5), ([1, 2], 1, 2)],
)
def test_quantiles_lie_between_values(values: list[float], share: float, expected: float) -> None:
    assert quantile(values, share) == pytest.approx(expected)


def test_nothing_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="no value"):
        quantile([], 0.5)
    with pytest.raises(ValueError, match="no value"):
        median([])


def test_as_many_values_as_asked_for_are_under_the_threshold() -> None:
    values = [1.1, 9.0, 2.0, 3.0, 5.0, 1.5, 4.0]
    found = threshold(values, 0.58)
    assert found == 3.5
    assert sum(value < found for value in values) == 4


@pytest.mark.parametrize(("share", "under"), [(0.0, 0), (1.0, 3)])
def test_none_or_all_can_be_under_the_threshold(share: float, under: int) -> None:
    found = threshold([1.0, 2.0, 3.0], share)
    assert found is not None
    assert sum(value < found for value in (1.0, 2.0, 3.0)) == under


def test_without_values_there_is_no_threshold() -> None:
    assert threshold([], 0.58) is None


def test_throughput_is_from_the_first_beginning_to_the_last_end() -> None:
    asked = cell("dual", 0, [record(2.0, 1.0), record(3.0, 1.5), record(1.0, 9.0, error="Failed: status 500")])
    assert throughput(asked) == pytest.approx(2 / 3.5)
    assert latency(asked) == pytest.approx(2.5)


def test_ratios_are_taken_round_by_round() -> None:
    cells = pair("dual", "macro", [(2.0, 1.0), (6.0, 2.0), (10.0, 4.0)])
    assert ratios(cells, "dual", "macro", latency) == Spread(2.5, 2.0, 3.0, 3)
    assert ratios(cells, "dual", "macro", throughput).median == pytest.approx(0.4)


def test_a_round_that_only_one_side_answered_is_left_out() -> None:
    cells = [*pair("dual", "macro", [(2.0, 1.0)]), cell("dual", 1, [record(9.0)])]
    cells += [cell("macro", 1, [record(1.0, error="Failed: status 500")])]
    assert ratios(cells, "dual", "macro", latency).rounds == 1
    with pytest.raises(ValueError, match="no round has answers of both loop and macro"):
        ratios(cells, "loop", "macro", latency)


def test_counts_leave_out_what_is_unknown() -> None:
    cells = [cell("calls", 0, [record(1.0, encoder_runs=None), record(1.0), record(1.0, error="x")])]
    assert costs(cells, "encoder_runs") == [2]
    assert costs(cells, "computed_tokens") == [100, 100]


def test_outcomes_and_stages() -> None:
    cells = [cell("adaptive", 0, [record(1.0, outcome="skipped"), record(2.0, stages={"macro": 1.0, "micro": 2.0})])]
    assert share_of(cells, "skipped") == 0.5
    assert share_of([], "skipped") == 0.0
    assert stages(cells) == {"macro": [0.25, 1.0], "micro": [2.0]}
