"""How long each stage of a question took; each is also a span, where traces are collected."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace

# The stage in which `--grounder` is asked where to look.
GROUNDER = "grounder"

_tracer = trace.get_tracer("dualfocus")


class Stages(dict[str, float]):
    """Seconds by stage, in the order in which the stages began to count."""

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Count the seconds of what is done within to a stage, also where it ends in an error."""
        before, started = self.setdefault(stage, 0.0), time.perf_counter()
        try:
            with _tracer.start_as_current_span(stage):
                yield
        finally:
            self[stage] = before + time.perf_counter() - started
