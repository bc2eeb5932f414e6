"""How long one piece of work holds the server's event loop, in seconds of its thread: waiting for a core is no work."""

import asyncio
import time

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/longest-hold"
_TICK_S = 0.001


class LoopHold:
    """ASGI middleware, for `--middleware`: between two `GET /longest-hold` it watches, which takes CPU of its own.

    The second tells the longest hold since the first, in ms.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._longest = 0.0
        self._last: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        if self._last is None:
            self._longest, self._last = 0.0, time.thread_time()
            self._tick()
        else:
            self._last = None
        await JSONResponse(1000 * self._longest)(scope, receive, send)

    def _tick(self) -> None:
        """Note what the loop's thread has computed since the last tick: what held it, and a millisecond at most."""
        if self._last is None:
            return
        last, self._last = self._last, time.thread_time()
        self._longest = max(self._longest, self._last - last)
        asyncio.get_running_loop().call_later(_TICK_S, self._tick)
