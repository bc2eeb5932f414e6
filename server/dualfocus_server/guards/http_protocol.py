"""Connections: as many as the system lets us have, and none that waits for ever: for a request, or to be read.

Leans on uvicorn's `H11Protocol`: `connection_made`, `handle_events` (called whenever bytes have come, and once a
request is answered), `cycle` (the latest request), `timeout_keep_alive_task` (from an answer to the next bytes),
`_should_upgrade` and `connection_lost`. Its other protocol, on httptools, bounds no headers.
"""

import asyncio
import resource
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_BYTES = 64 << 10
_HEAD_TIMEOUT_S = 15.0
# In which a peer takes some of what is left when its connection is closed.
_REST_TIMEOUT_S = 30.0
_OPEN_FILES = 65_535


def allow_many() -> None:
    """Raise the process's limit of open files, of which each connection is one, as far as the system lets us."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


class _EndingTransport:
    """A transport whose end comes: what is unsent when it is closed waits only as long as its peer takes some of it."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Close the transport once what was written is sent."""
        self._transport.close()
        self._look(None)

    def _look(self, before: int | None) -> None:
        left = self._transport.get_write_buffer_size()
        if left and left == before:
            self._transport.abort()
        elif left:
            self._loop.call_later(_REST_TIMEOUT_S, self._look, left)


class Connection(H11Protocol):
    """Closes itself where a request's line and headers are not there in time, however slowly they drip."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self.transport = cast("asyncio.Transport", _EndingTransport(transport, self.loop))
        self._wait()

    def handle_events(self) -> None:
        """Wait no longer once a request is there; wait again once it is answered and more bytes come.

        Until then it is idle, for which uvicorn has a limit. What comes may be the rest of a body that was refused. It
        is read so long: cut off at once, its sender might never read why.
        """
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_longer()
        elif self.timeout_keep_alive_task is None:
            self._wait()

    def _should_upgrade(self) -> bool:
        """Stay with HTTP/1.1, as every client that asks for an upgrade must expect.

        Java's asks for h2c with each of its first requests; uvicorn warns of that twice, and advises other packages.
        """
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the wait."""
        self._wait_no_longer()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(_HEAD_TIMEOUT_S, self.transport.close)

    def _wait_no_longer(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
