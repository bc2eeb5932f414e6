"""SEED-Bench's questions about images, by dimension."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dualfocus_eval.benchmarks.reading import Entry, distinct, entries, present, read_json
from dualfocus_eval.samples import DataError, Sample

QUESTIONS = "SEED-Bench.json"
PICTURES = "SEED-Bench-image"
FILES = (
    f"{QUESTIONS} and SEED-Bench-image.zip from huggingface.co/datasets/AILab-CVC/SEED-Bench in one folder; the zip "
    f"unpacked there, so that it has {PICTURES}/."
)
_OPTIONS = ("choice_a", "choice_b", "choice_c", "choice_d")


def read(folder: Path) -> Iterator[Sample]:
    """Give the questions about images, whose category is their dimension's name. Raises DataError."""
    return distinct(_samples(folder))


def _samples(folder: Path) -> Iterator[tuple[Entry, Sample]]:
    path, pictures = present(folder / QUESTIONS, FILES), present(folder / PICTURES, FILES)
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("question_type"), dict):
        raise DataError(f"{path}: expected an object with `questions` and `question_type`")
    dimensions = {number: name for name, number in data["question_type"].items()}
    for entry in entries(path, data.get("questions")):
        if entry.text("data_type") == "image":
            yield entry, _sample(entry, pictures, dimensions)


def _sample(entry: Entry, pictures: Path, dimensions: dict[Any, str]) -> Sample:
    options = tuple(entry.text(name) for name in _OPTIONS)
    answer = (entry.letter("answer", options),)
    dimension = entry.fields.get("question_type_id")
    if dimension not in dimensions:
        raise entry.wrong(f"`question_type_id` is {dimension!r}, which `question_type` doesn't name")
    picture = entry.picture(pictures / entry.text("data_id"))
    return Sample(
        entry.text("question_id"), picture, entry.text("question"), answer, options, category=dimensions[dimension]
    )
