"""Broken files: the file and the line are named, and what was expected."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dualfocus_eval.benchmarks import BENCHMARKS, gqa, multiple_choice, pope, seed, textvqa
from dualfocus_eval.samples import DataError

from ..layouts import WRITERS

Change = Callable[[Path], None]


def _lines(change: Callable[[list[str]], None]) -> Change:
    def apply(path: Path) -> None:
        lines = path.read_text(encoding="utf-8").split("\n")
        change(lines)
        path.write_text("\n".join(lines), encoding="utf-8")

    return apply


def _json(change: Callable[[Any], None]) -> Change:
    def apply(path: Path) -> None:
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return apply


def _field(number: int, name: str, value: Any) -> Change:
    """Put a value into a line's field."""

    def change(lines: list[str]) -> None:
        lines[number - 1] = json.dumps(json.loads(lines[number - 1]) | {name: value})

    return _lines(change)


def _cell(number: int, name: str, value: str) -> Change:
    """Put a value into a row's cell; the heading is row 1."""

    def apply(path: Path) -> None:
        csv.field_size_limit(2**31 - 1)
        rows = list(csv.reader(io.StringIO(path.read_text()), delimiter="\t"))
        rows[number - 1][rows[0].index(name)] = value
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)

    return apply


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _cut_line(number: int) -> Change:
    return _lines(lambda lines: lines.__setitem__(number - 1, lines[number - 1][:-10]))


def _again(number: int) -> Change:
    return _lines(lambda lines: lines.insert(number, lines[number - 1]))


def _remove(path: Path) -> None:
    path.unlink()


HR, MM = "hr_bench_4k.tsv", multiple_choice.MMBENCH[0]
ADVERSARIAL, REALWORLD, OWN = "coco_pope_adversarial.json", "MME_RealWorld.json", "questions.jsonl"
VSTAR = "direct_attributes/sa_0.json"

