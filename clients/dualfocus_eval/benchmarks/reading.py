"""What readers share: files of a benchmark, each wrong one named with its line and with what was expected."""

import base64
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, BinaryIO

from PIL import Image

from dualfocus_eval.samples import DataError, Sample


@dataclass(frozen=True)
class Entry:
    """A question as a file has it; `place` is where: the file and its line."""

    place: str
    fields: dict[str, Any]

    def text(self, name: str) -> str:
        """Return a field's text, a whole number's digits. Raises DataError where it has none."""
        value = self.fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(f"`{name}` is {self._shown(name)}; expected a text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a field's list of texts. Raises DataError where it is none, or empty."""
        value = self.fields.get(name)
        if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
            raise self.wrong(f"`{name}` is {self._shown(name)}; expected a list of texts")
        return tuple(value)

    def letter(self, name: str, options: tuple[str, ...]) -> str:
        """Return a field's letter. Raises DataError where it is none of an option."""
        letter = self.text(name).strip().upper()
        if letter not in letters(options):
            raise self.wrong(f"`{name}` is {self._shown(name)}; expected one of {', '.join(letters(options))}")
        return letter

    def picture(self, path: Path) -> Path:
        """Return the path of a picture. Raises DataError where it is missing."""
        if not path.is_file():
            raise self.wrong(f"its picture {path} is missing")
        return path

    def wrong(self, what: str) -> DataError:
        """Return an error that names the place."""
        return DataError(f"{self.place}: {what}")

    def _shown(self, name: str) -> str:
        return repr(self.fields[name])[:80] if name in self.fields else "missing"


def letters(options: tuple[str, ...]) -> tuple[str, ...]:
    """Return the options' letters, in order."""
    return tuple(ascii_uppercase[: len(options)])


def present(path: Path, files: str) -> Path:
    """Return the path of a file or folder; where it is missing, DataError says what to download."""
    if not path.exists():
        raise DataError(f"{path} is missing. {files}")
    return path


def read_json(path: Path) -> Any:
    """Return what a JSON file holds. Raises DataError."""
    with opened(path) as file:
        text = file.read()
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: is not valid JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8: {error}") from error


def entries(path: Path, values: Any) -> Iterator[Entry]:
    """Give each of a list's objects, which are counted from 1. Raises DataError."""
    if not isinstance(values, list):
        raise DataError(f"{path}: expected a list of questions")
    for number, value in enumerate(values, 1):
        yield _entry(f"{path}, entry {number}", value)


def json_lines(path: Path) -> Iterator[Entry]:
    """Give each line's object; empty lines are passed over. Raises DataError."""
    with opened(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _entry(f"{path}, line {number}", _parsed(f"{path}, line {number}", line))


def opened(path: Path) -> BinaryIO:
    """Open a file. Raises DataError."""
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from error


def _parsed(place: str, text: bytes) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: is not valid JSON: {error.msg} (column {error.colno})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: is not UTF-8: {error}") from error


def _entry(place: str, value: Any) -> Entry:
    if not isinstance(value, dict):
        raise DataError(f"{place}: expected an object")
    return Entry(place, value)


def decoded(entry: Entry, text: str) -> bytes:
    """Return the bytes of a picture in base64. Raises DataError where it is neither."""
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
        with Image.open(io.BytesIO(content)):  # no more than its head is read
            return content
    except ValueError as error:
        raise entry.wrong(f"its picture is not valid base64: {error}") from error
    except OSError as error:
        raise entry.wrong("its base64 holds no picture") from error


def distinct(samples: Iterable[tuple[Entry, Sample]]) -> Iterator[Sample]:
    """Give the samples. Raises DataError at the first whose id another has, and where there are none."""
    places: dict[str, str] = {}
    for entry, sample in samples:
        if sample.id in places:
            raise entry.wrong(f"the id {sample.id!r} is that of {places[sample.id]} too")
        places[sample.id] = entry.place
        yield sample
    if not places:
        raise DataError("the files hold no questions")
