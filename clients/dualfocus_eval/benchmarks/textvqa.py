"""TextVQA's validation questions in LLaVA's form: its question file beside the people's answers."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from dualfocus_eval.benchmarks.reading import Entry, distinct, entries, json_lines, present, read_json
from dualfocus_eval.samples import DataError, Sample

ANSWERS = "TextVQA_0.5.1_val.json"
QUESTIONS = "llava_textvqa_val_v051_ocr.jsonl"
PICTURES = "train_images"
FILES = (
    f"{ANSWERS} and train_val_images.zip from textvqa.org, and {QUESTIONS} from LLaVA's eval.zip (its OCR line is what "
    f"published numbers have), in one folder; the zip unpacked there, so that it has {PICTURES}/."
)
_OCR = "Reference OCR token: "


def read(folder: Path) -> Iterator[Sample]:
    """Give the questions in the order of LLaVA's file. Raises DataError."""
    return distinct(_samples(folder))


def _samples(folder: Path) -> Iterator[tuple[Entry, Sample]]:
    answered = _answered(present(folder / ANSWERS, FILES))
    pictures = present(folder / PICTURES, FILES)
    for entry in json_lines(present(folder / QUESTIONS, FILES)):
        question, ocr = _parts(entry)
        key = Path(entry.text("image")).stem, question.lower()
        if not answered[key]:
            raise entry.wrong(f"{ANSWERS} has no question {question!r} about {key[0]}, or fewer than this file")
        known = answered[key].pop(0)
        picture = entry.picture(pictures / entry.text("image"))
        yield entry, Sample(known.text("question_id"), picture, question, known.texts("answers"), context=ocr)


def _answered(path: Path) -> dict[tuple[str, str], list[Entry]]:
    """Return the answered questions by what LLaVA tells them by: the picture and the text in lower case."""
    data = read_json(path)
    if not isinstance(data, dict) or "data" not in data:
        raise DataError(f"{path}: expected an object with `data`")
    answered = defaultdict[tuple[str, str], list[Entry]](list)
    for entry in entries(path, data["data"]):
        answered[entry.text("image_id"), entry.text("question").lower()].append(entry)
    return answered


def _parts(entry: Entry) -> tuple[str, str]:
    """Return the question and the OCR line, which may stand before it; the last line is the hint."""
    lines = entry.text("text").split("\n")
    others = [line for line in lines[:-1] if not line.startswith(_OCR)]
    tokens = [line for line in lines[:-1] if line.startswith(_OCR)]
    if len(others) != 1 or len(tokens) > 1:
        raise entry.wrong(f"`text` is {entry.text('text')[:80]!r}; expected the question, an OCR line and the hint")
    return others[0], "".join(tokens)
