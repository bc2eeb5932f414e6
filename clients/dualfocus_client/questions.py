"""A file of questions, one JSON object a line, read a line at a time."""

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from dualfocus_client.line_formats.line_format import LineFormat, Question
from dualfocus_client.line_formats.openai_lines import OpenAILines, is_openais
from dualfocus_client.line_formats.own_lines import OwnLines

_SHOWN = 20


class BatchError(Exception):
    """Nothing can be asked; the message says why, and what is accepted."""


@dataclass(frozen=True)
class QuestionFile:
    """Questions by their lines, all of the first one's format; `mode` and `model` are for lines that name none."""

    path: Path
    mode: str | None = None
    model: str | None = None

    @cached_property
    def format(self) -> LineFormat:
        """How the lines are written."""
        _, first = next(self._lines(), (0, b""))
        if is_openais(first):
            return OpenAILines(self.mode, self.model)
        return OwnLines(self.path.parent, self.mode or "dual", self.model)

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
                faults.add(number, fault(self.format.question(number, text)))
            except ValueError as error:
                faults.add(number, _describe(error))
        if faults.count:
            raise BatchError(f"{self.path}: {faults}\n{self.format.accepted}")
        if not count:
            raise BatchError(f"{self.path}: there is no question in it; {self.format.accepted}")
        return count

    def read(self, wanted: Callable[[int], bool]) -> Iterator[Question]:
        """Yield the questions whose line numbers are wanted. Raises ValueError for a line that is none."""
        return (self.format.question(number, text) for number, text in self._lines() if wanted(number))

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the lines that are not blank, with their numbers; only line feeds end one, as JSON Lines has it."""
        with self.path.open("rb") as lines:
            for number, text in enumerate(lines, 1):
                if line := text.removeprefix(codecs.BOM_UTF8).strip():
                    yield number, line


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


def _describe(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".removeprefix(": ") for fault in error.errors()
    )
