"""What a benchmark is made of: its questions, as its files have them, and the rules that it is known by."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dualfocus_eval.boxes import Box


class DataError(Exception):
    """A benchmark's files can't be used; the message names the file, the line and what was expected."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One question about one picture.

    `id` is its own among the benchmark's; `image` a file, or the bytes of one. `question` stands alone: `options` (in
    the order of their letters) and `context` (MMBench's hint, TextVQA's OCR line) are put to it by the wording.
    `answers` are the right ones, with options the right letter. `category` is what figures are told by, `group` names
    questions that are judged together (the rotations of one), `box` is where the answer is to be seen. `stratum` is
    what else a rule counts apart: HR-Bench's cycle, POPE's right answer.
    """

    id: str
    image: Path | bytes
    question: str
    answers: tuple[str, ...]
    options: tuple[str, ...] = ()
    context: str = ""
    category: str = ""
    group: str = ""
    box: Box | None = None
    stratum: str = ""


@dataclass(frozen=True, slots=True)
class Scored:
    """A question's reply and what it is worth, 0 to 1; figures count it `weight` times."""

    sample: Sample
    reply: str
    score: float
    weight: int = 1


Wording = Callable[[Sample], str]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that people quote.

    `files` says what to download and where to put it, `licence` under which terms it is given. `read` raises DataError,
    also where there are no questions or two have one id.
    `wordings` are the texts that are asked, by the name of the harness whose words they are (`--prompts`); `figures`
    are what it is quoted by, shares of 1 by name, the first one the headline; of a reply they see its score and weight,
    and of its question the category, group and stratum.
    """

    name: str
    summary: str
    files: str
    licence: str
    read: Callable[[Path], Iterator[Sample]]
    wordings: Mapping[str, Wording]
    score: Callable[[Sample, str], float]
    figures: Callable[[Sequence[Scored]], dict[str, float]]
