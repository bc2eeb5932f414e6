"""The pictures that are asked about: a disc with a small number on it at a known place, and a square beside it.

The disc lies off the diagonal, so that swapped axes are seen, and the pictures are of several shapes, so that a box in
pixels, or of a padded picture, is told from one in shares.
"""

from dataclasses import dataclass

from dualfocus_engine.families.boxes import Box, Size
from PIL import Image, ImageDraw, ImageFont

_COLOURS = {
    "red": (214, 32, 36),
    "green": (36, 158, 60),
    "blue": (32, 72, 205),
    "purple": (128, 36, 168),
    "orange": (245, 134, 20),
    "yellow": (250, 222, 40),
}
_GROUND, _INK = (226, 224, 218), (255, 255, 255)
# A digit's height: a share of the disc's diameter. A digit of Pillow's font is so much of the font's size high.
_PRINT_SHARE, _DIGIT_SHARE = 1 / 8, 0.71
_SQUARE_SHARE = 0.8


@dataclass(frozen=True)
class Drawn:
    """A picture, what is asked about, the number on it, and where it is: None where it is not in the picture."""

    picture: Image.Image
    thing: str
    number: str
    box: Box | None

    @property
    def question(self) -> str:
        """What is asked: the thing is found by its name, its number only by looking closely."""
        return f"What number is on the {self.thing}?"


@dataclass(frozen=True)
class _Scene:
    """A disc and a square, their centres as shares of the picture; `share`: the disc's diameter, of the short side."""

    size: Size
    share: float
    disc: str
    centre: tuple[float, float]
    number: str
    square: str
    beside: tuple[float, float]


_SCENES = (
    _Scene((1600, 900), 0.3, "red", (0.72, 0.30), "42", "blue", (0.30, 0.60)),
    _Scene((1600, 900), 0.3, "green", (0.28, 0.66), "7", "orange", (0.70, 0.40)),
    _Scene((4000, 600), 0.4, "purple", (0.15, 0.60), "31", "yellow", (0.55, 0.35)),
    _Scene((4000, 600), 0.4, "blue", (0.62, 0.36), "85", "red", (0.20, 0.65)),
    _Scene((300, 300), 0.3, "red", (0.70, 0.34), "58", "green", (0.28, 0.70)),
    _Scene((300, 300), 0.3, "blue", (0.30, 0.64), "24", "yellow", (0.72, 0.30)),
)
# Not in the pictures of these places.
_ABSENT = {0: "green star", 5: "purple triangle"}


def draw_pictures() -> list[Drawn]:
    """Return the pictures with what is asked about each: first all that are there, then what is not."""
    pictures = [_draw(scene) for scene in _SCENES]
    there = [
        Drawn(picture, f"{scene.disc} circle", scene.number, _box(scene))
        for picture, scene in zip(pictures, _SCENES, strict=True)
    ]
    return there + [Drawn(pictures[place], thing, "", None) for place, thing in _ABSENT.items()]


def _draw(scene: _Scene) -> Image.Image:
    picture = Image.new("RGB", scene.size, _GROUND)
    pen = ImageDraw.Draw(picture)
    diameter = _diameter(scene)
    pen.rectangle(_around(scene.beside, _SQUARE_SHARE * diameter, scene.size), fill=_COLOURS[scene.square])
    pen.ellipse(_around(scene.centre, diameter, scene.size), fill=_COLOURS[scene.disc])
    middle = (scene.centre[0] * scene.size[0], scene.centre[1] * scene.size[1])
    font = ImageFont.load_default(size=diameter * _PRINT_SHARE / _DIGIT_SHARE)
    pen.text(middle, scene.number, fill=_INK, font=font, anchor="mm")
    return picture


def _box(scene: _Scene) -> Box:
    left, top, right, bottom = _around(scene.centre, _diameter(scene), scene.size)
    width, height = scene.size
    return Box(left / width, top / height, right / width, bottom / height)


def _diameter(scene: _Scene) -> float:
    return scene.share * min(scene.size)


def _around(centre: tuple[float, float], side: float, size: Size) -> tuple[float, float, float, float]:
    x, y = centre[0] * size[0], centre[1] * size[1]
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2
