"""What a run consists of: the models, and for each the experiments in their order.

An experiment asks its sides in turn, round by round: A B A B …. It begins no further round once its seconds are over,
so that a run ends in time on a slow machine too.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from dualfocus_engine.machine.cores import usable_cores
from dualfocus_engine.shipped import SHIPPED_MODEL
from dualfocus_eval.scenes.mixes import STANDARD

from loadtests.asking.order import Asks, Cell, Order, Side

# The paper's cautious share of second looks that are skipped (Appendix C).
SKIPPED = 0.58
# Numbers of questions: so many for an experiment, a round, a side. None is asked of a server twice.
_EXPERIMENT, _ROUND, _LANE = 1_000_000, 10_000, 1_000
_WARMING = 99
_FEWEST, _MOST = 6, 250
# Seconds that an experiment takes besides: a server's start for every third one, the load generator's for each.
_START = 10.0
_FEW = 4
# Questions a user in a round where several are asked at once, of a fast model: one alone would be a single wave.
_WAVES = 4


@dataclass(frozen=True)
class Subject:
    """A model that is measured, and how it is served and asked.

    `flags` by the kind of server, `all` for each; `threads` is what each server's model computes with on a CPU.
    """

    key: str
    title: str
    folder: Path
    sampling: dict[str, Any]
    flags: dict[str, tuple[str, ...]]
    threads: int = 1


@dataclass(frozen=True)
class Asking:
    """A side of an experiment: its name, the kind of server that it asks, and how; at most `most` questions a round."""

    name: str
    kind: str
    asks: Asks
    most: int | None = None


@dataclass(frozen=True)
class Experiment:
    """Sides asked in turn: `questions` a side a round by `users` at a time, for at most `rounds` rounds or `seconds`.

    Each side is first asked `warm_up` questions that do not count. In an open loop `shares` of the measured throughput
    are the rates of arrival, a round for each, and `seconds` the time that one of them is held. `like` names an
    experiment whose first side is to be asked the same questions. `mix` names the scenes that are asked about.
    """

    key: str
    sides: tuple[Asking, ...]
    users: int
    questions: int
    rounds: int
    seconds: float
    least_rounds: int = 2
    warm_up: int = 1
    shares: tuple[float, ...] = ()
    like: str | None = None
    mix: str = STANDARD

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of servers it needs, each once."""
        return tuple(dict.fromkeys(side.kind for side in self.sides))


MACRO, ADAPTIVE = Asking("macro", "plain", "macro"), Asking("adaptive", "plain", "adaptive")
DUAL, DRAFTED = Asking("dual", "plain", "dual"), Asking("drafted", "drafted", "dual")
CALLS, UNCACHED = Asking("calls", "vllm", "calls"), Asking("uncached", "vllm-uncached", "calls")
BARE = Asking("bare", "vllm-bare", "calls")
# It answers one question at a time: more of them at once would only wait.
LOOP = Asking("loop", "loop", "dual", most=2)
OFF, CHAT = Asking("off", "plain", "off"), Asking("chat", "vllm", "chat")
CALIBRATING = Asking("macro", "drafted", "macro")
CALIBRATION, ADAPTIVE_1, ARRIVALS = "calibration", "adaptive-1", "arrivals"
# By how much fewer seconds than LLaVA's shape a model gets.
PACE = {"small": 4.0}
# Where the throughput of two looks is read for the rates of arrival: the first of these that was measured.
SATURATED = ("cached-16", "uncached-16", "modes-16")


def small_model() -> Subject:
    """The model that ships: overhead is all there is."""
    flags = ("--kv-cache-memory-bytes", str(256 << 20), "--max-num-batched-tokens", "4096")
    return Subject("small", "the model that ships (5 M parameters)", SHIPPED_MODEL, {"max_tokens": 32}, {"all": flags})


