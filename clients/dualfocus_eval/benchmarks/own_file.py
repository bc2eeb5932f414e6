"""Questions of one's own: a file of JSON lines."""

from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from dualfocus_eval.benchmarks.reading import Entry, distinct, json_lines, letters, present
from dualfocus_eval.boxes import Box
from dualfocus_eval.samples import Sample
from dualfocus_eval.scoring.letters import mapped_letter

FILES = (
    "A file of JSON lines: `image` (a path from the file's folder), `question`, `answer` or `answers`; with `options` "
    "the answer is a letter or an option's text. `id`, and `box` ([x1, y1, x2, y2] as shares of the picture) if known."
)


def read(path: Path) -> Iterator[Sample]:
    """Give the questions; the id is the line's number where it has none. Raises DataError."""
    return distinct(_samples(path))


def _samples(path: Path) -> Iterator[tuple[Entry, Sample]]:
    for entry in json_lines(present(path, FILES)):
        options = entry.texts("options") if "options" in entry.fields else ()
        if len(options) == 1 or len(options) > len(ascii_uppercase):
            raise entry.wrong(f"`options` has {len(options)} texts; expected 2 to {len(ascii_uppercase)}")
        name = entry.text("id") if "id" in entry.fields else entry.place.rpartition(" ")[2]
        picture = entry.picture(path.parent / entry.text("image"))
        question, answers = entry.text("question"), _answers(entry, options)
        yield entry, Sample(name, picture, question, answers, options, box=_box(entry))


def _answers(entry: Entry, options: tuple[str, ...]) -> tuple[str, ...]:
    answers = entry.texts("answers") if "answers" in entry.fields else (entry.text("answer"),)
    return tuple(_letter(entry, answer, options) for answer in answers) if options else answers


def _letter(entry: Entry, answer: str, options: tuple[str, ...]) -> str:
    if answer in options:
        return letters(options)[options.index(answer)]
    if answer.upper() in letters(options):
        return answer.upper()
    raise entry.wrong(f"the answer {answer!r} is neither one of {', '.join(letters(options))} nor an option's text")


def _box(entry: Entry) -> Box | None:
    given: Any = entry.fields.get("box")
    if given is None:
        return None
    try:
        box = Box(*map(float, given))
    except (TypeError, ValueError):
        box = Box(0, 0, 0, 0)
    if not box.area or not all(0 <= share <= 1 for share in box.as_tuple()):
        raise entry.wrong(f"`box` is {given!r:.80}; expected [x1, y1, x2, y2] as shares of the picture, 0 to 1")
    return box


def score(sample: Sample, reply: str) -> float:
    """Return 1 where the reply is an answer, in either case and without full stops at its end.

    With options it is 1 where the reply means the right letter, as the released DualFocus scripts have it.
    """
    if sample.options:
        return mapped_letter(sample, reply)
    return float(_plain(reply) in map(_plain, sample.answers))


def _plain(answer: str) -> str:
    return answer.strip().rstrip(".").lower()
