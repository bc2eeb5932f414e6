"""Small data sets in the exact layouts of benchmarks, with drawn scenes as pictures."""

import base64
import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from string import ascii_uppercase
from typing import Any

from dualfocus_eval.boxes import Box
from dualfocus_eval.scenes.generate import scenes
from PIL import Image

COUNT = 40
_A_SCENE = 4
_WORD = "Answer the question using a single word or phrase."
_CATEGORIES = ("adversarial", "popular", "random")
_DIMENSIONS = {"Scene Understanding": 1, "Instances Counting": 5, "Action Recognition": 10}


@dataclass(frozen=True)
class Drawn:
    """A question about a drawn scene; `options` are of its answer's kind, `right` is the place of the answer."""

    picture: bytes
    size: tuple[int, int]
    question: str
    answer: str
    options: tuple[str, ...]
    box: Box

    @property
    def right(self) -> int:
        return self.options.index(self.answer)

    def turned(self, times: int) -> "Drawn":
        """The same question with its options so many places further on."""
        options = self.options[-times:] + self.options[:-times] if times else self.options
        return Drawn(self.picture, self.size, self.question, self.answer, options, self.box)


@lru_cache(maxsize=4)
def drawn(count: int = COUNT, polar: bool = False) -> tuple[Drawn, ...]:
    """The same questions each time; `polar` ones are answered yes or no."""
    found: list[Drawn] = []
    for picture, questions in scenes(11, count):
        fitting = [one for one in questions if (one.answer in ("yes", "no")) == polar]
        content = _jpeg(picture)
        for one in fitting[:_A_SCENE]:
            options = _options(one.answer, Random(f"{len(found)}"))
            found.append(Drawn(content, picture.size, one.question, one.answer, options, one.box))
        if len(found) >= count:
            break
    return tuple(found[:count])


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def _options(answer: str, rng: Random) -> tuple[str, ...]:
    others = ("7", "42", "red", "green", "K", "a blue star", "none of them")
    wrong = rng.sample([other for other in others if other != answer], 3)
    return tuple(rng.sample([answer, *wrong], 4))


