"""Runs the steps in their order, each in a process of its own, while there is time."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.gpu_check.processes import run_within
from loadtests.gpu_check.settings import Settings


@dataclass(frozen=True)
class Step:
    """A step: what it is called, the module that it is, how many seconds it has, and whether it starts an engine."""

    key: str
    module: str
    seconds: float
    starts_engine: bool = True


# What cannot be known elsewhere comes first, where a run is cut short.
STEPS = (
    Step("machine", "loadtests.gpu_check.steps.machine", 10, starts_engine=False),
    Step("seven", "loadtests.gpu_check.steps.seven", 240),
    Step("small", "loadtests.gpu_check.steps.small", 90),
    Step("large", "loadtests.gpu_check.steps.large", 150),
    Step("drafted", "loadtests.gpu_check.steps.drafted", 150),
)


def run_steps(settings: Settings, steps: Sequence[Step] = STEPS) -> None:
    """Run steps until the run's seconds are over; writes down how each ended, or why it was skipped."""
    until, last_start = time.monotonic() + settings.seconds, 0.0
    for step in steps:
        left = until - time.monotonic()
        if why := _why_not(step, left, last_start):
            settings.journal.write(step.key, skipped=why)
            continue
        took = _run(step, settings, min(step.seconds, left))
        if step.starts_engine:
            # A step that was stopped before its engine was ready took at least its seconds to start.
            last_start = [took, *settings.journal.values(step.key, "start_s")][-1]


def _why_not(step: Step, left: float, last_start: float) -> str | None:
    if left <= 0:
        return "no time is left"
    if step.starts_engine and left < last_start:
        return f"{left:.0f} s are left, and the last start took {last_start:.0f} s"
    return None


def _run(step: Step, settings: Settings, seconds: float) -> float:
    began = time.monotonic()
    ended = run_within([sys.executable, "-m", step.module, *settings.flags], seconds)
    took = time.monotonic() - began
    settings.journal.write(step.key, ended=ended, seconds=round(took, 1))
    return took
