"""Which scenes there are: composed at random, drawn, and asked about; the same for the same seed."""

from collections.abc import Iterator
from random import Random

from PIL import Image

from dualfocus_eval.scenes.drawing import draw
from dualfocus_eval.scenes.layout import Difficulty, Scene, compose
from dualfocus_eval.scenes.questions import Question, ask


def scenes(seed: int, count: int, difficulty: Difficulty | None = None) -> Iterator[tuple[Image.Image, list[Question]]]:
    """`count` pictures, each with every question it allows in random order."""
    for scene, rng in compose_all(seed, count, difficulty or Difficulty()):
        yield draw(scene), ask(scene, rng)


def compose_all(seed: int, count: int, difficulty: Difficulty) -> Iterator[tuple[Scene, Random]]:
    """`count` scenes of a seed, each with the generator that its questions are drawn from."""
    for number in range(count):
        rng = Random(f"scene/{seed}/{number}")
        yield compose(rng, difficulty), rng
