"""Scenes as files: pictures and `questions.jsonl`, the same bytes for the same seed."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from PIL import Image

from dualfocus_training.scenes.drawing import draw
from dualfocus_training.scenes.layout import Difficulty, compose
from dualfocus_training.scenes.questions import Question, ask

QUESTIONS_FILE = "questions.jsonl"


def scenes(seed: int, count: int, difficulty: Difficulty | None = None) -> Iterator[tuple[Image.Image, list[Question]]]:
    """`count` pictures, each with every question it allows in random order."""
    for number in range(count):
        rng = Random(f"scene/{seed}/{number}")
        scene = compose(rng, difficulty or Difficulty())
        yield draw(scene), ask(scene, rng)


def write_scenes(seed: int, count: int, folder: Path) -> None:
    """Write `count` pictures and a line per question: image, question, answer, kind, box."""
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
            "box": [round(share, 4) for share in question.box.as_tuple()],
        }
    )
