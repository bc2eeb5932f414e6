"""Notes when the engine last did a step.

Leans on vLLM's `StatLoggerBase`: a logger's `record` is called after every step that produced output.
"""

import time
from typing import TYPE_CHECKING, Any

from vllm.v1.metrics.loggers import StatLoggerBase

if TYPE_CHECKING:
    from vllm.config import VllmConfig


class Pulse:
    """The time of the engine's last step, over all its ranks."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def beat(self) -> None:
        """Note a step, or work that has just begun."""
        self._last = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since the last step."""
        return time.monotonic() - self._last

    def logger(self, config: "VllmConfig", engine_index: int = 0) -> StatLoggerBase:
        """Return a stat logger for one rank (the factory that `AsyncLLM` takes)."""
        return _PulseLogger(self)


class _PulseLogger(StatLoggerBase):
    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse

    def record(self, *stats: Any, **more: Any) -> None:
        self._pulse.beat()

    def log_engine_initialized(self) -> None:
        """There is nothing to say."""
