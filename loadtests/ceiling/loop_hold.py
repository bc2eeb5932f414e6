"""How long one piece of work holds the server's event loop, in seconds of its thread: waiting for a core is no work."""

import asyncio
import time

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/longest-hold"
_TICK_S = 0.001


class LoopHold:
    """ASGI middleware, for `--middleware`: `GET /longest-hold` tells the longest since it was asked before, in ms."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._longest = 0.0
        self._last: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._last is None:
            self._last = time.thread_time()
            self._tick()
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        longest, self._longest = self._longest, 0.0
        await JSONResponse(1000 * longest)(scope, receive, send)

    def _tick(self) -> None:
        """Note what the loop's thread has computed since the last tick: what held it, and a millisecond at most."""
        assert self._last is not None
        last, self._last = self._last, time.thread_time()
        self._longest = max(self._longest, self._last - last)
        asyncio.get_running_loop().call_later(_TICK_S, self._tick)
