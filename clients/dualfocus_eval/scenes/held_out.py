"""The questions that a model is judged by, about scenes that were drawn for that alone."""

from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from dualfocus_eval.scenes.generate import scenes
from dualfocus_eval.scenes.layout import Difficulty
from dualfocus_eval.scenes.questions import Question


@dataclass(frozen=True)
class Asked:
    """A question about a picture; `number` makes its shifts the same at every run."""

    number: int
    picture: Image.Image
    question: Question


def held_out(seed: int, count: int, difficulty: Difficulty | None = None) -> Iterator[Asked]:
    """Two detail questions and two others about each of `count` scenes."""
    for place, (picture, questions) in enumerate(scenes(seed, count, difficulty)):
        details = [question for question in questions if question.kind == "detail"]
        others = [question for question in questions if question.kind != "detail"]
        for number, question in enumerate((*details[:2], *others[:2])):
            yield Asked(4 * place + number, picture, question)
