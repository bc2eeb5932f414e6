"""Tables of VLMEvalKit's form, one row a question with its options and its picture: MMBench and HR-Bench."""

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from dualfocus_eval.benchmarks.reading import Entry, distinct, present
from dualfocus_eval.benchmarks.tables import Table
from dualfocus_eval.samples import Sample

# The one that the paper and LLaVA used, and VLMEvalKit's later form of it.
MMBENCH = ("mmbench_dev_20230712.tsv", "MMBench_DEV_EN.tsv")
MMBENCH_FILES = f"{MMBENCH[0]} or {MMBENCH[1]} from github.com/open-compass/MMBench, in a folder."
HRBENCH = "hr_bench_{}.tsv"
HRBENCH_FILES = "hr_bench_{}.tsv from huggingface.co/datasets/DreamMr/HR-Bench, in a folder."
_OPTIONS = ("A", "B", "C", "D")
_COLUMNS = ("index", "question", *_OPTIONS, "answer", "category", "image")
# The rotations of a question have its index plus multiples of this.
_ROTATION = 1_000_000


def read_mmbench(folder: Path) -> Iterator[Sample]:
    """Give the questions and their rotations, whose group is the question's index. Raises DataError."""
    paths = [path for name in MMBENCH if (path := folder / name).exists()] or [folder / MMBENCH[0]]
    table = Table(present(paths[0], MMBENCH_FILES), (*_COLUMNS, "hint"))
    return distinct(
        (row, _sample(table, row, group=str(_number(row) % _ROTATION), context=row.fields.get("hint", "")))
        for row in table.rows()
    )


def read_hrbench(size: str, folder: Path) -> Iterator[Sample]:
    """Give the questions of `4k` or `8k`, each in four cycles: their stratum; the same question is their group.

    Raises DataError.
    """
    table = Table(present(folder / HRBENCH.format(size), HRBENCH_FILES.format(size)), (*_COLUMNS, "cycle_category"))
    return distinct((row, _sample(table, row, stratum=row.text("cycle_category"))) for row in table.rows())


def _sample(table: Table, row: Entry, group: str = "", context: str = "", stratum: str = "") -> Sample:
    options = tuple(row.text(letter) for letter in _OPTIONS if letter in row.fields)
    if options != tuple(row.fields.get(letter) for letter in _OPTIONS[: len(options)]) or len(options) < 2:
        raise row.wrong("expected two options or more, from A on without a gap")
    answer = (row.letter("answer", options),)
    name, picture, question = row.text("index"), table.picture(row), row.text("question")
    if not group:  # no column tells which rows are one question's
        group = blake2b(picture + question.encode(), digest_size=8).hexdigest()
    category = row.text("category")
    return Sample(name, picture, question, answer, options, context, category, group, stratum=stratum)


def _number(row: Entry) -> int:
    index = row.text("index")
    if not index.isdecimal():
        raise row.wrong(f"`index` is {index!r}; expected a whole number")
    return int(index)
