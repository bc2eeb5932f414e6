"""What is asked: drawn scenes with a question each, another picture for every number."""

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from random import Random

from dualfocus_eval.report.outcomes import is_right
from dualfocus_eval.scenes.drawing import draw
from dualfocus_eval.scenes.layout import compose
from dualfocus_eval.scenes.mixes import MIXES, STANDARD
from PIL import Image

# Another seed than any training run's or results page's.
_SEED = 905


@dataclass(frozen=True)
class Asked:
    """A picture, as a client has it, a question about something small in it, and its answer."""

    picture: Image.Image
    text: str
    answer: str = ""

    @cached_property
    def url(self) -> str:
        """The picture as a client sends it."""
        return data_url(self.picture)

    def is_answered_by(self, text: str) -> bool:
        """Whether a text is the answer."""
        return is_right(text, [self.answer])


def asked(number: int, mix: str = STANDARD) -> Asked:
    """Return the question of a number: the same one at every run, about a picture that no other number has."""
    rng, chosen = Random(f"bench/{_SEED}/{number}"), MIXES[mix]
    scene = compose(rng, chosen.difficulty)
    question = chosen.ask(scene, rng)[0]  # of the usual mix one on a detail
    return Asked(draw(scene), question.question, question.answer)


def data_url(picture: Image.Image) -> str:
    """Return a picture as a data: URL with a PNG in it."""
    png = io.BytesIO()
    picture.save(png, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