def llava_model(folder: Path) -> Subject:
    """The shape of LLaVA-1.5 at 0.46 billion parameters; 16 tokens an answer, since random weights never stop.

    Its prompts take seconds: it gets every core.
    """
    flags = ("--kv-cache-memory-bytes", str(512 << 20), "--max-num-batched-tokens", "4096", "--max-model-len", "4096")
    sampling = {"max_tokens": 16, "ignore_eos": True}
    title, cores = "LLaVA-1.5's shape, 0.46 B parameters, random weights", usable_cores()
    return Subject("llava", title, folder, sampling, {"all": flags}, threads=cores)


def seven_billion(folder: Path) -> Subject:
    """The shape of LLaVA-1.5-7B, its weights made up by vLLM as it loads; for a GPU.

    Two of them share one of 80 GB: vLLM starts where its share of the memory is free, also where the cache has a size.
    """
    flags = ("--kv-cache-memory-bytes", str(16 << 30), "--max-num-batched-tokens", "8192", "--max-model-len", "4096")
    sampling = {"max_tokens": 16, "ignore_eos": True}
    dummy = (*flags, "--gpu-memory-utilization", "0.45", "--load-format", "dummy")
    return Subject("llava-7b", "LLaVA-1.5-7B's shape, random weights", folder, sampling, {"all": dummy})


def full_plan(pace: float) -> list[Experiment]:
    """Return the experiments of a full run; `pace` is by how much fewer seconds a model needs than LLaVA's shape.

    The seconds are what an experiment may take without the run being late; a late run makes fewer rounds (`hurried`).
    """
    # In an order in which neighbours share servers: seven starts in all.
    plan = [
        Experiment(CALIBRATION, (CALIBRATING,), 1, 6, 3, 60, like=ADAPTIVE_1),
        Experiment("drafted-1", (DRAFTED, CALLS), 1, 1, 8, 80),
        Experiment("cached-16", (DUAL, CALLS), 16, 16, 2, 140),
        Experiment("cached-1", (DUAL, CALLS), 1, 1, 8, 80),
        Experiment("cached-4", (DUAL, CALLS), 4, 4, 3, 40),
        Experiment("overhead-1", (OFF, CHAT), 1, 1, 16, 70),
        Experiment(ADAPTIVE_1, (ADAPTIVE, MACRO), 1, 6, 3, 100),
        Experiment("uncached-16", (DUAL, UNCACHED), 16, 16, 2, 160),
        Experiment("uncached-1", (DUAL, UNCACHED), 1, 1, 6, 60),
        Experiment("uncached-4", (DUAL, UNCACHED), 4, 4, 3, 50),
        Experiment("bare-16", (DUAL, BARE), 16, 16, 2, 160, least_rounds=1),
        Experiment("bare-1", (DUAL, BARE), 1, 1, 4, 50),
        Experiment("loop-16", (DUAL, LOOP), 16, 16, 2, 80),
        Experiment("loop-1", (DUAL, LOOP), 1, 1, 4, 40),
        Experiment(ARRIVALS, (DUAL,), 0, 0, 0, 40, shares=(0.3, 0.5, 0.7, 0.9, 1.1)),
        Experiment("modes-1", (MACRO, DUAL, DRAFTED), 1, 1, 8, 95),
        Experiment("modes-4", (MACRO, ADAPTIVE, DUAL, DRAFTED), 4, 4, 3, 60),
        Experiment("modes-16", (MACRO, ADAPTIVE, DUAL, DRAFTED), 16, 16, 2, 200),
    ]
    return [_paced(one, pace) for one in plan]


def _paced(one: Experiment, pace: float) -> Experiment:
    """Return an experiment for a model that is so much faster: with whole waves of questions, the first not counted."""
    paced = replace(one, seconds=one.seconds / pace, rounds=round(one.rounds * pace))
    if pace == 1 or one.users <= 1:
        return paced
    return replace(paced, questions=_WAVES * one.questions, warm_up=one.questions)


def hurried(experiment: Experiment) -> Experiment:
    """Return an experiment for a run that is late: half the time, and one round at least."""
    return replace(experiment, seconds=experiment.seconds / 2, least_rounds=1)


