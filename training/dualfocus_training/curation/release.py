"""Visual Genome's files as they are: their names, and the forms they came in over the years."""

import json
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from dualfocus_training.curation.streaming import items

# The files of a release that are read, by what they hold.
IMAGES, OBJECTS = "image_data.json", "objects.json"
REGIONS, MAPPING = "region_descriptions.json", "qa_to_region_mapping.json"
QUESTIONS = "question_answers.json"

# Left, top, right and bottom in pixels.
Rectangle = tuple[float, float, float, float]

# What an entry of each must have, in any of these forms: the first is 1.2's, the next ones are older.
_FORMS: dict[str, tuple[tuple[str, ...], ...]] = {
    IMAGES: (("image_id", "width", "height"), ("id", "width", "height")),
    OBJECTS: (("image_id", "objects"), ("id", "objects")),
    REGIONS: (("id", "regions"), ("image_id", "regions")),
    QUESTIONS: (("id", "qas"), ("image_id", "qas"), ("id", "image", "question", "answer")),
}
# The download of 1.2 once held a smaller file under the same name; the whole one has 803 MB.
_USUAL_BYTES = {QUESTIONS: 803_000_000}


def look_at(folder: Path) -> dict[str, str]:
    """What each file of a release is found to be, by its name: its size and its first entry's keys.

    Raises ValueError naming the file whose entries have no known form, and what was found.
    """
    mapping = folder / MAPPING
    if not (isinstance(read := json.loads(mapping.read_text(encoding="utf-8")), dict)):
        raise ValueError(f"{MAPPING} holds no object of questions and their regions")
    found = {name: _found(folder / name, forms) for name, forms in _FORMS.items()}
    return found | {MAPPING: f"{mapping.stat().st_size:,} bytes, {len(read):,} entries"}


def _found(path: Path, forms: tuple[tuple[str, ...], ...]) -> str:
    first = next(islice(items(path), 1), None)
    keys = sorted(first) if isinstance(first, dict) else []
    if not any(set(form) <= set(keys) for form in forms):
        known = "; or ".join(", ".join(form) for form in forms)
        raise ValueError(f"{path.name} begins with an entry of {', '.join(keys) or repr(first)}: it needs {known}")
    size, usual = path.stat().st_size, _USUAL_BYTES.get(path.name, 0)
    part = f" (the whole file has about {usual:,})" if size < usual / 2 else ""
    return f"{size:,} bytes{part}, entries of {', '.join(keys)}"


def image_of(entry: dict[str, Any]) -> int:
    """The number of an entry's image, which releases call by either name."""
    number: int = entry["image_id"] if "image_id" in entry else entry["id"]
    return number


def region_of(region: dict[str, Any], image: int) -> tuple[int, int]:
    """A region's number and its image's, which is that of its entry where it names none."""
    number: int = region["region_id"] if "region_id" in region else region["id"]
    return number, region.get("image_id", region.get("image", image))


def names_of(thing: dict[str, Any]) -> list[str]:
    """An object's names, of which some releases give one alone."""
    names: list[str] = thing["names"] if "names" in thing else [thing["name"]]
    return names


def rectangle(entry: dict[str, Any], width: str, height: str) -> Rectangle:
    """The place of a region or an object, which differ in how they call its sides."""
    left, top = entry["x"], entry["y"]
    return left, top, left + entry[width], top + entry[height]


def questions_by_image(path: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Each image's number with its questions; the old flat form has a question an entry, an image's in a row."""
    for image, entries in groupby(
        items(path), key=lambda entry: entry["image"] if "image" in entry else image_of(entry)
    ):
        yield image, [question for entry in entries for question in entry.get("qas", [entry])]


def question_number(entry: dict[str, Any]) -> int:
    """A question's number, by either name."""
    number: int = entry["qa_id"] if "qa_id" in entry else entry["id"]
    return number


def clipped(place: Rectangle, size: tuple[int, int]) -> Rectangle:
    """The part of a rectangle inside an image of `size` (width, height)."""
    left, top, right, bottom = place
    width, height = size
    return max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom)


def area(place: Rectangle) -> float:
    """Its area in square pixels, 0 of what is turned inside out."""
    return max(0.0, place[2] - place[0]) * max(0.0, place[3] - place[1])
