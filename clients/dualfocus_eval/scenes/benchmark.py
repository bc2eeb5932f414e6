"""Held-out scenes as a benchmark: nothing to download, and the boxes are known."""

import io
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from PIL import Image

from dualfocus_eval.report.outcomes import is_right
from dualfocus_eval.samples import Benchmark, Sample, Scored
from dualfocus_eval.scenes.held_out import held_out
from dualfocus_eval.scenes.mixes import MIXES, STANDARD
from dualfocus_eval.scenes.questions import Question
from dualfocus_eval.scoring.mean import mean_score


def scenes(seed: int, count: int, mix: str = STANDARD) -> Benchmark:
    """Return the questions about `count` scenes of a seed and one of `MIXES`, which are the same everywhere."""

    def read(_: Path) -> Iterator[Sample]:
        for _, about in groupby(held_out(seed, count, mix=mix), key=lambda asked: asked.scene):
            together = list(about)
            png = _png(together[0].picture)
            yield from (sample_of(asked.question, str(asked.number), png) for asked in together)

    return Benchmark(
        name="scenes",
        summary=f"pictures drawn from a seed, {MIXES[mix].summary}",
        files="nothing: they are drawn",
        licence="Apache-2.0, as this package",
        read=read,
        wordings=dict.fromkeys(("llava", "lmms-eval", "vlmevalkit"), _wording),
        score=lambda sample, reply: float(is_right(reply, sample.answers)),
        figures=_figures,
    )


def sample_of(question: Question, name: str = "", picture: bytes = b"") -> Sample:
    """Return a question about a scene as a benchmark's."""
    return Sample(name, picture, question.question, (question.answer,), category=question.kind, box=question.box)


def _wording(sample: Sample) -> str:
    return sample.question


def _figures(scored: Sequence[Scored]) -> dict[str, float]:
    return {"accuracy": mean_score(scored)}


def _png(picture: Image.Image) -> bytes:
    png = io.BytesIO()
    picture.save(png, "PNG", compress_level=1)
    return png.getvalue()
