"""Memory for pictures of requests that vLLM answers: it has them, decoded, until it has made the prompt.

Leans on vLLM 0.32's renderer, by which all its servings make prompts of conversations (`render_chat_async`).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

# What the request that is being answered lets go of once its prompt is made.
_on_prompt: ContextVar[Callable[[], None] | None] = ContextVar("on_prompt", default=None)


class Room:
    """Bytes that pictures may take together; a request that finds too few left waits, in the order of coming."""

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


def once_the_prompt_is_made(do: Callable[[], None]) -> None:
    """Have `do` called as soon as the prompt of the conversation that this task has vLLM answer is made."""
    _on_prompt.set(do)


def tell_of_prompts(renderer: Any) -> None:
    """Have vLLM's renderer do what `once_the_prompt_is_made` was given."""
    render = renderer.render_chat_async

    async def rendered(*given: Any, **named: Any) -> Any:
        made = await render(*given, **named)
        if (do := _on_prompt.get()) is not None:
            do()
        return made

    renderer.render_chat_async = rendered