def planned(experiments: Sequence[Experiment]) -> float:
    """Return the seconds that experiments may take together, their servers' start included."""
    return sum(experiment.seconds * max(len(experiment.shares), 1) + _START for experiment in experiments)


def quick_plan() -> list[Experiment]:
    """Return the same experiments with as few questions as show that everything works."""
    return [_shortened(experiment) for experiment in full_plan(1)]


def _shortened(experiment: Experiment) -> Experiment:
    if experiment.shares:
        return replace(experiment, seconds=1, shares=(0.5, 1.0))
    few = min(experiment.questions, _FEW)
    return replace(experiment, users=min(experiment.users, few), questions=few, rounds=2, least_rounds=1, seconds=10)


def order(
    plan: Sequence[Experiment],
    experiment: Experiment,
    subject: Subject,
    urls: Mapping[str, str],
    *,
    throughput: float | None = None,
) -> Order:
    """Return what the load generator is to do for an experiment of a plan.

    `urls` are the servers' addresses by kind; `throughput` is that of the only side, in questions a second: what the
    rates of an open loop are shares of.
    """
    keys = [one.key for one in plan]
    place, block = keys.index(experiment.key), keys.index(experiment.like or experiment.key)
    rounds = (
        _arrivals(block, experiment, throughput or 0.0)
        if experiment.shares
        else [_round(block, experiment, number, experiment.questions) for number in range(experiment.rounds)]
    )
    return Order(
        model=str(subject.folder),
        sides=[
            Side(
                name=side.name,
                url=urls[side.kind],
                model=_name(side, subject),
                asks=side.asks,
                sampling=subject.sampling,
            )
            for side in experiment.sides
        ],
        # Of its own block: the calibration's questions are not to be known where they are asked again.
        warm_up=_round(place, experiment, _WARMING, experiment.warm_up),
        rounds=rounds,
        seconds=experiment.seconds,
        least_rounds=len(rounds) if experiment.shares else experiment.least_rounds,
        mix=experiment.mix,
    )


def _name(side: Asking, subject: Subject) -> str:
    """Return what a server is asked for: a client that makes its calls of this one wants each as it is."""
    return f"{subject.key}:off" if side.asks == "calls" and side.kind == "plain" else subject.key


def numbers(block: int, lane: int, number: int, count: int) -> list[int]:
    """Return the numbers of the questions that a side asks in a round."""
    first = block * _EXPERIMENT + number * _ROUND + lane * _LANE
    return list(range(first, first + count))


def lanes(experiment: Experiment) -> list[int]:
    """Tell the sides that ask the same server from each other: 0 for the first of each server, 1 for the second …

    Sides of different servers get the same questions; on one server no picture is asked about twice.
    """
    kinds = [side.kind for side in experiment.sides]
    return [kinds[:place].count(kind) for place, kind in enumerate(kinds)]


def _round(block: int, experiment: Experiment, number: int, count: int) -> list[Cell]:
    cells = []
    for side, lane in zip(experiment.sides, lanes(experiment), strict=True):
        asked = numbers(block, lane, number, min(count, side.most or count))
        users = max(min(experiment.users, len(asked)), 1)
        cells.append(Cell(side=side.name, round=number, users=users, questions=asked))
    return cells


def _arrivals(block: int, experiment: Experiment, throughput: float) -> list[list[Cell]]:
    side = experiment.sides[0].name
    rounds = []
    for number, share in enumerate(experiment.shares):
        moments = poisson(share * throughput, experiment.seconds, number)
        asked = numbers(block, 0, number, len(moments))
        rounds.append([Cell(side=side, round=number, users=len(moments), questions=asked, moments=moments)])
    return rounds


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Return the moments of a Poisson process of `rate` arrivals a second, at least 8 and at most 250 of them."""
    drawn = random.Random(seed)
    count = min(max(round(rate * seconds), _FEWEST), _MOST)
    return list(accumulate(drawn.expovariate(rate) for _ in range(count)))
