"""GQA's balanced test-dev questions, and the paper's GQA*: the same ones with options."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dualfocus_eval.benchmarks.reading import Entry, distinct, json_lines, letters, present, read_json
from dualfocus_eval.samples import DataError, Sample

QUESTIONS = "testdev_balanced_questions.json"
OPTIONS = "llava_gqa_testdev_balanced_mcq.jsonl"
PICTURES = "images"
FILES = (
    f"questions1.2.zip and images.zip from cs.stanford.edu/people/dorarad/gqa: {QUESTIONS} of the first and "
    f"{PICTURES}/ of the second in one folder."
)
MCQ_FILES = f"{FILES} Beside them {OPTIONS} from huggingface.co/datasets/yhcao/GQA-MCQ."
_OPTION = re.compile(r"([A-Z])\. ?(.*)")


def read(folder: Path) -> Iterator[Sample]:
    """Give the questions in the order of GQA's file. Raises DataError."""
    pictures = present(folder / PICTURES, FILES)
    known = _known(present(folder / QUESTIONS, FILES))
    yield from distinct((entry, _sample(name, entry, pictures)) for name, entry in known.items())


def _known(path: Path) -> dict[str, Entry]:
    data = read_json(path)
    if not isinstance(data, dict) or not data or not all(isinstance(fields, dict) for fields in data.values()):
        raise DataError(f"{path}: expected an object of questions by their ids")
    return {name: Entry(f"{path}, question {name}", fields) for name, fields in data.items()}


def _sample(name: str, entry: Entry, pictures: Path) -> Sample:
    picture = entry.picture(pictures / f"{entry.text('imageId')}.jpg")
    return Sample(name, picture, entry.text("question"), (entry.text("answer"),), category=_category(entry))


def _category(entry: Entry) -> str:
    types: Any = entry.fields.get("types")
    if not isinstance(types, dict) or "structural" not in types:
        raise entry.wrong("no `types` with `structural`")
    return "open" if types["structural"] == "query" else "binary"


def read_mcq(folder: Path) -> Iterator[Sample]:
    """Give the questions in the order of the file with options. Raises DataError.

    Right is each option whose text is GQA's answer; where none is, no reply is right, as in the paper's tables.
    """
    return distinct(_mcq_samples(folder))


def _mcq_samples(folder: Path) -> Iterator[tuple[Entry, Sample]]:
    known, pictures = _known(present(folder / QUESTIONS, MCQ_FILES)), present(folder / PICTURES, MCQ_FILES)
    for entry in json_lines(present(folder / OPTIONS, MCQ_FILES)):
        name = entry.text("question_id")
        if name not in known:
            raise entry.wrong(f"{QUESTIONS} has no question {name!r}")
        question, options = _parts(entry)
        answer = known[name].text("answer").lower()
        pairs = zip(letters(options), options, strict=True)
        right = tuple(letter for letter, option in pairs if option.rstrip(".").lower() == answer)
        picture = entry.picture(pictures / entry.text("image"))
        yield entry, Sample(name, picture, question, right, options, category=_category(known[name]))


def _parts(entry: Entry) -> tuple[str, tuple[str, ...]]:
    """Return the question, which is the first line, and the options' texts."""
    question, *lines = entry.text("question").strip().split("\n")
    found = [_OPTION.fullmatch(line.strip()) for line in lines]
    options = tuple(match[2] for match in found if match)
    if not options or tuple(match and match[1] for match in found) != letters(options):
        raise entry.wrong(
            f"`question` is {entry.text('question')[:80]!r}; expected a question and lines A., B. and so on"
        )
    return question, options
