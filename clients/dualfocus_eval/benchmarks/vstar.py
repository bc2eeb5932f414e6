"""V*Bench: small things in large pictures, with the boxes of what is asked about."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from dualfocus_eval.benchmarks.reading import Entry, distinct, letters, present, read_json
from dualfocus_eval.boxes import Box
from dualfocus_eval.samples import DataError, Sample

CATEGORIES = ("direct_attributes", "relative_position")
FILES = f"huggingface.co/datasets/craigwu/vstar_bench as it is: a folder with {CATEGORIES[0]}/ and {CATEGORIES[1]}/."
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")


def read(folder: Path) -> Iterator[Sample]:
    """Give the questions of each category in turn, options in an order drawn by the question's id. Raises DataError."""
    return distinct(one for category in CATEGORIES for one in _samples(folder, category))


def _samples(folder: Path, category: str) -> Iterator[tuple[Entry, Sample]]:
    paths = sorted(present(folder / category, FILES).glob("*.json"))
    if not paths:
        raise DataError(f"{folder / category}: there are no questions. {FILES}")
    for path in paths:
        yield (entry := _entry(path)), _sample(category, path, entry)


def _sample(category: str, path: Path, entry: Entry) -> Sample:
    first, *others = entry.texts("options")
    name = f"{category}/{path.stem}"
    # The first one is the right one.
    options = tuple(Random(name).sample([first, *others], len(others) + 1))
    answer = (letters(options)[options.index(first)],)
    picture = _picture(entry, path)
    return Sample(name, picture, entry.text("question"), answer, options, category=category, box=_box(entry, picture))


def _entry(path: Path) -> Entry:
    fields = read_json(path)
    if not isinstance(fields, dict):
        raise DataError(f"{path}: expected an object")
    return Entry(str(path), fields)


def _picture(entry: Entry, path: Path) -> Path:
    for suffix in _PICTURES:
        if path.with_suffix(suffix).is_file():
            return path.with_suffix(suffix)
    raise entry.wrong(f"its picture {path.with_suffix('.jpg')} is missing")


def _box(entry: Entry, picture: Path) -> Box:
    """Return what holds all the boxes of a question, which are pixels: x, y, width, height."""
    boxes: Any = entry.fields.get("bbox")
    try:
        corners = [(float(x), float(y), float(x) + float(w), float(y) + float(h)) for x, y, w, h in boxes]
        left, top, right, bottom = zip(*corners, strict=True)
    except (TypeError, ValueError):
        raise entry.wrong(f"`bbox` is {boxes!r:.80}; expected a list of [x, y, width, height]") from None
    wide, high = _size(entry, picture)
    return Box(min(left) / wide, min(top) / high, max(right) / wide, max(bottom) / high)


def _size(entry: Entry, picture: Path) -> tuple[int, int]:
    try:
        with Image.open(picture) as image:
            return image.size
    except OSError as error:
        raise entry.wrong(f"its picture {picture} can't be read: {error}") from error