def write_textvqa(folder: Path, questions: Sequence[Drawn] | None = None) -> Path:
    """TextVQA: the people's answers, LLaVA's question file, `train_images`. Nine of ten people give the answer."""
    data, lines = [], []
    for number, (image, one) in enumerate(_pictures(folder / "train_images", questions or drawn(), ".jpg")):
        answers = [one.answer] * 9 + ["unanswerable"]
        data.append({"image_id": image, "question": one.question, "answers": answers, "question_id": 34602 + number})
        text = f"{one.question}\nReference OCR token: {one.answer}, EXIT, A.\n{_WORD}"
        lines.append({"question_id": image, "image": f"{image}.jpg", "text": text, "category": "default"})
    _write_json(folder / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": data})
    return _write_lines(folder / "llava_textvqa_val_v051_ocr.jsonl", lines)


def write_gqa(folder: Path, questions: Sequence[Drawn] | None = None) -> Path:
    """GQA: `testdev_balanced_questions.json` and `images`; its answers are in lower case."""
    known = {}
    for number, (image, one) in enumerate(_pictures(folder / "images", questions or drawn(), ".jpg")):
        types = {"structural": "query" if number % 2 else "verify", "semantic": "attr", "detailed": "weak"}
        known[f"2{number:08}"] = {
            "imageId": image,
            "question": one.question,
            "answer": one.answer.lower(),
            "isBalanced": True,
            "types": types,
        }
    return _write_json(folder / "testdev_balanced_questions.json", known)


def write_gqa_mcq(folder: Path, questions: Sequence[Drawn] | None = None) -> Path:
    """GQA*: what GQA has, and the file with options."""
    questions = questions or drawn()
    write_gqa(folder, questions)
    lines = [
        {
            "question_id": f"2{number:08}",
            "image": f"{_name(one, questions)}.jpg",
            "question": f"{one.question}\n{_option_lines(one)}",
        }
        for number, one in enumerate(questions)
    ]
    return _write_lines(folder / "llava_gqa_testdev_balanced_mcq.jsonl", lines)


def write_pope(folder: Path, questions: Sequence[Drawn] | None = None) -> Path:
    """POPE: a file of JSON lines for each category, all in turn, and `val2014`."""
    lines: dict[str, list[dict[str, Any]]] = {category: [] for category in _CATEGORIES}
    for number, (image, one) in enumerate(_pictures(folder / "val2014", questions or drawn(polar=True), ".jpg")):
        mine = lines[_CATEGORIES[number % 3]]
        mine.append({"question_id": len(mine) + 1, "image": f"{image}.jpg", "text": one.question, "label": one.answer})
    for category, asked in lines.items():
        _write_lines(folder / f"coco_pope_{category}.json", asked)
    return folder


def write_mmbench(folder: Path, questions: Sequence[Drawn] | None = None) -> Path:
    """MMBench: a quarter as many questions, each in four rotations; every other rotation names its picture's row."""
    rows = []
    for turn in range(4):
        for number, one in enumerate(_quarter(questions)):
            picture = str(number) if turn % 2 else _base64(one)
            row = {"index": number + turn * 1_000_000, "question": one.question, "hint": _hint(number)}
            row |= _option_cells(one.turned(turn)) | {"category": "object_localization", "image": picture}
            rows.append(row | {"source": "drawn", "l2-category": "perception", "comment": "", "split": "dev"})
    return _write_table(folder / "mmbench_dev_20230712.tsv", rows)


def _hint(number: int) -> str:
    return 'The picture was "drawn".\nIt shows shapes.' if number % 2 else ""


def write_hrbench(folder: Path, size: str, questions: Sequence[Drawn] | None = None) -> Path:
    """HR-Bench: a quarter as many questions, each in four cycles."""
    rows = []
    for number, one in enumerate(_quarter(questions)):
        for turn in range(4):
            row = {"index": 4 * number + turn, "question": one.question, **_option_cells(one.turned(turn))}
            row |= {"category": "cross" if number % 2 else "single", "cycle_category": turn, "image": _base64(one)}
            rows.append(row)
    return _write_table(folder / f"hr_bench_{size}.tsv", rows)


def write_seed(folder: Path, questions: Sequence[Drawn] | None = None) -> Path:
    """SEED-Bench: `SEED-Bench.json` with one question about a video too; pictures have no suffix."""
    asked = []
    for number, (image, one) in enumerate(_pictures(folder / "SEED-Bench-image", questions or drawn(), "")):
        asked.append(_seed_question(one, number, image, "image", 5 if number % 2 else 1))
    video = _seed_question(drawn()[0], len(asked), "1.mp4", "video", 10) | {"segment": [0, 1]}
    return _write_json(folder / "SEED-Bench.json", {"questions": [video, *asked], "question_type": _DIMENSIONS})


def _seed_question(one: Drawn, number: int, data_id: str, data_type: str, dimension: int) -> dict[str, Any]:
    choices = {f"choice_{letter}": option for letter, option in zip("abcd", one.options, strict=True)}
    names = {"data_id": data_id, "data_type": data_type, "question_id": str(101669 + number)}
    answer = {"answer": ascii_uppercase[one.right], "question": one.question, "question_type_id": dimension}
    return names | answer | choices


def write_vstar(folder: Path, questions: Sequence[Drawn] | None = None) -> Path:
    """V*: a picture and a JSON file a question, in two folders; the first option is the right one."""
    for number, one in enumerate(questions or drawn()):
        category = folder / ("relative_position" if number % 2 else "direct_attributes")
        category.mkdir(parents=True, exist_ok=True)
        (category / f"sa_{number}.jpg").write_bytes(one.picture)
        options = [one.answer, *(option for option in one.options if option != one.answer)]
        asked = {"target_object": ["shape"], "bbox": [_pixels(one)], "question": one.question, "options": options}
        _write_json(category / f"sa_{number}.json", asked)
    return folder


def _pixels(one: Drawn) -> list[int]:
    wide, high = one.size
    left, top, right, bottom = one.box.as_tuple()
    return [round(left * wide), round(top * high), round((right - left) * wide), round((bottom - top) * high)]


def write_mme_realworld(folder: Path, questions: Sequence[Drawn] | None = None) -> Path:
    """MME-RealWorld: `MME_RealWorld.json` with five options each, pictures in a folder beside it."""
    asked = []
    for number, (image, one) in enumerate(_pictures(folder / "remote_sensing", questions or drawn(), ".jpg")):
        options = [*one.options, "This image doesn't feature the content."]
        choices = [f"({letter}) {option}" for letter, option in zip("ABCDE", options, strict=True)]
        asked.append(
            {
                "Question_id": f"perception/remote_sensing/{number}",
                "Image": f"remote_sensing/{image}.jpg",
                "Text": one.question,
                "Question Type": "Multiple Choice",
                "Answer choices": choices,
                "Ground truth": ascii_uppercase[one.right],
                "Category": "position",
                "Subtask": "Remote Sensing",
                "Task": "Reasoning" if number % 2 else "Perception",
            }
        )
    return _write_json(folder / "MME_RealWorld.json", asked)


def write_file(folder: Path, questions: Sequence[Drawn] | None = None) -> Path:
    """A file of one's own: open questions and such with options, with boxes and without."""
    lines: list[dict[str, Any]] = []
    for number, (image, one) in enumerate(_pictures(folder / "pictures", questions or drawn(), ".jpg")):
        line: dict[str, Any] = {"image": f"pictures/{image}.jpg", "question": one.question}
        line |= {"answers": [one.answer]} if number % 3 == 0 else {"answer": one.answer}
        line |= {"options": one.options} if number % 3 == 1 else {}
        lines.append(line | ({"box": one.box.as_tuple()} if number % 2 else {}))
    return _write_lines(folder / "questions.jsonl", lines)


# By the benchmark's name: each returns what `--data` takes.
WRITERS: dict[str, Callable[[Path], Path]] = {
    "textvqa": lambda folder: write_textvqa(folder).parent,
    "gqa": lambda folder: write_gqa(folder).parent,
    "gqa-mcq": lambda folder: write_gqa_mcq(folder).parent,
    "pope": write_pope,
    "mmbench": lambda folder: write_mmbench(folder).parent,
    "seed": lambda folder: write_seed(folder).parent,
    "vstar": write_vstar,
    "hrbench-4k": lambda folder: write_hrbench(folder, "4k").parent,
    "hrbench-8k": lambda folder: write_hrbench(folder, "8k").parent,
    "mme-realworld": lambda folder: write_mme_realworld(folder).parent,
    "file": write_file,
}


def _quarter(questions: Sequence[Drawn] | None) -> Sequence[Drawn]:
    return (questions or drawn())[: COUNT // 4]


def _pictures(folder: Path, questions: Sequence[Drawn], suffix: str) -> list[tuple[str, Drawn]]:
    """Write each picture once, and give its name beside each question about it."""
    folder.mkdir(parents=True, exist_ok=True)
    named = [(_name(one, questions), one) for one in questions]
    for name, one in named:
        (folder / f"{name}{suffix}").write_bytes(one.picture)
    return named


def _name(one: Drawn, questions: Sequence[Drawn]) -> str:
    return f"n{[other.picture for other in questions].index(one.picture):06}"


def _option_lines(one: Drawn) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", one.options, strict=True))


def _option_cells(one: Drawn) -> dict[str, Any]:
    return {**dict(zip("ABCD", one.options, strict=True)), "answer": ascii_uppercase[one.right]}


def _base64(one: Drawn) -> str:
    return base64.b64encode(one.picture).decode()


def _write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def _write_lines(path: Path, values: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values), encoding="utf-8")
    return path


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return path
