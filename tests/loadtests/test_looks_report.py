"""The section of docs/performance.md about searches, from cells as the load generator writes them."""

from typing import Any

from loadtests.looks import plan, report, ways_beside
from loadtests.plan import small_model
from loadtests.results.figures import Cell


def cell(side: str, number: int, users: int, tokens: int, seconds: float) -> Cell:
    cost: dict[str, Any] = {"looks": 3, "computed_tokens": tokens, "encoder_runs": 3, "right": side == "search"}
    record = {"began": 0.0, "late": 0.0, "seconds": seconds, "error": None, "cost": cost}
    return {"side": side, "round": number, "users": users, "records": [record] * 2}


def cells(users: int, rounds: int) -> list[Cell]:
    numbers = range(rounds)
    return [cell(*side) for n in numbers for side in (("search", n, users, 300, 1.0), ("client", n, users, 360, 2.0))]


FOUND = {f"{mix}-{users}": cells(users, rounds) for mix in ("standard", "fine") for users, rounds in ((1, 1), (16, 3))}


def test_both_searches_stand_side_by_side() -> None:
    told = report(FOUND)
    assert "| fine | mode search | 100.0 | 3.00 | 300 | 3.00 |" in told
    assert "| fine | a client's search, step by step | 0.0 | 3.00 | 360 | 3.00 |" in told
    assert "| standard | mode search : a client's | 2 : 1 | 2.00 (2.00-2.00, 3) |" in told


def test_both_searches_are_ways_beside_the_modes() -> None:
    way = {"mix": "fine", "way": "dual", "overall": {"chosen": 0.5}, "costs": {"computed_tokens": 200}}
    ways = ways_beside(FOUND, {"ways": [way, {**way, "mix": "several"}]})
    assert [(one["mix"], one["way"]) for one in ways[1:]] == [
        (mix, f"{title}; details")
        for mix in ("standard", "fine")
        for title in ("mode search", "a client's search, step by step")
    ]
    assert ways[0] == way
    assert ways[-1]["costs"] == {"computed_tokens": 360}


def test_both_sides_have_servers_of_their_own_and_the_same_scenes() -> None:
    for experiment in plan():
        assert experiment.kinds == ("plain", "vllm")
        assert experiment.mix in experiment.key
    assert small_model().key == "small"
