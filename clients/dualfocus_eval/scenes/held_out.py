"""The questions that a model is judged by, about scenes that were drawn for that alone."""

from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from dualfocus_eval.scenes.drawing import draw
from dualfocus_eval.scenes.generate import compose_all
from dualfocus_eval.scenes.layout import Difficulty, Scene
from dualfocus_eval.scenes.mixes import MIXES, STANDARD
from dualfocus_eval.scenes.questions import Question


@dataclass(frozen=True)
class Asked:
    """A question about a picture of a scene; `number` makes its shifts the same at every run."""

    number: int
    scene: Scene
    picture: Image.Image
    question: Question


def held_out(seed: int, count: int, difficulty: Difficulty | None = None, mix: str = STANDARD) -> Iterator[Asked]:
    """At most four questions about each of `count` scenes: of the usual mix two on details and two others."""
    chosen = MIXES[mix]
    for place, (scene, rng) in enumerate(compose_all(seed, count, difficulty or chosen.difficulty)):
        picture = draw(scene)
        for number, question in enumerate(chosen.ask(scene, rng)):
            yield Asked(4 * place + number, scene, picture, question)
