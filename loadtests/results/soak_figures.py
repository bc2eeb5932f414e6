"""The arithmetic of a soak: what a question costs in memory once the caches are full, and whether all came back."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, linear_regression
from typing import Any

# Bytes a question that still count as level: one turn that is kept takes more, a picture 100,000. The server notes of
# each image that it can be read, 0.4 KB each, for the last 65,536 of them; less than a KB is the noise of 15 minutes.
LEVEL = 4096.0


@dataclass(frozen=True)
class Sample:
    """A moment of a soak: bytes of resident memory, and the questions answered up to it.

    `rate`, `p50` and `p95` are those of the questions since the sample before; no percentiles where there were none.
    """

    seconds: float
    answered: int
    server: int
    engine: int
    kv_blocks: int
    unfinished_turns: int
    rate: float
    p50: float | None
    p95: float | None


@dataclass(frozen=True)
class Verdict:
    """One thing that must hold at the end: what was found, the most that may be, and whether it is."""

    name: str
    found: float
    most: float

    @property
    def holds(self) -> bool:
        """Whether it is as it must be."""
        return self.found <= self.most


def last_half(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Return the samples of the later half: the caches are full by then."""
    return samples[len(samples) // 2 :]


def slope(samples: Sequence[Sample], process: str) -> float:
    """Return the bytes that a process (`server`, `engine`) grows a question, by least squares over all the samples.

    Raises ValueError where fewer than two of them differ in the questions answered.
    """
    answered = [float(sample.answered) for sample in samples]
    if len(set(answered)) < 2:
        raise ValueError("no questions were answered between the samples: there is no slope")
    return linear_regression(answered, [float(getattr(sample, process)) for sample in samples]).slope


def summary(samples: Sequence[Sample], failures: int, idle: Sample, after: Sample) -> dict[str, Any]:
    """Return the figures of a soak; `idle` is the server before it, `after` once all was answered."""
    late = last_half(samples)
    found: dict[str, Any] = {
        "questions": after.answered,
        "failures": failures,
        "rate": fmean(sample.rate for sample in samples),
        "p50": fmean(sample.p50 for sample in samples if sample.p50 is not None),
        "p95": fmean(sample.p95 for sample in samples if sample.p95 is not None),
        "kv_blocks_most": max(sample.kv_blocks for sample in samples),
        "idle": asdict(idle),
        "after": asdict(after),
    }
    for process in ("server", "engine"):
        sizes = [getattr(sample, process) for sample in samples]
        found[process] = {"first": sizes[0], "most": max(sizes), "slope": slope(late, process)}
    return found


def verdicts(found: dict[str, Any]) -> list[Verdict]:
    """Judge a soak's figures: nothing failed, nothing is left, and neither process grows."""
    if "ended_early" in found:
        return [Verdict("soaks that ended early", 1, 0)]
    idle, after = found["idle"], found["after"]
    return [
        Verdict("questions that failed", found["failures"], 0),
        Verdict("turns unfinished afterwards", after["unfinished_turns"], 0),
        Verdict(
            "KV blocks in use afterwards, beyond those of an idle server", after["kv_blocks"] - idle["kv_blocks"], 0
        ),
        Verdict("server: bytes a question", found["server"]["slope"], LEVEL),
        Verdict("engine: bytes a question", found["engine"]["slope"], LEVEL),
    ]
