"""Memory for pictures that vLLM keeps: who finds too little waits, and nobody overtakes."""

import asyncio

import pytest
from dualfocus_server.images.memory_budget import AsyncMemoryBudget


class Requests:
    """Requests that hold memory until they are told to end."""

    def __init__(self, size: int) -> None:
        self._memory = AsyncMemoryBudget(size)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.inside: list[str] = []

    async def come(self, name: str, amount: int) -> None:
        self._tasks[name] = asyncio.create_task(self._hold(name, amount))
        await self._settle()

    async def end(self, name: str) -> None:
        self._tasks[name].cancel()
        await self._settle()

    async def _hold(self, name: str, amount: int) -> None:
        async with self._memory.hold(amount):
            self.inside.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                self.inside.remove(name)

    async def _settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


async def test_as_many_as_fit_are_inside() -> None:
    requests = Requests(100)
    for name in "abc":
        await requests.come(name, 50)
    assert requests.inside == ["a", "b"]
    await requests.end("a")
    assert requests.inside == ["b", "c"]


async def test_a_large_one_is_not_overtaken() -> None:
    requests = Requests(100)
    for name, amount in (("a", 60), ("large", 90), ("small", 10)):
        await requests.come(name, amount)
    assert requests.inside == ["a"]
    await requests.end("a")
    assert requests.inside == ["large", "small"]


async def test_one_that_is_larger_than_all_holds_all() -> None:
    requests = Requests(100)
    await requests.come("a", 1)
    await requests.come("huge", 1000)
    await requests.come("b", 1)
    assert requests.inside == ["a"]
    await requests.end("a")
    assert requests.inside == ["huge"]
    await requests.end("huge")
    assert requests.inside == ["b"]


@pytest.mark.parametrize("leaves", ["large", "small"])
async def test_one_that_leaves_while_it_waits_keeps_nobody(leaves: str) -> None:
    requests = Requests(100)
    for name, amount in (("a", 60), ("large", 90), ("small", 10)):
        await requests.come(name, amount)
    await requests.end(leaves)
    assert requests.inside == (["a", "small"] if leaves == "large" else ["a"])
    await requests.end("a")
    await requests.come("all", 100)
    assert requests.inside == [name for name in ("large", "small") if name != leaves][:1]
