"""A benchmark's question as it is sent, and what is kept of its answer."""

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import httpx
from dualfocus_client.client import AskError, answer_body, chat_body, data_url, read_file
from dualfocus_client.line_formats.line_format import Question
from PIL import ExifTags, Image

from dualfocus_eval.asking.header import without_picture
from dualfocus_eval.asking.records import Record
from dualfocus_eval.boxes import Box
from dualfocus_eval.samples import Sample

# EXIF's orientations that lay a picture on its side.
_ON_ITS_SIDE = (5, 6, 7, 8)
# What a turn took, as the server counts it.
_WORK = ("computed_tokens", "encoder_runs", "engine_steps")
# How the names of turns begin that answer: of more than two looks micro-2 and so on.
_ANSWERS = ("macro", "micro")


@dataclass(frozen=True)
class Variant:
    """How a question whose box is known is asked again: scored otherwise, or the box moved by so many pixels."""

    scoring: str = "own"
    shift: int = 0

    @property
    def name(self) -> str:
        """Its name in records."""
        return f"shift {self.shift}" if self.shift else f"scoring {self.scoring}"

    def options(self, record: Record) -> dict[str, Any]:
        """Return the request's `dualfocus` field, from the first answer to the same question."""
        box = Box(*record["box"])
        moved = shifted(box, self.shift, record["id"], record["size"]) if self.shift else box
        return {"mode": "dual", "box": moved.as_tuple(), "scoring": self.scoring}


def shifted(box: Box, pixels: int, sample: str, size: tuple[int, int]) -> Box:
    """Return the box moved by so many pixels in a direction drawn by the question's id, kept within the picture."""
    angle = Random(f"shift/{sample}").uniform(0, 2 * math.pi)
    across = _within(pixels * math.cos(angle) / size[0], box.x1, box.x2)
    down = _within(pixels * math.sin(angle) / size[1], box.y1, box.y2)
    return Box(max(0.0, box.x1 + across), max(0.0, box.y1 + down), min(1.0, box.x2 + across), min(1.0, box.y2 + down))


def _within(move: float, low: float, high: float) -> float:
    return min(max(move, -low), 1.0 - high)


@dataclass(frozen=True)
class Asked(Question):
    """A question; `text` is what is asked, `options` the `dualfocus` field, `request` the fields beside the message."""

    sample: Sample
    text: str
    options: dict[str, Any]
    request: dict[str, Any]
    variant: str
    # A wrong key, no such model or route.
    refusals_of_all: ClassVar[tuple[int, ...]] = (401, 403, 404)

    def fault(self) -> str | None:
        """Pictures were looked for when all questions were read."""
        return None

    def body(self) -> dict[str, Any]:
        """Return the request, the picture in it. Raises AskError where that can't be read."""
        image = self.sample.image
        content = image if isinstance(image, bytes) else read_file(str(image))
        return {**self.request, **chat_body(data_url(content), self.text, self.options)}

    def answer(self, response: httpx.Response) -> dict[str, Any]:
        """Return what is kept of a chat completion. Raises AskError where it is none."""
        completion = answer_body(response)
        try:
            return {"reply": completion["choices"][0]["message"]["content"] or "", **self._details(completion)}
        except (LookupError, TypeError, AttributeError) as error:
            raise AskError(f"The server's answer is no chat completion: {str(completion)[:200]}", 200) from error

    def _details(self, completion: dict[str, Any]) -> dict[str, Any]:
        focus = completion.get("dualfocus") or {}
        if self.variant:
            return {"winner": focus.get("winner"), "selection": focus.get("selection")}
        return {
            **{name: focus.get(name) for name in ("winner", "selection", "box", "crop")},
            "size": size_of(self.sample.image),
            **{name: _said(focus.get(name)) for name in ("macro", "micro")},
            "tokens": completion.get("usage"),
            "work": _work(focus),
            "seconds": {"macro": _seconds_of_macro(focus), "all": focus.get("seconds")},
            "sample": without_picture(self.sample),
        }

    def failure(self, error: AskError) -> dict[str, Any]:
        """Return what is kept of a question without an answer: its group's others are not judged without it."""
        return {"error": str(error), "group": self.sample.group}

    def told(self, found: dict[str, Any]) -> Record:
        """Return a question's record."""
        return {"id": self.sample.id, "variant": self.variant, **found}


def size_of(image: Path | bytes) -> tuple[int, int] | None:
    """Return a picture's width and height in pixels, upright; None where Pillow can't read it."""
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as picture:
            wide, high = picture.size
            on_its_side = picture.getexif().get(ExifTags.Base.Orientation) in _ON_ITS_SIDE
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return (high, wide) if on_its_side else (wide, high)


def _said(answer: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if answer is None else {name: answer.get(name) for name in ("text", "perplexity", "finish_reason")}


def _work(focus: dict[str, Any]) -> dict[str, int] | None:
    """Return the looks that answered and what all turns took, where it is told of each; None without turns."""
    turns = focus.get("turns")
    if not turns:
        return None
    counts = {name: [turn.get(name) for turn in turns.values()] for name in _WORK}
    return {"looks": count_looks(turns), **{name: sum(told) for name, told in counts.items() if None not in told}}


def count_looks(turns: Iterable[str]) -> int:
    """Return how many of the named turns answered from a look."""
    return sum(name.startswith(_ANSWERS) for name in turns)


def _seconds_of_macro(focus: dict[str, Any]) -> float | None:
    seconds: float | None = ((focus.get("turns") or {}).get("macro") or {}).get("seconds")
    return seconds
