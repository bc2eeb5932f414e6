"""Images that are left out: those of a benchmark that a model will be asked about."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_FIELDS = ("imageId", "image_id", "image", "img_id")


def excluded_images(files: Iterable[Path]) -> frozenset[int]:
    """The image numbers that files name, each as GQA's questions, as LLaVA's lines or as a list of numbers or names.

    A name counts by its digits: `n161313.jpg` leaves 161313 out. Raises ValueError naming a file that names no image.
    """
    return frozenset(number for file in files for number in _of_file(file))


def _of_file(file: Path) -> set[int]:
    text = file.read_text(encoding="utf-8")
    try:
        entries = [json.loads(text)]
    except json.JSONDecodeError:
        entries = [json.loads(line) if line.startswith("{") else line for line in map(str.strip, text.splitlines())]
    numbers = {number for entry in entries for name in _names(entry) for number in _number(name)}
    if not numbers:
        raise ValueError(f"{file} names no image: it needs one a line, or entries with {', '.join(_FIELDS)}")
    return numbers


def _names(entry: Any) -> Iterator[str]:
    """Names in an entry: a question's image, those of a list, or those of GQA's object of questions."""
    if isinstance(entry, dict):
        named = [entry[field] for field in _FIELDS if field in entry]
        parts = named[:1] or [part for part in entry.values() if isinstance(part, dict)]
    elif isinstance(entry, list):
        parts = entry
    else:
        yield str(entry)
        return
    for part in parts:
        yield from _names(part)


def _number(name: str) -> Iterator[int]:
    found = re.fullmatch(r"[a-z]?(\d+)", Path(name).stem)
    if found:
        yield int(found[1])
