"""Limits and the queue hold over the questions of all processes together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from dualfocus_engine.method.stages import Stages
from dualfocus_server.guards.admission import Admission
from dualfocus_server.guards.http_errors import TooBusy
from dualfocus_server.guards.places import OwnPlaces
from dualfocus_server.startup.several.places import LentPlaces, RemotePlaces

from ...fake_engine import WAIT
from .pairs import pair


@asynccontextmanager
async def two(places: OwnPlaces) -> AsyncIterator[tuple[Admission, Admission]]:
    """The admissions of two processes whose places are one parent's."""
    async with AsyncExitStack() as held:
        pairs = [await held.enter_async_context(pair()) for _ in range(2)]

        def tell_all(*told: Any) -> None:
            for parent, _ in pairs:
                parent.tell(*told)

        for parent, _ in pairs:
            LentPlaces(places, parent, tell_all)
        one, other = (Admission(RemotePlaces(child)) for _, child in pairs)
        yield one, other


async def come_to(places: OwnPlaces, running: int, waiting: int) -> None:
    """Wait until so many questions run and wait, which is sure to come true."""
    async with asyncio.timeout(WAIT):
        while places.counts != (running, waiting):  # noqa: ASYNC110 (it is no event)
            await asyncio.sleep(0.001)


async def test_a_question_waits_for_anothers_place_in_the_other_process_in_the_order_of_coming() -> None:
    places = OwnPlaces(running=1, queued=2)
    async with two(places) as (one, other):
        order: list[str] = []

        async def run(admission: Admission, name: str) -> None:
            with await admission.admit("a", Stages()) as slot:
                await slot.acquire()
                order.append(name)

        with await one.admit("a", Stages()) as first:
            await asyncio.wait_for(first.acquire(), WAIT)
            second = asyncio.create_task(run(other, "second"))
            await come_to(places, 1, 1)
            third = asyncio.create_task(run(one, "third"))
            await come_to(places, 1, 2)
            assert order == []
            assert await one.places.load() == await other.places.load() == 3
        await asyncio.wait_for(asyncio.gather(second, third), WAIT)
        assert order == ["second", "third"]
        await come_to(places, 0, 0)


async def test_one_more_than_run_and_wait_is_refused_whichever_process_it_came_to() -> None:
    async with two(OwnPlaces(running=1, queued=1)) as (one, other):
        with await one.admit("a", Stages()), await other.admit("b", Stages()):
            for admission in (one, other):
                with pytest.raises(TooBusy, match=r"^2 questions are running or waiting, .* Try again in a moment\.$"):
                    await admission.admit("c", Stages())
        assert (one.admitted, other.admitted) == (0, 0)


async def test_a_client_has_its_limit_over_all_processes() -> None:
    async with two(OwnPlaces(running=4, queued=4, per_client=2)) as (one, other):
        with await one.admit("a", Stages()), await other.admit("a", Stages()), await other.admit("b", Stages()):
            with pytest.raises(TooBusy, match="one client"):
                await one.admit("a", Stages())


async def test_who_leaves_while_waiting_frees_no_place_of_another() -> None:
    places = OwnPlaces(running=1, queued=2)
    async with two(places) as (one, other):
        with await one.admit("a", Stages()) as first:
            await first.acquire()
            with await other.admit("b", Stages()):
                await come_to(places, 1, 1)  # and leaves before its turn came
            await come_to(places, 1, 0)
        with await other.admit("c", Stages()) as third:
            await asyncio.wait_for(third.acquire(), WAIT)
            assert places.counts == (1, 0)


async def test_who_leaves_before_it_is_admitted_holds_no_place() -> None:
    places = OwnPlaces(running=1, queued=0)
    async with two(places) as (one, other):
        entering = asyncio.create_task(one.admit("a", Stages()))
        await asyncio.sleep(0)  # it has asked
        entering.cancel()
        await asyncio.wait({entering})
        assert one.admitted == 0
        await come_to(places, 0, 0)
        with await other.admit("b", Stages()) as slot:
            await asyncio.wait_for(slot.acquire(), WAIT)


async def test_who_is_to_be_alone_waits_for_the_questions_of_all_and_none_begins_meanwhile() -> None:
    places = OwnPlaces(running=2, queued=2)
    async with two(places) as (one, other):
        is_alone, may_end = asyncio.Event(), asyncio.Event()

        async def reset() -> None:
            async with one.places.alone():
                is_alone.set()
                await may_end.wait()

        with await other.admit("a", Stages()) as first:
            await first.acquire()
            resetting = asyncio.create_task(reset())
            async with asyncio.timeout(WAIT):
                while not places.running.locked():  # noqa: ASYNC110 (it is no event)
                    await asyncio.sleep(0.001)
            assert not is_alone.is_set()
        await asyncio.wait_for(is_alone.wait(), WAIT)
        with await other.admit("b", Stages()) as later:
            beginning = asyncio.create_task(later.acquire())
            assert await other.places.load() == 1
            assert not beginning.done()
            may_end.set()
            await asyncio.wait_for(asyncio.gather(beginning, resetting), WAIT)


async def test_an_engine_that_one_process_put_asleep_is_woken_by_the_other() -> None:
    places = OwnPlaces(running=1, queued=1)
    async with two(places) as (one, other):
        async with one.places.alone():
            one.places.is_asleep = True
        with await one.admit("a", Stages()) as slot:
            assert await other.places.load() == 1
            assert other.places.is_asleep
            beginning = asyncio.create_task(slot.acquire())
            await come_to(places, 0, 1)
            async with asyncio.timeout(WAIT), other.places.alone():
                assert other.places.is_asleep
                other.places.is_asleep = False
            await asyncio.wait_for(beginning, WAIT)
            assert not one.places.is_asleep


async def test_who_stops_waiting_to_be_alone_wakes_nobody_and_holds_nothing() -> None:
    places = OwnPlaces(running=1, queued=1)
    async with two(places) as (one, other):
        with await one.admit("a", Stages()) as first:
            await first.acquire()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), other.places.alone():
                    raise AssertionError("a question runs")
        with await other.admit("b", Stages()) as second:
            await asyncio.wait_for(second.acquire(), WAIT)


async def test_who_waits_is_told_where_the_engine_is_lost_and_nobody_gives_places_any_more() -> None:
    async with pair() as (parent, child):
        LentPlaces(OwnPlaces(running=1, queued=1), parent, lambda *told: None)
        remote = RemotePlaces(child)
        admission = Admission(remote)
        with await admission.admit("a", Stages()) as first, await admission.admit("b", Stages()) as second:
            await first.acquire()
            waiting = asyncio.create_task(second.acquire())
            await asyncio.sleep(0)
            admission.end(ValueError("lost"))
            remote.give_up()
            with pytest.raises(ValueError, match="lost"):
                await asyncio.wait_for(waiting, WAIT)