# Benchmark, file, what is done to it, what is said of it behind the file's name.
BROKEN: list[tuple[str, str, Change, str]] = [
    ("textvqa", textvqa.QUESTIONS, _cut_line(3), "line 3: is not valid JSON: "),
    ("textvqa", textvqa.QUESTIONS, _field(2, "image", "none.jpg"), "line 2: TextVQA_0.5.1_val.json has no question "),
    ("textvqa", textvqa.QUESTIONS, _field(2, "text", "What?"), "line 2: `text` is 'What?'; expected the question, "),
    ("textvqa", textvqa.QUESTIONS, _field(2, "text", None), "line 2: `text` is None; expected a text"),
    ("textvqa", textvqa.QUESTIONS, _again(4), "line 5: TextVQA_0.5.1_val.json has no question "),
    ("textvqa", textvqa.ANSWERS, _cut, "line 1: is not valid JSON: "),
    ("textvqa", textvqa.ANSWERS, _json(lambda value: value.pop("data")), "expected an object with `data`"),
    (
        "textvqa",
        textvqa.ANSWERS,
        _json(lambda value: value["data"][1].update(answers="yes")),
        "entry 2: `answers` is 'yes'; expected a list of texts",
    ),
    ("gqa", gqa.QUESTIONS, _cut, "line 1: is not valid JSON: "),
    ("gqa", gqa.QUESTIONS, _json(lambda value: value.clear()), "expected an object of questions by their ids"),
    (
        "gqa",
        gqa.QUESTIONS,
        _json(lambda value: value["200000001"].pop("types")),
        "question 200000001: no `types` with `structural`",
    ),
    ("gqa-mcq", gqa.OPTIONS, _again(2), "line 3: the id '200000001' is that of "),
    (
        "gqa-mcq",
        gqa.OPTIONS,
        _field(2, "question_id", "1"),
        "line 2: testdev_balanced_questions.json has no question '1'",
    ),
    (
        "gqa-mcq",
        gqa.OPTIONS,
        _field(2, "question", "What?\nA. one\nC. two"),
        "line 2: `question` is 'What?\\nA. one\\nC. two'; expected a question and lines A., B. and so on",
    ),
    ("pope", ADVERSARIAL, _field(3, "label", "maybe"), "line 3: `label` is 'maybe'; expected yes or no"),
    ("pope", ADVERSARIAL, _again(1), "line 2: the id 'adversarial/1' is that of "),
    ("pope", ADVERSARIAL, lambda path: path.write_bytes(b'{"label": "\xff"}\n'), "line 1: is not UTF-8: "),
    ("pope", ADVERSARIAL, lambda path: path.write_bytes(b"[1]\n"), "line 1: expected an object"),
    ("pope", ADVERSARIAL, _remove, "is missing. "),
    ("seed", seed.QUESTIONS, _json(lambda value: value.pop("question_type")), "expected an object with `questions`"),
    (
        "seed",
        seed.QUESTIONS,
        _json(lambda value: value["questions"][2].update(answer="E")),
        "entry 3: `answer` is 'E'; expected one of A, B, C, D",
    ),
    (
        "seed",
        seed.QUESTIONS,
        _json(lambda value: value["questions"][2].update(question_type_id=99)),
        "entry 3: `question_type_id` is 99, which `question_type` doesn't name",
    ),
    ("seed", seed.QUESTIONS, _json(lambda value: value.update(questions={})), "expected a list of questions"),
    ("vstar", VSTAR, _json(lambda value: value.update(bbox=[[1, 2, 3]])), "`bbox` is [[1, 2, 3]]; expected a list of "),
    ("vstar", VSTAR, _json(lambda value: value.update(options=[])), "`options` is []; expected a list of texts"),
    ("vstar", VSTAR, lambda path: path.with_suffix(".jpg").write_bytes(b"none"), "its picture "),
    ("vstar", VSTAR, lambda path: path.with_suffix(".jpg").unlink(), "its picture "),
    (
        "mme-realworld",
        REALWORLD,
        _json(lambda value: value[3].update({"Answer choices": ["one", "two"]})),
        "entry 4: `Answer choices`: expected texts that begin with (A), (B) and so on, in order",
    ),
    ("mme-realworld", REALWORLD, _json(lambda value: value.insert(0, value[0])), "entry 2: the id "),
    ("hrbench-4k", HR, _cell(1, "cycle_category", "cycle"), "line 1: no column cycle_category; there are index, "),
    ("hrbench-4k", HR, _cell(4, "image", "no picture!" * 20), "line 4: its picture is not valid base64: "),
    ("hrbench-4k", HR, _cell(4, "image", "picture+" * 20), "line 4: its base64 holds no picture"),
    ("hrbench-4k", HR, _cell(4, "image", "17"), "line 4: `image` is '17': neither a picture in base64 nor the index "),
    ("hrbench-4k", HR, _cell(4, "index", "0"), "line 4: the id '0' is that of "),
    ("hrbench-4k", HR, _cell(4, "answer", ""), "line 4: `answer` is missing; expected a text"),
    ("hrbench-4k", HR, _cell(4, "answer", "BC"), "line 4: `answer` is 'BC'; expected one of A, B, C, D"),
    ("hrbench-4k", HR, _cell(4, "image", "Bild, größer" * 20), "line 4: its picture is not valid base64: "),
    ("hrbench-4k", HR, _cell(4, "B", ""), "line 4: expected two options or more, from A on without a gap"),
    ("hrbench-4k", HR, _cut, "line 41: its picture is not valid base64: "),
    (
        "hrbench-4k",
        HR,
        _lines(lambda lines: lines.insert(5, "cut\trow")),
        "line 6: 2 cells; the first line names 10 col",
    ),
    ("hrbench-4k", HR, _lines(lambda lines: lines.insert(5, '4\t"cut')), "line 42: can't be read: unexpected end of d"),
    ("mmbench", MM, _cell(4, "index", "four"), "line 5: `index` is 'four'; expected a whole number"),
    ("file", OWN, _field(2, "box", [0, 0, 640, 480]), "line 2: `box` is [0, 0, 640, 480]; expected [x1, y1, x2, y2] "),
    ("file", OWN, _field(2, "box", "all"), "line 2: `box` is 'all'; expected [x1, y1, x2, y2] "),
    ("file", OWN, _field(2, "answer", "E"), "line 2: the answer 'E' is neither one of A, B, C, D nor an option's text"),
    ("file", OWN, _field(2, "options", ["one"]), "line 2: `options` has 1 texts; expected 2 to 26"),
    ("file", OWN, _field(3, "id", "2"), "line 3: the id '2' is that of "),
    ("file", OWN, _field(3, "image", "none.jpg"), "line 3: its picture "),
    ("file", OWN, _field(3, "question", " "), "line 3: `question` is ' '; expected a text"),
    ("file", OWN, _remove, "is missing. A file of JSON lines: `image` "),
    ("file", OWN, lambda path: path.write_text("\n"), "the files hold no questions"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each benchmark, to be copied."""
    folder = tmp_path_factory.mktemp("whole")
    for name, write in WRITERS.items():
        write(folder / name)
    return folder


@pytest.mark.parametrize(("name", "file", "change", "said"), BROKEN)
def test_what_is_wrong_is_named_with_its_line(
    name: str, file: str, change: Change, said: str, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / name
    shutil.copytree(whole / name, folder)
    path = folder / file
    change(path)
    with pytest.raises(DataError, match=re.escape(said)) as raised:
        list(BENCHMARKS[name].read(path if name == "file" else folder))
    assert file in str(raised.value) or "no questions" in said


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in ("mmbench", "hrbench-4k", "hrbench-8k")])
def test_a_missing_picture_is_named_with_its_question(name: str, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(whole / name, folder)
    picture = next(path for path in sorted(folder.rglob("*")) if path.suffix == ".jpg" or path.name == "n000000")
    picture.unlink()
    with pytest.raises(DataError, match=re.escape(f"its picture {picture} is missing")):
        list(BENCHMARKS[name].read(folder / OWN if name == "file" else folder))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_missing_folder_says_what_to_download(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is missing\. .* folder"):
        list(BENCHMARKS[name].read(tmp_path / "none"))


def test_a_question_that_popes_other_files_have_too_is_another(whole: Path) -> None:
    assert len({sample.id for sample in pope.read(whole / "pope")}) == 40
