"""Whole questions are let in or refused; one that is in keeps its place."""

import asyncio
from traceback import walk_tb

import pytest
from dualfocus_engine.method.stages import Stages
from dualfocus_server.guards.admission import Admission
from dualfocus_server.guards.http_errors import Draining, TooBusy
from dualfocus_server.guards.places import OwnPlaces

from ..fake_engine import WAIT


async def test_as_many_as_may_work_and_the_rest_waits_its_turn() -> None:
    admission = Admission(OwnPlaces(running=1, queued=1))
    with await admission.admit("a", Stages()) as first, await admission.admit("b", Stages()) as second:
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(0)
        assert not waiting.done()
        first.release()
        await asyncio.wait_for(waiting, WAIT)


async def test_one_more_than_run_and_wait_is_refused() -> None:
    admission = Admission(OwnPlaces(running=1, queued=1))
    with (
        await admission.admit("a", Stages()),
        await admission.admit("b", Stages()),
        pytest.raises(TooBusy, match="2 questions"),
        await admission.admit("c", Stages()),
    ):
        pass
    assert admission.admitted == 0


async def test_one_client_leaves_room_for_others() -> None:
    admission = Admission(OwnPlaces(running=4, queued=4, per_client=2))
    with (
        await admission.admit("a", Stages()),
        await admission.admit("a", Stages()),
        await admission.admit("b", Stages()),
    ):
        with pytest.raises(TooBusy, match="one client"), await admission.admit("a", Stages()):
            pass
        assert admission.admitted == 3


async def test_a_client_over_its_limit_hears_of_that_also_where_all_is_full() -> None:
    admission = Admission(OwnPlaces(running=1, queued=1, per_client=2))
    with await admission.admit("a", Stages()), await admission.admit("a", Stages()):
        with pytest.raises(TooBusy, match="one client"), await admission.admit("a", Stages()):
            pass
        with pytest.raises(TooBusy, match="all the server takes"), await admission.admit("b", Stages()):
            pass


async def test_a_question_that_fails_gives_its_place_up() -> None:
    admission = Admission(OwnPlaces(running=1, queued=0))

    async def fail() -> None:
        with await admission.admit("a", Stages()) as slot:
            await slot.acquire()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await fail()
    with await admission.admit("a", Stages()) as slot:
        await asyncio.wait_for(slot.acquire(), WAIT)


async def test_leaving_while_waiting_frees_no_place_of_another() -> None:
    admission = Admission(OwnPlaces(running=1, queued=2))
    with await admission.admit("a", Stages()) as first:
        await first.acquire()
        with await admission.admit("b", Stages()):
            pass  # left before its turn came
        with await admission.admit("c", Stages()) as third:
            waiting = asyncio.create_task(third.acquire())
            await asyncio.sleep(0)
            assert not waiting.done()
            waiting.cancel()


async def test_closed_it_refuses_with_the_reason_and_tells_when_it_is_empty() -> None:
    admission = Admission(OwnPlaces(running=1, queued=1))
    with await admission.admit("a", Stages()):
        admission.close(Draining())
        with pytest.raises(Draining), await admission.admit("b", Stages()):
            pass
        emptied = asyncio.create_task(admission.emptied())
        await asyncio.sleep(0)
        assert not emptied.done()
    await asyncio.wait_for(emptied, WAIT)


async def test_what_it_refuses_is_kept_by_no_frame_of_the_reason() -> None:
    """Frames hold requests, and the reason is raised for as many as come until the process ends."""
    admission = Admission(OwnPlaces(running=1, queued=1))
    admission.close(Draining())

    async def refused() -> int:
        with pytest.raises(Draining) as told:
            await admission.admit("a", Stages())
        return len(list(walk_tb(told.value.__traceback__)))

    assert await refused() == await refused()


async def test_the_first_reason_for_closing_stays() -> None:
    admission = Admission(OwnPlaces(running=1, queued=1))
    admission.close(Draining())
    admission.close(ValueError("later"))
    assert isinstance(admission.closed, Draining)


async def test_ended_it_begins_none_of_those_that_wait() -> None:
    admission = Admission(OwnPlaces(running=1, queued=1))
    with await admission.admit("a", Stages()) as first, await admission.admit("b", Stages()) as second:
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        admission.close(Draining())  # alone, it lets them begin
        admission.end(ValueError("dead"))
        first.release()
        with pytest.raises(ValueError, match="dead"):
            await waiting
    assert isinstance(admission.closed, Draining)
    await asyncio.wait_for(admission.emptied(), WAIT)
