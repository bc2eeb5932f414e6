"""The server's end: told to stop, it takes no new questions and finishes those that run.

Leans on vLLM 0.32's `NoSignalServer`, uvicorn's server that several processes share out connections with.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator, MutableSequence
from contextlib import contextmanager

import uvicorn
from vllm.entrypoints.launchers.launcher import NoSignalServer

from dualfocus_server.guards.admission import Admission
from dualfocus_server.guards.http_errors import Draining

logger = logging.getLogger(__name__)
# It logs a traceback for its lifespan and for each question that is cut off.
_UVICORN = logging.getLogger("uvicorn.error")

_CLOSE = (b"connection", b"close")


class Server(NoSignalServer):  # type: ignore[misc]
    """Uvicorn that drains on SIGTERM, and leaves the process's end to its caller.

    Uvicorn's own handling raises the signal again when it has stopped, which would end the process before the engine
    is stopped. With `peer_loads`, connections are shared out among processes (vLLM's `NoSignalServer`), and who started
    this one is told of signals: it calls `stop`.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        admission: Admission,
        drain_timeout: float,
        on_ready: Callable[[], None],
        peer_loads: tuple[MutableSequence[int], int] | None = None,
    ) -> None:
        super().__init__(config, peer_loads)
        self._admission = admission
        self._drain_timeout = drain_timeout
        self._on_ready = on_ready
        self._draining: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on the first SIGINT or SIGTERM, stop at once on the second."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM) if self.peer_loads is None else ():
            loop.add_signal_handler(number, self.stop)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    def stop(self) -> None:
        """Take no more questions, finish those there are, then end; called again, end at once."""
        if self._draining is not None:
            _UVICORN.disabled = True
            self.force_exit = self.should_exit = True
            return
        self._admission.close(Draining())
        # A kept connection would only lead back here: the next one may lead to another server.
        for headers in (self.config.encoded_headers, self.server_state.default_headers):
            headers.append(_CLOSE)
        logger.info("Stopping: %d questions are still running or waiting.", self._admission.admitted)
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._drain_timeout
        try:
            async with asyncio.timeout_at(until):
                await self._admission.emptied()
        except TimeoutError:
            logger.warning("Stopping with %d questions unfinished.", self._admission.admitted)
        # A question's place is free before its answer is read: who reads slowly has what is left of the time.
        grace = self.config.timeout_graceful_shutdown or 0
        self.config.timeout_graceful_shutdown = max(int(until - loop.time()), grace)
        self.should_exit = True
