"""Memory that the pictures of requests which vLLM answers may take, decoded, until it has rendered their prompts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class AsyncMemoryBudget:
    """Bytes that are held while they are needed; a request that finds too few left waits, in the order of coming.

    The engine's `MemoryBudget` is for threads.
    """

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, amount: int) -> AsyncIterator[Callable[[], None]]:
        """Hold bytes, all of them where there are not as many; yield what lets go of them before the block's end.

        Never inside another hold.
        """
        left = min(amount, self._size)
        async with self._turn:
            while self._free < left:
                self._freed.clear()
                await self._freed.wait()
            self._free -= left

        def let_go() -> None:
            nonlocal left
            self._free, left = self._free + left, 0
            self._freed.set()

        try:
            yield let_go
        finally:
            let_go()
