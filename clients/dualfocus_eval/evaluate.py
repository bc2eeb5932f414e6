"""A benchmark from its first question to its report."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from dualfocus_client.asking import Server
from tqdm import tqdm

from dualfocus_eval.asking.header import Header, Survey, begin, survey
from dualfocus_eval.asking.passes import Plan, ask_plan, describe_server, versions_of
from dualfocus_eval.asking.questions import Variant
from dualfocus_eval.asking.records import Records
from dualfocus_eval.report.outcomes import Judged
from dualfocus_eval.report.writing import figures_of, judge_all, write
from dualfocus_eval.samples import Benchmark, Sample


@dataclass(frozen=True)
class Settings:
    """What is asked, and how: `shift` and `scoring` are asked again, of the boxes that the first asking found.

    `candidates` and `max_looks` are left to the server where they are None.
    """

    benchmark: Benchmark
    data: Path = Path()
    count: int | None = None
    prompts: str = "llava"
    mode: str = "dual"
    candidates: int | None = None
    max_looks: int | None = None
    model: str | None = None
    max_tokens: int | None = None
    scoring: str = "own"
    shift: list[int] = field(default_factory=list)

    def samples(self) -> Iterator[Sample]:
        """Read the questions. Raises DataError."""
        return islice(self.benchmark.read(self.data), self.count)

    def looks(self) -> dict[str, Any]:
        """Return the `dualfocus` field of a first asking."""
        return _given(mode=self.mode, candidates=self.candidates, max_looks=self.max_looks)

    def variants(self) -> list[Variant]:
        """Return how questions are asked again: by two looks, so what other modes answer is not compared with it."""
        if self.mode != "dual":
            return []
        scored = [Variant(self.scoring)] if self.scoring != "own" else []
        return scored + [Variant(shift=pixels) for pixels in self.shift]


@dataclass(frozen=True)
class Finished:
    """A run that all questions were asked in, or that ended early: `reason` says why."""

    reason: str | None
    found: dict[str, Any]
    judged: list[Judged]


def evaluate(server: Server, settings: Settings, folder: Path) -> Finished:
    """Ask what has no answer yet and write the report, unless the run ended early.

    Raises DataError, RunError, and AskError where the server can't be asked what it serves.
    """
    samples = tqdm(settings.samples(), desc="reading", unit="question", leave=False, disable=None)
    known = survey(samples, settings.benchmark.wordings[settings.prompts])
    header = begin(folder, _header(server, settings, known))
    with Records(folder) as records:
        reason = ask_plan(server, _plan(settings, known.questions), records)
        kept = list(records.all())
    if reason is not None:
        return Finished(reason, {}, [])
    judged = judge_all(settings.benchmark, kept)
    found = figures_of(settings.benchmark, judged, kept, {one.name for one in settings.variants()})
    write(folder, header, found, judged)
    return Finished(None, found, judged)


def _plan(settings: Settings, questions: int) -> Plan:
    request = {"temperature": 0, **_given(model=settings.model, max_tokens=settings.max_tokens)}
    wording = settings.benchmark.wordings[settings.prompts]
    return Plan(settings.samples, questions, wording, settings.looks(), request, settings.variants())


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _header(server: Server, settings: Settings, known: Survey) -> Header:
    asked = {
        "benchmark": settings.benchmark.name,
        "questions": known.questions,
        "data hash": known.data,
        "prompts": settings.prompts,
        "prompts hash": known.prompts,
        **settings.looks(),
        "model": settings.model,
        "max_tokens": settings.max_tokens,
        "temperature": 0,
    }
    return {
        "asked": asked,
        "served": describe_server(server, settings.model),
        "versions": {"client": version("dualfocus"), **versions_of(server)},
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
    }
