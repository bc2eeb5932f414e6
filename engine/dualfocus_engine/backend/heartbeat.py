"""Notes when the engine last did a step; the server's watchdog reads it.

Leans on vLLM's `StatLoggerBase`: a logger's `record` is called after every step that produced output. Of several
processes that ask one engine, vLLM tells those that a step had output for, and of its figures one: they note it in
memory that they share.
"""

import time
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from vllm.v1.metrics.loggers import StatLoggerBase

if TYPE_CHECKING:
    from ctypes import c_double

    from vllm.config import VllmConfig


def shared_time() -> "c_double":
    """Return a time that processes can share, each that is started being handed it: now (`time.monotonic`)."""
    now: c_double = get_context("spawn").RawValue("d", time.monotonic())
    return now


class Heartbeat:
    """The time of the engine's last step, over all its ranks (`time.monotonic`); where it is shared, whoever saw it."""

    def __init__(self, shared: "c_double | None" = None) -> None:
        self._time = shared or shared_time()

    @property
    def last_step(self) -> float:
        return self._time.value

    def note_step(self) -> None:
        """Say that the engine has made a step."""
        self._time.value = time.monotonic()

    def logger(self, config: "VllmConfig", engine_index: int = 0) -> StatLoggerBase:
        """Return a stat logger for one rank (the factory that `AsyncLLM` takes)."""
        return _HeartbeatLogger(self)


class _HeartbeatLogger(StatLoggerBase):
    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat

    def record(self, *stats: Any, **kwargs: Any) -> None:
        self._heartbeat.note_step()

    def log_engine_initialized(self) -> None:
        """There is nothing to say."""
