"""Notes when each rank of the engine last did a step; the server's watchdog reads it.

Leans on vLLM's `StatLoggerBase`: a logger is made for each data-parallel rank, and its `record` is called after every
step of the rank's that produced output. Of several processes that ask one engine, vLLM tells those that a step had
output for, and of its figures one: they note it in memory that they share.
"""

import time
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from vllm.v1.metrics.loggers import StatLoggerBase

from dualfocus_engine.backend.safe_hooks import never_raises

if TYPE_CHECKING:
    from ctypes import Array, c_double

    from vllm.config import VllmConfig


def shared_times(ranks: int) -> "Array[c_double]":
    """Return a time for each rank, which processes can share, each that is started being handed them: now.

    In seconds of `time.monotonic`.
    """
    now: Array[c_double] = get_context("spawn").RawArray("d", [time.monotonic()] * ranks)
    return now


class Heartbeat:
    """The time of each rank's last step (`time.monotonic`); where the times are shared, whoever saw it."""

    def __init__(self, times: "Array[c_double] | None" = None) -> None:
        self._times = shared_times(1) if times is None else times

    def last_step(self, rank: int) -> float:
        """Return when a data-parallel rank last made a step."""
        return self._times[rank]

    def note_step(self, rank: int) -> None:
        """Say that a rank has made a step."""
        self._times[rank] = time.monotonic()

    def logger(self, config: "VllmConfig", engine_index: int = 0) -> StatLoggerBase:
        """Return a stat logger for one rank (the factory that `AsyncLLM` takes)."""
        return _HeartbeatLogger(self, engine_index)


class _HeartbeatLogger(StatLoggerBase):
    def __init__(self, heartbeat: Heartbeat, rank: int) -> None:
        self._heartbeat = heartbeat
        self._rank = rank

    @never_raises(lambda *_, **__: None)
    def record(self, *stats: Any, **kwargs: Any) -> None:
        self._heartbeat.note_step(self._rank)

    def log_engine_initialized(self) -> None:
        """There is nothing to say."""
