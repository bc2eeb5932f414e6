"""The ways in which the model that ships looks at pictures, side by side: what each answers, and what it takes."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dualfocus_client.asking import Server

from dualfocus_eval.asking.records import RunError
from dualfocus_eval.evaluate import Finished, Settings, evaluate
from dualfocus_eval.report.document import failures
from dualfocus_eval.samples import Benchmark, Sample
from dualfocus_eval.scenes.benchmark import scenes

# The signature and the IHDR chunk.
_PNG_HEADER = 8 + 25


@dataclass(frozen=True)
class Way:
    """What a question is asked with: `name` as it stands in tables."""

    name: str
    mode: str
    candidates: int | None = None
    max_looks: int | None = None


WAYS = (
    Way("macro", "macro"),
    Way("adaptive", "adaptive"),
    Way("dual", "dual"),
    Way("dual, 3 candidates", "dual", candidates=3),
    Way("regions", "regions"),
    Way("search, 2 looks", "search", max_looks=2),
    Way("search, 3 looks", "search", max_looks=3),
    Way("search, 4 looks", "search", max_looks=4),
)
# The mixes that a way has a goal on: there it is asked about all scenes.
WITH_GOALS = {
    "dual": ("fine",),
    "regions": ("several",),
    "search, 4 looks": ("standard", "fine"),
}


def ask_ways(server: Server, mix: str, seed: int, count: int, folder: Path) -> list[dict[str, Any]]:
    """Ask about `count` scenes of a mix in each way, with pictures that no cache knows; returns the figures of each.

    Raises RunError where a question failed.
    """
    drawn = scenes(seed, count, mix)
    return [_ask_way(server, way, mix, with_fresh_pictures(drawn, way.name), count, folder) for way in WAYS]


def ask_for_goals(server: Server, seed: int, count: int, folder: Path) -> list[dict[str, Any]]:
    """Ask about `count` scenes in each way that has a goal, caches as they are; returns the figures of each.

    Raises RunError where a question failed.
    """
    return [
        _ask_way(server, way, mix, scenes(seed, count, mix), count, folder / "goals")
        for way in WAYS
        for mix in WITH_GOALS.get(way.name, ())
    ]


def _ask_way(server: Server, way: Way, mix: str, benchmark: Benchmark, count: int, folder: Path) -> dict[str, Any]:
    asked = Settings(benchmark, mode=way.mode, candidates=way.candidates, max_looks=way.max_looks)
    ended = finished(server, asked, folder / f"{mix} {way.name}")
    figures = {name: ended.found[name] for name in ("overall", "categories", "costs")}
    return {"mix": mix, "way": way.name, "scenes": count, **figures}


def with_fresh_pictures(benchmark: Benchmark, mark: str) -> Benchmark:
    """Return a benchmark whose questions each have a file of their own: no cache knows its picture by its bytes."""

    def read(data: Path) -> Iterator[Sample]:
        for sample in benchmark.read(data):
            assert isinstance(sample.image, bytes), "scenes are drawn"
            yield replace(sample, image=_with_comment(sample.image, f"{mark}, {sample.id}"))

    return replace(benchmark, read=read)


def _with_comment(png: bytes, comment: str) -> bytes:
    """Return a PNG with a comment (a tEXt chunk) behind its header."""
    chunk = b"tEXt" + b"Comment\0" + comment.encode("latin-1")
    framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png[:_PNG_HEADER] + framed + png[_PNG_HEADER:]


def finished(server: Server, settings: Settings, folder: Path) -> Finished:
    """Ask all questions. Raises RunError where one has no answer."""
    ended = evaluate(server, settings, folder)
    if ended.reason or (failed := failures(ended.found)):
        raise RunError(ended.reason or failed)
    return ended
