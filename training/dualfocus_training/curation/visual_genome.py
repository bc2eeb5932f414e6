"""Visual Genome's files, indexed by image in a small database, so that nothing must fit in memory.

The index is built once and kept, with counts of what is irregular: a curation that was stopped finds it and goes on.
"""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualfocus_training.curation.irregularities import Odd, odd_regions
from dualfocus_training.curation.release import (
    IMAGES,
    MAPPING,
    OBJECTS,
    QUESTIONS,
    REGIONS,
    Rectangle,
    area,
    clipped,
    image_of,
    names_of,
    question_number,
    questions_by_image,
    rectangle,
    region_of,
)
from dualfocus_training.curation.streaming import items

Progress = Callable[[str, int], None]
# The folders in which the release's pictures lie, as the pictures' URLs name them.
_FOLDER = re.compile(r"/(VG_100K(?:_2)?)/[^/]*$")


@dataclass(frozen=True)
class Thing:
    """An annotated object: its names, and its place, clipped to the image."""

    names: tuple[str, ...]
    place: Rectangle


@dataclass(frozen=True)
class Region:
    """The image that a region is of, and its place, which may reach out of the image."""

    image: int
    place: Rectangle


@dataclass(frozen=True)
class Asked:
    """A question with its answer, and the region it was asked about; `mapped` says that the mapping names one."""

    number: int
    question: str
    answer: str
    region: Region | None
    mapped: bool = True


@dataclass(frozen=True)
class Annotated:
    """An image with all that is asked about it; `image_data.json` has its size, and the folder it lies in."""

    number: int
    size: tuple[int, int] | None
    things: tuple[Thing, ...]
    asked: tuple[Asked, ...]
    folder: str = ""


class Genome:
    """A release's files, read image by image."""

    def __init__(self, folder: Path, index: Path, progress: Progress) -> None:
        self._folder, self._progress = folder, progress
        self._odd: Counter[str] = Counter()
        self._base = sqlite3.connect(index)
        self._base.execute("CREATE TABLE IF NOT EXISTS odd (name TEXT PRIMARY KEY, count INTEGER)")
        # Images first: their sizes are needed for what follows.
        self._index(IMAGES, self._image_rows)
        self._index(OBJECTS, self._object_rows)
        self._index(REGIONS, self._region_rows)
        self._index(MAPPING, self._mapping_rows)

    def images(self) -> Iterator[Annotated]:
        """Every image that stands in the questions' file, in its order, those without questions too."""
        for number, entries in questions_by_image(self._folder / QUESTIONS):
            asked = tuple(map(self._asked, entries))
            yield Annotated(number, self._size(number), self._things(number), asked, self._folder_of(number))

    def irregularities(self) -> Counter[str]:
        """What is irregular in the files, the questions' apart."""
        counted = Counter(dict(self._base.execute("SELECT name, count FROM odd").fetchall()))
        shared = "SELECT 1 FROM qa_to_region_mapping GROUP BY value HAVING COUNT(*) > 1"
        counted[Odd.SEVERAL] = self._count(shared)
        known, drawn = "SELECT number FROM image_data", "SELECT number FROM objects"
        described = "SELECT DISTINCT json_extract(value, '$[0]') FROM region_descriptions"
        counted[Odd.OBJECTS_UNKNOWN] = self._count(f"{drawn} EXCEPT {known}")
        counted[Odd.OBJECTS_LACK] = self._count(f"{known} EXCEPT {drawn}")
        counted[Odd.REGIONS_UNKNOWN] = self._count(f"{described} EXCEPT {known}")
        counted[Odd.REGIONS_LACK] = self._count(f"{known} EXCEPT {described}")
        return counted

    def totals(self) -> tuple[int, int]:
        """How many images `image_data.json` has, and how many questions the mapping."""
        return self._count("SELECT 1 FROM image_data"), self._count("SELECT 1 FROM qa_to_region_mapping")

    def _count(self, select: str) -> int:
        count: int = self._base.execute(f"SELECT COUNT(*) FROM ({select})").fetchone()[0]
        return count

    def _index(self, name: str, rows: Callable[[Path], Iterable[tuple[int, str]]]) -> None:
        """Index a file unless it already is; half an index is never kept."""
        table = name.removesuffix(".json")
        known = "SELECT 1 FROM sqlite_master WHERE name = ?"
        if self._base.execute(known, (table,)).fetchone():
            return
        self._odd.clear()
        with self._base:
            self._base.execute("BEGIN")
            self._base.execute(f"CREATE TABLE {table} (number INTEGER PRIMARY KEY, value TEXT)")
            counted = self._counted(name, rows(self._folder / name))
            self._base.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", counted)
            self._base.executemany("INSERT INTO odd VALUES (?, ?)", self._odd.items())

    def _counted(self, name: str, rows: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        for count, row in enumerate(rows, start=1):
            self._progress(name, count)
            yield row

    @staticmethod
    def _image_rows(path: Path) -> Iterator[tuple[int, str]]:
        for entry in items(path):
            named = _FOLDER.search(entry.get("url") or "")
            yield image_of(entry), json.dumps([entry["width"], entry["height"], named[1] if named else ""])

    def _object_rows(self, path: Path) -> Iterator[tuple[int, str]]:
        for entry in items(path):
            size = self._size(image_of(entry))
            things = [[names_of(thing), rectangle(thing, "w", "h")] for thing in entry["objects"]]
            yield image_of(entry), json.dumps(list(self._inside(things, size)))

    def _inside(self, things: Iterable[list[Any]], size: tuple[int, int] | None) -> Iterator[list[Any]]:
        """Those that show in an image of this size, clipped to it."""
        for names, place in things:
            inside = clipped(place, size) if size else place
            self._odd[Odd.OBJECT_CLIPPED] += inside != place and bool(area(inside))
            self._odd[Odd.OBJECT_DROPPED] += not area(inside)
            if area(inside):
                yield [names, inside]

    def _region_rows(self, path: Path) -> Iterator[tuple[int, str]]:
        for entry in items(path):
            image = image_of(entry)
            placed = [(rectangle(region, "width", "height"), region["phrase"]) for region in entry["regions"]]
            self._odd.update(odd_regions(placed, self._size(image)))
            for region, (place, _) in zip(entry["regions"], placed, strict=True):
                number, of = region_of(region, image)
                yield number, json.dumps([of, *place])

    @staticmethod
    def _mapping_rows(path: Path) -> Iterator[tuple[int, str]]:
        # One object of whole numbers: the smallest of the files, and no array.
        mapping: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
        for question, region in mapping.items():
            yield int(question), json.dumps(region)

    def _value(self, table: str, number: int) -> Any:
        found = self._base.execute(f"SELECT value FROM {table} WHERE number = ?", (number,)).fetchone()
        return json.loads(found[0]) if found else None

    def _size(self, number: int) -> tuple[int, int] | None:
        found = self._value("image_data", number)
        return (found[0], found[1]) if found else None

    def _folder_of(self, number: int) -> str:
        folder: str = (self._value("image_data", number) or [""])[-1]
        return folder

    def _things(self, number: int) -> tuple[Thing, ...]:
        return tuple(
            Thing(tuple(name.strip().lower() for name in names), tuple(place))
            for names, place in self._value("objects", number) or ()
        )

    def _asked(self, entry: dict[str, Any]) -> Asked:
        number = question_number(entry)
        mapped = self._value("qa_to_region_mapping", number)
        found = None if mapped is None else self._value("region_descriptions", mapped)
        region = Region(found[0], tuple(found[1:])) if found else None
        return Asked(number, entry["question"], entry["answer"], region, mapped is not None)
