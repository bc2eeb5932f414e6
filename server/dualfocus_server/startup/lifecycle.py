"""The server's end: told to stop, it finishes what runs; with a dead engine, it makes room for its successor."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from dualfocus_engine import EngineDead
from dualfocus_engine.backend.vllm_engine import VllmEngine

from dualfocus_server.guards.admission import Admission
from dualfocus_server.guards.refusals import Draining, EngineBusy

logger = logging.getLogger(__name__)

_LOOK_EVERY = 0.25
_ANSWER_WITHIN = 1.0
_CLOSE = (b"connection", b"close")


class Server(uvicorn.Server):
    """Uvicorn that drains on SIGTERM, watches the engine, and leaves the process's end to its caller.

    Uvicorn's own handling raises the signal again when it has stopped, which would end the process before the engine
    is stopped.
    """

    def __init__(
        self, config: uvicorn.Config, admission: Admission, drain_timeout: float, on_ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._admission = admission
        self._drain_timeout = drain_timeout
        self._on_ready = on_ready
        self._draining: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on the first SIGINT or SIGTERM, stop at once on the second."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._told_to_stop)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    def _told_to_stop(self) -> None:
        if self._draining is not None:
            self.force_exit = self.should_exit = True
            return
        self._admission.close(Draining())
        # A kept connection would only lead back here: the next one may lead to another server.
        for headers in (self.config.encoded_headers, self.server_state.default_headers):
            headers.append(_CLOSE)
        logger.info("Stopping: %d questions are still running or waiting.", self._admission.admitted)
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        try:
            await asyncio.wait_for(self._admission.emptied(), self._drain_timeout)
        except TimeoutError:
            logger.warning("Stopping with %d questions unfinished.", self._admission.admitted)
        self.should_exit = True


async def check_ready(engine: VllmEngine, timeout: float) -> None:
    """Return if the engine makes steps or answers. Raises EngineDead, EngineBusy.

    While it works it answers between two steps only, which may take seconds: then the last step speaks for it, as long
    as `engine_failure` with the same `timeout` takes it for alive.
    """
    if engine.is_dead:
        raise EngineDead
    if engine.unfinished and engine.silence < timeout:
        return
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            await engine.check_health()
    except TimeoutError:
        raise EngineBusy from None


async def _answers(engine: VllmEngine) -> bool:
    """Whether the engine's process still answers: then it has no work that it knows of."""
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            await engine.check_health()
    except (EngineDead, TimeoutError):
        return False
    return True


async def engine_failure(engine: VllmEngine, timeout: float) -> str:
    """Return, once it happens, how the engine failed: its process ended, or it made no step for `timeout` seconds."""
    while True:
        if engine.is_dead:
            return "The engine's process has ended."
        # Asked each time: what is silent without work is so from when it was last asked.
        silence = engine.silence
        if timeout and silence > timeout and not await _answers(engine):
            return f"The engine has work and made no step for {silence:.0f} s."
        await asyncio.sleep(_LOOK_EVERY)
