"""What one process asks another."""

import asyncio
from typing import Any

import pytest
from dualfocus_server.startup.several.channel import ChannelClosed

from ...fake_engine import WAIT
from .pairs import pair


async def test_each_end_asks_the_others_functions() -> None:
    async with pair() as (one, other):

        async def double(data: bytes) -> bytes:
            return data * 2

        async def ask_back(data: bytes) -> Any:
            return await other.ask("double", data)

        one.answers["double"], other.answers["ask_back"] = double, ask_back
        large = bytes(1 << 20)
        assert await asyncio.wait_for(one.ask("ask_back", large), WAIT) == large * 2


async def test_answers_come_as_they_are_there_and_what_is_told_is_begun_in_its_order() -> None:
    async with pair() as (one, other):
        may_end, begun = asyncio.Event(), list[int]()

        async def wait() -> str:
            await may_end.wait()
            return "waited"

        async def note(number: int) -> None:
            begun.append(number)

        async def end() -> list[int]:
            may_end.set()
            return begun

        other.answers |= {"wait": wait, "note": note, "end": end}
        waiting = asyncio.create_task(one.ask("wait"))
        await asyncio.sleep(0)
        for number in range(3):
            one.tell("note", number)
        assert await asyncio.wait_for(one.ask("end"), WAIT) == [0, 1, 2]
        assert await asyncio.wait_for(waiting, WAIT) == "waited"


async def test_a_failure_is_told_to_who_asked() -> None:
    async with pair() as (one, other):

        async def fail() -> None:
            raise ValueError("broken")

        other.answers["fail"] = fail
        with pytest.raises(RuntimeError, match="fail: ValueError: broken"):
            await asyncio.wait_for(one.ask("fail"), WAIT)


async def test_where_the_other_end_is_gone_who_asks_is_told_and_who_tells_is_not() -> None:
    async with pair() as (one, other):
        is_asked = asyncio.Event()

        async def never() -> None:
            is_asked.set()
            await asyncio.Event().wait()

        other.answers["never"] = never
        asking = asyncio.create_task(one.ask("never"))
        await asyncio.wait_for(is_asked.wait(), WAIT)
        other.close()
        with pytest.raises(ChannelClosed):
            await asyncio.wait_for(asking, WAIT)
        with pytest.raises(ChannelClosed):
            await one.ask("never")
        one.tell("never")


async def test_who_stops_waiting_leaves_the_rest_as_it_was() -> None:
    async with pair() as (one, other):
        may_end = asyncio.Event()

        async def wait(word: str) -> str:
            await may_end.wait()
            return word

        other.answers["wait"] = wait
        left, stayed = (asyncio.create_task(one.ask("wait", word)) for word in ("left", "stayed"))
        await asyncio.sleep(0)
        left.cancel()
        may_end.set()
        assert await asyncio.wait_for(stayed, WAIT) == "stayed"
