"""Who computes a picture that several requests begin with."""

from types import SimpleNamespace
from typing import Any

import pytest
from dualfocus_engine.backend.engine_core.prefill_gate import PrefillGate
from vllm.v1.request import RequestStatus

BEFORE = (1, 2, 3, 4)


def request(**changes: Any) -> Any:
    """A request of a picture of 64 tokens behind four others, waiting to be scheduled."""
    place = SimpleNamespace(offset=len(BEFORE), length=64)
    fields: dict[str, Any] = {
        "status": RequestStatus.WAITING,
        "mm_features": [SimpleNamespace(identifier="picture", mm_position=place)],
        "prompt_token_ids": [*BEFORE, *[0] * 64, 9],
        "num_computed_tokens": 0,
        "skip_reading_prefix_cache": False,
        "lora_request": None,
        "cache_salt": None,
    }
    return SimpleNamespace(**(fields | changes))


@pytest.fixture
def gate() -> PrefillGate:
    return PrefillGate(block_size=16)


@pytest.fixture
def leader(gate: PrefillGate) -> Any:
    """A request that was let through, and has begun: what stands before its picture is computed."""
    begun = request()
    assert gate.may_begin(begun, 0)
    begun.status, begun.num_computed_tokens = RequestStatus.RUNNING, len(BEFORE)
    return begun


def test_the_other_turn_waits_until_the_picture_is_computed(gate: PrefillGate, leader: Any) -> None:
    other = request()
    assert not gate.may_begin(other, 0)
    assert gate.may_begin(leader, len(BEFORE)), "who computes it goes on"
    leader.num_computed_tokens = len(BEFORE) + 64
    assert gate.may_begin(other, 0)


def test_one_that_finds_the_picture_cached_begins_in_the_same_step(gate: PrefillGate, leader: Any) -> None:
    assert gate.may_begin(request(), 32)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt_token_ids": [5, 6, 7, 8, *[0] * 64]},
        {"cache_salt": "mine"},
        {"lora_request": SimpleNamespace(lora_name="mine")},
        {"mm_features": [SimpleNamespace(identifier="another", mm_position=SimpleNamespace(offset=4, length=64))]},
        {"skip_reading_prefix_cache": True},
        {"status": RequestStatus.RUNNING},
    ],
    ids=["other words before it", "other salt", "other adapter", "other picture", "no cache read", "begun already"],
)
def test_one_that_would_find_nothing_does_not_wait(gate: PrefillGate, leader: Any, changes: dict[str, Any]) -> None:
    assert gate.may_begin(request(**changes), 0)


@pytest.mark.parametrize(("block_size", "waits"), [(64, True), (68, True), (69, False), (528, False)])
def test_where_no_block_ends_in_the_picture_nobody_waits(block_size: int, waits: bool) -> None:
    gate = PrefillGate(block_size)
    leader = request()
    assert gate.may_begin(leader, 0)
    leader.status = RequestStatus.RUNNING
    assert gate.may_begin(request(), 0) is not waits


def test_nobody_waits_for_one_that_ended(gate: PrefillGate, leader: Any) -> None:
    gate.forget(leader)
    assert gate.may_begin(request(), 0)


@pytest.mark.parametrize("status", [RequestStatus.WAITING, RequestStatus.PREEMPTED])
def test_nobody_waits_for_one_that_waits_itself(gate: PrefillGate, leader: Any, status: RequestStatus) -> None:
    leader.status = status
    assert gate.may_begin(request(), 0)


def test_nothing_is_kept_of_requests_that_ended(gate: PrefillGate, leader: Any) -> None:
    gate.forget(request())
    gate.forget(SimpleNamespace(mm_features=[]))  # type: ignore[arg-type]
    assert list(gate._by_opening.values()) == [leader]
    gate.forget(leader)
    assert not gate._by_opening
