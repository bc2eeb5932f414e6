"""POPE: is there such a thing in the picture, asked in three ways of choosing what is not there."""

from collections.abc import Iterator
from pathlib import Path

from dualfocus_eval.benchmarks.reading import Entry, distinct, json_lines, present
from dualfocus_eval.samples import Sample

CATEGORIES = ("adversarial", "popular", "random")
PICTURES = "val2014"
FILES = (
    "coco_pope_adversarial.json, coco_pope_popular.json and coco_pope_random.json from github.com/AoiDragon/POPE "
    "(published numbers have those of commit e3e39262: 2,910 random questions, not 3,000) and val2014.zip from "
    f"cocodataset.org in one folder; the zip unpacked there, so that it has {PICTURES}/."
)


def read(folder: Path) -> Iterator[Sample]:
    """Give the questions of each category in turn. Raises DataError."""
    return distinct(one for category in CATEGORIES for one in _samples(folder, category))


def _samples(folder: Path, category: str) -> Iterator[tuple[Entry, Sample]]:
    pictures = present(folder / PICTURES, FILES)
    for entry in json_lines(present(folder / f"coco_pope_{category}.json", FILES)):
        label = entry.text("label")
        if label not in ("yes", "no"):
            raise entry.wrong(f"`label` is {label!r}; expected yes or no")
        picture = entry.picture(pictures / entry.text("image"))
        name = f"{category}/{entry.text('question_id')}"
        yield entry, Sample(name, picture, entry.text("text"), (label,), category=category, stratum=label)
