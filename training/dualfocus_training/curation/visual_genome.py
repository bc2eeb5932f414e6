"""Visual Genome's files, indexed by image in a small database, so that nothing must fit in memory.

The index is built once and kept: a curation that was stopped finds it and goes on.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualfocus_training.curation.streaming import items

# The files of a release that are read, by what they hold.
IMAGES, OBJECTS = "image_data.json", "objects.json"
REGIONS, MAPPING = "region_descriptions.json", "qa_to_region_mapping.json"
QUESTIONS = "question_answers.json"

Rectangle = tuple[float, float, float, float]
Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Thing:
    """An annotated object: its names, and left, top, right and bottom in pixels."""

    names: tuple[str, ...]
    place: Rectangle


@dataclass(frozen=True)
class Asked:
    """A question with its answer, and the region it was asked about, if the mapping knows one."""

    number: int
    question: str
    answer: str
    region: Rectangle | None


@dataclass(frozen=True)
class Annotated:
    """An image with all that is asked about it."""

    number: int
    size: tuple[int, int]
    things: tuple[Thing, ...]
    asked: tuple[Asked, ...]


class Genome:
    """A release's files, read image by image."""

    def __init__(self, folder: Path, index: Path, progress: Progress) -> None:
        self._folder, self._progress = folder, progress
        self._base = sqlite3.connect(index)
        self._index(IMAGES, self._image_rows)
        self._index(OBJECTS, self._object_rows)
        self._index(REGIONS, self._region_rows)
        self._index(MAPPING, self._mapping_rows)

    def images(self) -> Iterator[Annotated]:
        """Every image that has questions, in the order of the questions' file."""
        for entry in items(self._folder / QUESTIONS):
            number = _image_of(entry)
            yield Annotated(number, self._size(number), self._things(number), self._asked(entry["qas"]))

    def _index(self, name: str, rows: Callable[[Path], Iterable[tuple[int, str]]]) -> None:
        """Index a file unless it already is; half an index is never kept."""
        table = name.removesuffix(".json")
        known = "SELECT 1 FROM sqlite_master WHERE name = ?"
        if self._base.execute(known, (table,)).fetchone():
            return
        with self._base:
            self._base.execute("BEGIN")
            self._base.execute(f"CREATE TABLE {table} (number INTEGER PRIMARY KEY, value TEXT)")
            counted = self._counted(name, rows(self._folder / name))
            self._base.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", counted)

    def _counted(self, name: str, rows: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        for count, row in enumerate(rows, start=1):
            self._progress(name, count)
            yield row

    @staticmethod
    def _image_rows(path: Path) -> Iterator[tuple[int, str]]:
        for entry in items(path):
            yield _image_of(entry), json.dumps([entry["width"], entry["height"]])

    @staticmethod
    def _object_rows(path: Path) -> Iterator[tuple[int, str]]:
        for entry in items(path):
            things = [[thing["names"], _rectangle(thing, "w", "h")] for thing in entry["objects"]]
            yield _image_of(entry), json.dumps(things)

    @staticmethod
    def _region_rows(path: Path) -> Iterator[tuple[int, str]]:
        for entry in items(path):
            for region in entry["regions"]:
                yield region["region_id"], json.dumps(_rectangle(region, "width", "height"))

    @staticmethod
    def _mapping_rows(path: Path) -> Iterator[tuple[int, str]]:
        # One object of whole numbers: the smallest of the files, and no array.
        mapping: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
        for question, region in mapping.items():
            yield int(question), json.dumps(region)

    def _value(self, table: str, number: int) -> Any:
        found = self._base.execute(f"SELECT value FROM {table} WHERE number = ?", (number,)).fetchone()
        return json.loads(found[0]) if found else None

    def _size(self, number: int) -> tuple[int, int]:
        width, height = self._value("image_data", number) or (0, 0)
        return width, height

    def _things(self, number: int) -> tuple[Thing, ...]:
        return tuple(
            Thing(tuple(name.strip().lower() for name in names), tuple(place))
            for names, place in self._value("objects", number) or ()
        )

    def _asked(self, entries: Iterable[dict[str, Any]]) -> tuple[Asked, ...]:
        return tuple(
            Asked(entry["qa_id"], entry["question"], entry["answer"], self._region(entry["qa_id"])) for entry in entries
        )

    def _region(self, question: int) -> Rectangle | None:
        region = self._value("qa_to_region_mapping", question)
        place = None if region is None else self._value("region_descriptions", region)
        return tuple(place) if place else None


def _image_of(entry: dict[str, Any]) -> int:
    """Releases call an image's number by either name."""
    number: int = entry["image_id"] if "image_id" in entry else entry["id"]
    return number


def _rectangle(entry: dict[str, Any], width: str, height: str) -> Rectangle:
    left, top = entry["x"], entry["y"]
    return left, top, left + entry[width], top + entry[height]
