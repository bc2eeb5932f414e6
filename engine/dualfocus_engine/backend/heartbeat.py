"""Notes when the engine last did a step; the server's watchdog reads it.

Leans on vLLM's `StatLoggerBase`: a logger's `record` is called after every step that produced output.
"""

import time
from typing import TYPE_CHECKING, Any

from vllm.v1.metrics.loggers import StatLoggerBase

if TYPE_CHECKING:
    from vllm.config import VllmConfig


class Heartbeat:
    """The time of the engine's last step, over all its ranks (`time.monotonic`)."""

    def __init__(self) -> None:
        self.last_step = time.monotonic()

    def logger(self, config: "VllmConfig", engine_index: int = 0) -> StatLoggerBase:
        """Return a stat logger for one rank (the factory that `AsyncLLM` takes)."""
        return _HeartbeatLogger(self)


class _HeartbeatLogger(StatLoggerBase):
    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat

    def record(self, *stats: Any, **kwargs: Any) -> None:
        self._heartbeat.last_step = time.monotonic()

    def log_engine_initialized(self) -> None:
        """There is nothing to say."""
