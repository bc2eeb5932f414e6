"""What a server said about one question, and what each of its answers is worth."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dualfocus_eval.asking.passes import FIRST
from dualfocus_eval.asking.records import Record
from dualfocus_eval.boxes import Box, overlap
from dualfocus_eval.samples import Benchmark, Sample, Scored

# Why an answer ended that was not cut; None: records of earlier runs don't say.
_WHOLE = ("stop", None)


@dataclass(frozen=True)
class Said:
    """An answer and its perplexity (Eq. 7), infinite where the server told none; whether it was cut."""

    text: str
    perplexity: float
    is_cut: bool = False

    @property
    def doubt(self) -> float:
        """What `--skip-below` goes by: the perplexity; infinite of a blank or cut answer, which can't stand alone."""
        return math.inf if self.is_cut or not self.text.strip() else self.perplexity


@dataclass(frozen=True)
class Outcome:
    """One question's answers; `varied` are those chosen when it was asked again, by the variant's name.

    Where the second look gave no answer (no readable box, say), `micro` is macro's: that is what is returned.
    `crop` is what was enlarged, as shares of the picture.
    """

    sample: Sample
    macro: Said
    micro: Said
    chosen: str
    winner: str | None
    box: Box | None
    crop: Box | None = None
    selection: str | None = None
    varied: dict[str, str] = field(default_factory=dict)

    @property
    def perplexity(self) -> float:
        """The perplexity of the chosen answer."""
        return (self.micro if self.winner == "micro" else self.macro).perplexity


@dataclass(frozen=True)
class Judged:
    """A question's answers with their scores; `varied` has the chosen one where the question was not asked again."""

    outcome: Outcome
    macro: Scored
    micro: Scored
    chosen: Scored
    varied: dict[str, Scored]

    @property
    def oracle(self) -> Scored:
        """The better of the two answers."""
        return max(self.macro, self.micro, key=lambda one: one.score)

    def with_skipping(self, threshold: float) -> Scored:
        """The answer if micro is skipped where macro's perplexity is under a threshold."""
        return self.macro if self.skips(threshold) else self.chosen

    def skips(self, threshold: float) -> bool:
        """Whether macro's answer may stand alone at a threshold, as the server judges it."""
        return self.outcome.macro.doubt < threshold


def judge(benchmark: Benchmark, outcome: Outcome, variants: Iterable[str] = ()) -> Judged:
    """Score a question's answers."""

    def scored(text: str) -> Scored:
        return Scored(outcome.sample, text, benchmark.score(outcome.sample, text))

    varied = {name: scored(outcome.varied.get(name, outcome.chosen)) for name in variants}
    return Judged(outcome, scored(outcome.macro.text), scored(outcome.micro.text), scored(outcome.chosen), varied)


def outcomes_of(records: Iterable[Record]) -> list[Outcome]:
    """Return the questions of a run that were answered, in the order of their records.

    Of questions that are judged together none is among them where one failed: the others alone are not what is judged.
    """
    kept = list(records)
    broken = {record.get("group") for record in kept if record["variant"] == FIRST and "error" in record} - {
        None,
        "",
    }
    answered = [record for record in kept if "error" not in record]
    again: dict[str, dict[str, str]] = {}
    for record in answered:
        if record["variant"] != FIRST:
            again.setdefault(record["id"], {})[record["variant"]] = record["reply"]
    first = [record for record in answered if record["variant"] == FIRST and record["sample"]["group"] not in broken]
    return [_outcome(record, again.get(record["id"], {})) for record in first]


def _outcome(record: Record, varied: dict[str, str]) -> Outcome:
    macro, micro = (said(record[name]) for name in ("macro", "micro"))
    alone = macro or micro or Said(record["reply"], math.inf)
    return Outcome(
        sample=sample_of(record),
        macro=macro or alone,
        micro=micro or alone,
        chosen=record["reply"],
        winner=record["winner"],
        box=Box(*record["box"]) if record["box"] else None,
        crop=_as_shares(record["crop"], record["size"]),
        selection=record["selection"],
        varied=varied,
    )


def said(answer: dict[str, Any] | None) -> Said | None:
    """Return one of a server's two answers, as it reports them."""
    if answer is None:
        return None
    perplexity = answer["perplexity"]
    is_cut = answer.get("finish_reason") not in _WHOLE
    return Said(answer["text"], math.inf if perplexity is None else perplexity, is_cut)


def sample_of(record: Record) -> Sample:
    """Return the question that a record answers, without its picture."""
    asked: dict[str, Any] = record["sample"]
    box = Box(**asked["box"]) if asked["box"] else None
    texts = {name: tuple(asked[name]) for name in ("answers", "options")}
    return Sample(**{**asked, **texts, "box": box, "image": b""})


def _as_shares(crop: Sequence[float] | None, size: Sequence[int] | None) -> Box | None:
    if crop is None or size is None:
        return None
    (left, top, right, bottom), (wide, high) = crop, size
    return Box(left / wide, top / high, right / wide, bottom / high)


def iou(outcome: Outcome) -> float:
    """Return the intersection over union of the model's box and the true one; 0 where either is missing."""
    box, target = outcome.box, outcome.sample.box
    return overlap(box, target) if box and target else 0.0


def covered(outcome: Outcome) -> float:
    """Return the share of the target that the crop holds; 0 where either is missing."""
    crop, target = outcome.crop, outcome.sample.box
    return crop.shared_with(target).area / target.area if crop and target and target.area else 0.0


def is_right(text: str, answers: Iterable[str]) -> bool:
    """Whether a text is one of the answers, letter for letter but for case and outer blanks."""
    return text.strip().casefold() in {answer.strip().casefold() for answer in answers}
