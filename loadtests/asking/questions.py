"""What is asked: drawn scenes with a question each, another picture for every number."""

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from random import Random

from dualfocus_eval.scenes.drawing import draw
from dualfocus_eval.scenes.layout import Difficulty, compose
from dualfocus_eval.scenes.questions import ask
from PIL import Image

# Another seed than any training run's or results page's.
_SEED = 905


@dataclass(frozen=True)
class Asked:
    """A picture, as a client has it, and a question about something small in it."""

    picture: Image.Image
    text: str

    @cached_property
    def url(self) -> str:
        """The picture as a client sends it."""
        return data_url(self.picture)


def asked(number: int) -> Asked:
    """Return the question of a number: the same one at every run, about a picture that no other number has."""
    rng = Random(f"bench/{_SEED}/{number}")
    scene = compose(rng, Difficulty())
    questions = ask(scene, rng)
    details = [question for question in questions if question.kind == "detail"]
    return Asked(draw(scene), (details or questions)[0].question)


def data_url(picture: Image.Image) -> str:
    """Return a picture as a data: URL with a PNG in it."""
    png = io.BytesIO()
    picture.save(png, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
