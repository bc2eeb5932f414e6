"""The watchdog: notices that the engine's process ended, or that one of its ranks has work and makes no step."""

import asyncio
import time

from dualfocus_engine import EngineDead
from dualfocus_engine.backend.vllm_engine import VllmEngine

from dualfocus_server.guards.http_errors import EngineBusy

_POLL_INTERVAL_S = 0.25
_HEALTH_TIMEOUT_S = 1.0


class Watchdog:
    """Watches an engine, which counts as dead after `timeout` seconds without a step while it has work (0: never).

    Of several data-parallel ranks, each is watched: one that hangs is dead to the pictures that are its own.
    """

    def __init__(self, engine: VllmEngine, timeout: float) -> None:
        self._engine = engine
        self._timeout = timeout
        self._busy_since: dict[int, float] = {}  # by rank

    async def until_failure(self) -> str:
        """Return, once it happens, how the engine failed."""
        while True:
            if self._engine.is_dead:
                return "The engine's process has ended."
            stalled = self._seconds_stalled()
            if self._timeout and stalled > self._timeout and not await self._answers():
                return f"The engine has work and made no step for {stalled:.0f} s."
            await asyncio.sleep(_POLL_INTERVAL_S)

    async def check_ready(self) -> None:
        """Return if the engine makes steps or answers. Raises EngineDead, EngineBusy.

        While it works it answers between two steps only, which may take seconds: then its last step speaks for it, as
        long as `until_failure` takes it for alive.
        """
        if self._engine.is_dead:
            raise EngineDead
        stalled = self._seconds_stalled()
        if self._engine.unfinished and stalled < self._timeout:
            return
        try:
            async with asyncio.timeout(_HEALTH_TIMEOUT_S):
                await self._engine.check_health()
        except TimeoutError:
            raise EngineBusy from None

    def _seconds_stalled(self) -> float:
        """Return the longest that a rank with work has made no step, in seconds."""
        now = time.monotonic()
        self._busy_since = {rank: self._busy_since.get(rank, now) for rank in self._engine.busy_ranks}
        silences = (now - max(since, self._engine.last_step(rank)) for rank, since in self._busy_since.items())
        return max(silences, default=0.0)

    async def _answers(self) -> bool:
        """Whether the engine's process still answers: then it has no work that it knows of."""
        try:
            async with asyncio.timeout(_HEALTH_TIMEOUT_S):
                await self._engine.check_health()
        except (EngineDead, TimeoutError):
            return False
        return True
