"""What the shape is asked: LLaVA-1.5's, one at a time and many at once."""

from dataclasses import replace

from loadtests.gpu_check.settings import Settings
from loadtests.plan import CALIBRATING, DRAFTED, DUAL, MACRO, Asking, Experiment

# The client's three calls, of the same engine.
CALLS = Asking("calls", "plain", "calls")
ONE, MANY, FEW, MOST = "one-at-a-time", "at-once-64", "at-once-16", "at-once-128"
DRAFTED_ONE = "drafted"


def seven_plan(settings: Settings) -> list[Experiment]:
    """Return what is measured without drafts: what tells the most comes first."""
    return _sized(
        settings,
        [
            Experiment(ONE, (MACRO, DUAL, CALLS), 1, 1, 12, 30),
            Experiment(MANY, (DUAL, CALLS, MACRO), 64, 128, 2, 40, least_rounds=1, warm_up=16),
            Experiment(FEW, (DUAL, MACRO), 16, 32, 3, 15, least_rounds=1, warm_up=4),
            Experiment(MOST, (DUAL, MACRO), 128, 256, 2, 30, least_rounds=1, warm_up=16),
        ],
    )


def drafted_plan(settings: Settings) -> list[Experiment]:
    """Return what is measured where boxes are drafted: beside macro of the same engine, since two 7B need two GPUs."""
    return _sized(settings, [Experiment(DRAFTED_ONE, (CALIBRATING, DRAFTED), 1, 1, 12, 30)])


def _sized(settings: Settings, plan: list[Experiment]) -> list[Experiment]:
    """Return a plan for the shape at hand: the tiny one is asked few questions, two at once where many would be."""
    if not settings.tiny:
        return plan
    few = [replace(one, users=min(one.users, 2), questions=min(one.questions, 2), warm_up=1) for one in plan]
    return [replace(one, rounds=2, seconds=10.0) for one in few]
