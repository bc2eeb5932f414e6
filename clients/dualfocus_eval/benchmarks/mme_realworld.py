"""MME-RealWorld: large photographs, five options of which the last one refuses."""

import re
from collections.abc import Iterator
from pathlib import Path

from dualfocus_eval.benchmarks.reading import Entry, distinct, entries, letters, present, read_json
from dualfocus_eval.samples import Sample

QUESTIONS = "MME_RealWorld.json"
FILES = (
    f"{QUESTIONS} and the archives of pictures from huggingface.co/datasets/yifanzhang114/MME-RealWorld in one folder, "
    "the archives unpacked there (a question's `Image` is a path from that folder)."
)
_OPTION = re.compile(r"\(([A-E])\) ?(.*)", re.DOTALL)


def read(folder: Path) -> Iterator[Sample]:
    """Give the questions, whose category is their task and subtask (`Perception/Remote Sensing`). Raises DataError."""
    return distinct(_samples(folder))


def _samples(folder: Path) -> Iterator[tuple[Entry, Sample]]:
    path = present(folder / QUESTIONS, FILES)
    for entry in entries(path, read_json(path)):
        options = _options(entry)
        answer = (entry.letter("Ground truth", options),)
        picture = entry.picture(folder / entry.text("Image"))
        category = f"{entry.text('Task')}/{entry.text('Subtask')}"
        name, question = entry.text("Question_id"), entry.text("Text")
        yield entry, Sample(name, picture, question, answer, options, category=category)


def _options(entry: Entry) -> tuple[str, ...]:
    """Return the options' texts, without their letters."""
    found = [_OPTION.fullmatch(choice.strip()) for choice in entry.texts("Answer choices")]
    options = tuple(match[2] for match in found if match)
    if len(options) < 2 or tuple(match and match[1] for match in found) != letters(options):
        raise entry.wrong("`Answer choices`: expected texts that begin with (A), (B) and so on, in order")
    return options
