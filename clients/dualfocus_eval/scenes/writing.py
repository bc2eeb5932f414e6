"""Scenes as files: pictures and `questions.jsonl`, the same bytes for the same seed."""

import json
from pathlib import Path

from dualfocus_eval.boxes import Box
from dualfocus_eval.scenes.generate import scenes
from dualfocus_eval.scenes.questions import Question

QUESTIONS_FILE = "questions.jsonl"


def write_scenes(seed: int, count: int, folder: Path) -> None:
    """Write `count` pictures and a line per question: image, question, answer, kind, box, and one for each object."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / QUESTIONS_FILE).open("w", encoding="utf-8", newline="\n") as lines:
        for number, (picture, questions) in enumerate(scenes(seed, count)):
            name = f"scene-{number:06}.png"
            picture.save(folder / name, compress_level=6)
            lines.writelines(_line(name, question) + "\n" for question in questions)


def _line(image: str, question: Question) -> str:
    return json.dumps(
        {
            "image": image,
            "question": question.question,
            "answer": question.answer,
            "kind": question.kind,
            "box": _shares(question.box),
            "boxes": [_shares(box) for box in question.boxes],
        }
    )


def _shares(box: Box) -> list[float]:
    return [round(share, 4) for share in box.as_tuple()]
