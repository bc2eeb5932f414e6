"""A file of questions, one JSON object a line, read a line at a time."""

import codecs
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dualfocus_client.client import URL_SCHEMES

ACCEPTED = (
    'accepted is a JSON object a line: {"image": a file beside the questions or a URL, "question": a text}, and if '
    'wanted "id" (a text or an integer), "mode" (dual, adaptive, macro, micro, off), "dualfocus" (the request\'s field '
    "of that name); other fields are left alone"
)
_SHOWN = 20


class BatchError(Exception):
    """Nothing can be asked; the message says why, and what is accepted."""


@dataclass(frozen=True)
class Question:
    """A line of the file: `source` is its image for the client, `options` the request's `dualfocus` field.

    `fingerprint` is eight bytes of what is asked, as hexadecimal digits: it changes when the question does.
    """

    line: int
    id: str | int | None
    image: str
    source: str
    question: str
    options: dict[str, Any]
    fingerprint: str


@dataclass(frozen=True)
class QuestionFile:
    """Questions by their lines; `mode` and `model` are for those that name no mode themselves, and for all."""

    path: Path
    mode: str
    model: str | None = None

    def count_lines(self) -> int:
        """Return how many lines there are. Raises BatchError where there is no file, which is read several times."""
        if not self.path.is_file():
            raise BatchError(f"{self.path}: no such file")
        try:
            with self.path.open("rb") as lines:
                return sum(1 for _ in lines)
        except OSError as error:
            raise BatchError(f"{self.path}: {error.strerror}") from error

    def check(self, fault: Callable[[Question], str | None]) -> int:
        """Return how many questions there are. Raises BatchError that names lines which are none, or have a fault."""
        count, faults = 0, Faults()
        for number, text in self._lines():
            count += 1
            try:
                faults.add(number, fault(self._question(number, text)))
            except ValueError as error:
                faults.add(number, _told(error))
        if faults.count:
            raise BatchError(f"{self.path}: {faults}\n{ACCEPTED}")
        if not count:
            raise BatchError(f"{self.path}: there is no question in it; {ACCEPTED}")
        return count

    def read(self, wanted: Callable[[int], bool]) -> Iterator[Question]:
        """Yield the questions whose line numbers are wanted. Raises ValueError for a line that is none."""
        return (self._question(number, text) for number, text in self._lines() if wanted(number))

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the lines that are not blank, with their numbers; only line feeds end one, as JSON Lines has it."""
        with self.path.open("rb") as lines:
            for number, text in enumerate(lines, 1):
                if line := text.removeprefix(codecs.BOM_UTF8).strip():
                    yield number, line

    def _question(self, number: int, text: bytes) -> Question:
        line = _Line.model_validate_json(text)
        options = {"mode": line.mode or self.mode, **line.dualfocus}
        asked = json.dumps([line.id, line.image, line.question, options, self.model], sort_keys=True, allow_nan=False)
        fingerprint = blake2b(asked.encode(), digest_size=8).hexdigest()
        source = line.image if line.image.startswith(URL_SCHEMES) else str(self.path.parent / line.image)
        return Question(number, line.id, line.image, source, line.question, options, fingerprint)


class Faults:
    """Faults by line: all are counted, the first are told."""

    def __init__(self) -> None:
        self.count = 0
        self._told: list[str] = []

    def add(self, line: int, fault: str | None) -> None:
        """Add a line's fault, if it has one."""
        if fault is None:
            return
        self.count += 1
        if self.count <= _SHOWN:
            self._told.append(f"line {line}: {fault}")

    def __str__(self) -> str:
        more = [f"and {self.count - _SHOWN} more"] if self.count > _SHOWN else []
        return "\n".join([*self._told, *more])


def missing_image(question: Question) -> str | None:
    """Say that a question's image is no file, where it is neither that nor a URL."""
    if question.source.startswith(URL_SCHEMES):
        return None
    with suppress(OSError):  # a name that is too long, say
        if Path(question.source).is_file():
            return None
    return f"image: there is no file {question.source}"


class _Line(BaseModel):
    model_config = ConfigDict(strict=True)

    image: Annotated[str, Field(min_length=1)]
    question: Annotated[str, Field(min_length=1)]
    id: str | int | None = None
    mode: Literal["dual", "adaptive", "macro", "micro", "off"] | None = None
    dualfocus: dict[str, Any] = {}


def _told(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".removeprefix(": ") for fault in error.errors()
    )
