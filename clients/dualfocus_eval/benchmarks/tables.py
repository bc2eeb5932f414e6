"""Tab-separated tables with pictures in base64, of any size: one row is held at a time."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dualfocus_eval.benchmarks.reading import Entry, decoded, opened
from dualfocus_eval.samples import DataError

# VLMEvalKit's rule: what is as short as this is no picture but the index of the row that has it.
_LONGEST_REFERENCE = 64


class Table:
    """A table whose first row names its columns. Raises DataError where one of `columns` is missing."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        # Other limits would refuse a picture; a C long has 32 bits on Windows.
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        self._path = path
        with opened(path) as file:
            self._names = next(_Records(path, file), [])
        missing = [column for column in columns if column not in self._names]
        if missing:
            raise DataError(f"{path}, line 1: no column {', '.join(missing)}; there are {', '.join(self._names)[:200]}")
        # Where the row of an index begins, of rows that have a picture.
        self._begins: dict[str, int] = {}

    def rows(self) -> Iterator[Entry]:
        """Give each row; a cell that is empty or `nan` is left out. Raises DataError."""
        with opened(self._path) as file:
            records = _Records(self._path, file)
            next(records, None)
            begin = records.offset
            for cells in records:
                if not cells:  # an empty line
                    continue
                entry = self._entry(f"{self._path}, line {records.line}", cells)
                if len(entry.fields.get("image", "")) > _LONGEST_REFERENCE:
                    self._begins[entry.text("index")] = begin
                begin = records.offset
                yield entry

    def picture(self, entry: Entry) -> bytes:
        """Return a row's picture, which may stand in a row above. Raises DataError."""
        cell = entry.text("image")
        if len(cell) > _LONGEST_REFERENCE:
            return decoded(entry, cell)
        if cell not in self._begins:
            raise entry.wrong(f"`image` is {cell!r}: neither a picture in base64 nor the index of a row above with one")
        with opened(self._path) as file:
            file.seek(self._begins[cell])
            return decoded(entry, self._entry(entry.place, next(_Records(self._path, file))).text("image"))

    def _entry(self, place: str, cells: list[str]) -> Entry:
        if len(cells) != len(self._names):
            raise DataError(f"{place}: {len(cells)} cells; the first line names {len(self._names)} columns")
        pairs = zip(self._names, cells, strict=True)
        return Entry(place, {name: cell for name, cell in pairs if cell.strip() not in ("", "nan")})


class _Records:
    """The rows of a file from where it stands: `line` is the last one's last line, `offset` where the next one begins.

    The csv module reads no further than the end of a row, whose cells may have lines of their own.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._reader = csv.reader(self._lines(), delimiter="\t", strict=True)
        self.offset = file.tell()

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        try:
            return next(self._reader)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{self._path}, line {self.line}: can't be read: {error}") from error

    @property
    def line(self) -> int:
        return self._reader.line_num

    def _lines(self) -> Iterator[str]:
        for line in self._file:
            self.offset += len(line)
            yield line.decode("utf-8-sig" if self.offset == len(line) else "utf-8")
