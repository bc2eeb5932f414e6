"""The goals, and how what was measured stands to them."""

from collections.abc import Callable
from dataclasses import dataclass

from loadtests.results.figures import Cell, Spread, latency, ratios, throughput
from loadtests.results.run_files import Run

_FIGURES: dict[str, Callable[[Cell], float]] = {"latency": latency, "throughput": throughput}


@dataclass(frozen=True)
class Goal:
    """A bound on a side's figure as a share of another's, in one experiment."""

    text: str
    subject: str
    experiment: str
    side: str
    against: str
    figure: str
    bound: float

    @property
    def is_ceiling(self) -> bool:
        """Whether less is better: latencies may not be over the bound, throughputs not under it."""
        return self.figure == "latency"


@dataclass(frozen=True)
class Verdict:
    """A goal and what was measured for it; `spread` is None where nothing was, and `why` says why."""

    goal: Goal
    spread: Spread | None
    why: str = ""

    @property
    def is_reached(self) -> bool:
        """Whether the median of the rounds keeps the bound."""
        if self.spread is None:
            return False
        over = self.spread.median - self.goal.bound
        return over <= 0 if self.goal.is_ceiling else over >= 0


def goals_for(subject: str) -> list[Goal]:
    """Return the goals that are set for a model."""
    return [
        Goal(text, subject, experiment, side, against, figure, bound)
        for text, experiment, side, against, figure, bound in _rows(subject)
    ]


def _rows(subject: str) -> list[tuple[str, str, str, str, str, float]]:
    calls = "the client's three calls, caching"
    cached = (f"throughput, 16 at once, two looks : {calls} on", "cached-16", "dual", "calls", "throughput")
    uncached = (f"throughput, 16 at once, two looks : {calls} off", "uncached-16", "dual", "uncached", "throughput")
    bare = (f"throughput, 16 at once, two looks : {calls} and pictures off", "bare-16", "dual", "bare", "throughput")
    if subject == "small":
        return [(*cached, 1.5), (*uncached, 1.5), (*bare, 1.5)]
    most = 1.5 if subject == "llava-7b" else 2.2
    return [
        ("latency, two looks : macro", "modes-1", "dual", "macro", "latency", most),
        ("latency, boxes drafted : macro", "modes-1", "drafted", "macro", "latency", most),
        ("mean latency, adaptive : macro, 58 % skipped", "adaptive-1", "adaptive", "macro", "latency", 1.3),
        (f"latency, two looks : {calls} on", "cached-1", "dual", "calls", "latency", 0.9),
        (f"latency, boxes drafted : {calls} on", "drafted-1", "drafted", "calls", "latency", 0.9),
        (*cached, 1.1),
        (*uncached, 1.8),
        (*bare, 1.8),
        ("throughput, 16 at once, two looks : the `transformers` loop", "loop-16", "dual", "loop", "throughput", 5.0),
        ("latency, `mode: off` : `vllm serve`", "overhead-1", "off", "chat", "latency", 1.03),
    ]


def judge(run: Run) -> list[Verdict]:
    """Judge the goals of every model of a run."""
    return [_verdict(run, goal) for subject in run.subjects for goal in goals_for(subject)]


def _verdict(run: Run, goal: Goal) -> Verdict:
    cells = run.of(goal.subject, goal.experiment)
    if not cells:
        return Verdict(goal, None, run.why_not(goal.subject, goal.experiment))
    try:
        return Verdict(goal, ratios(cells, goal.side, goal.against, _FIGURES[goal.figure]))
    except ValueError as error:
        return Verdict(goal, None, str(error))
