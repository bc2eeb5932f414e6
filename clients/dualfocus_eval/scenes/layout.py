"""What is in a scene and where: forms, colours, small print, sizes and overlap.

All randomness comes from one `random.Random`, whose sequence Python fixes across platforms,
so that a seed gives the same scene everywhere.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]
Rgb: TypeAlias = tuple[int, int, int]
Extent: TypeAlias = tuple[float, float, float, float]

COLOURS: dict[str, Rgb] = {
    "red": (214, 32, 36),
    "orange": (245, 134, 20),
    "yellow": (250, 222, 40),
    "green": (36, 158, 60),
    "cyan": (40, 200, 215),
    "blue": (32, 72, 205),
    "purple": (128, 36, 168),
    "pink": (248, 130, 190),
}
FORMS = ("circle", "square", "triangle", "diamond", "star", "cross")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PRINT_KINDS = ("number", "letter", "dot")
ASPECTS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3)

# Height of a glyph and width of a dot over the picture's long side. At an encoder input of 128
# pixels a glyph is 3 pixels high and a dot 1.5 wide: unreadable, while a crop reads them.
GLYPH_SHARE = (0.020, 0.024)
DOT_SHARE = (0.010, 0.013)


@dataclass(frozen=True)
class Difficulty:
    """How hard scenes are: the curriculum's one parameter.

    `sizes` are shares of the picture's long side; `overlap` is the largest share of the smaller of
    two extents that may lie in both; `aspects` counts how many of `ASPECTS` occur; `distinct` is the
    share of scenes in which no two shapes have the same colour; `print_scale` is how many times as high as usual
    print is: at 3 and more it can be read in the whole picture, as in a crop of many shapes. `prints` are the sorts of
    print, drawn from as they stand; `two_digits` is the share of numbers up to 99 instead of 9; `alike` is the share of
    shapes whose print is that of another one.
    """

    shapes: tuple[int, int] = (2, 6)
    sizes: tuple[float, float] = (0.14, 0.30)
    overlap: float = 0.12
    aspects: int = len(ASPECTS)
    long_side: tuple[int, int] = (560, 960)
    distinct: float = 0.4
    print_scale: tuple[float, float] = (1.0, 1.0)
    prints: tuple[str, ...] = PRINT_KINDS
    two_digits: float = 0.7
    alike: float = 0.0


@dataclass(frozen=True)
class Print:
    """Small print on a shape: `text` is the digits, the letter, or the name of the dot's colour."""

    kind: str
    text: str
    centre: Point
    height: float


@dataclass(frozen=True)
class Shape:
    """One coloured shape; `outline` and `extent` (left, top, right, bottom) are in pixels."""

    form: str
    colour: str
    rgb: Rgb
    outline: tuple[Point, ...]
    print: Print

    @cached_property
    def extent(self) -> Extent:
        xs, ys = zip(*self.outline, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    @property
    def name(self) -> str:
        return f"{self.colour} {self.form}"

    @property
    def size(self) -> float:
        left, top, right, bottom = self.extent
        return math.sqrt((right - left) * (bottom - top))

    @property
    def centre(self) -> Point:
        left, top, right, bottom = self.extent
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True)
class Background:
    """A texture of two muted colours; `grain` holds its raw bytes, `columns` a row."""

    texture: str
    dark: Rgb
    light: Rgb
    columns: int
    grain: bytes


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn; shapes later in the tuple lie on top."""

    width: int
    height: int
    background: Background
    shapes: tuple[Shape, ...]


def compose(rng: Random, difficulty: Difficulty) -> Scene:
    """Place shapes at random; every scene has at least one, and no two share form and colour."""
    width, height = _picture_size(rng, difficulty)
    placed: list[Shape] = []
    for form, colour in _names(rng, difficulty):
        shape = _place(rng, difficulty, (width, height), form, colour, placed)
        if shape is not None:
            placed.append(_alike(rng, difficulty, shape, placed))
    return Scene(width, height, _background(rng), tuple(placed))


def _alike(rng: Random, difficulty: Difficulty, shape: Shape, placed: list[Shape]) -> Shape:
    """Return the shape, now and then with the print of another one."""
    if not difficulty.alike or not placed or rng.random() >= difficulty.alike:
        return shape
    other = rng.choice(placed).print
    # A dot of its shape's own colour could not be seen.
    return shape if other.text == shape.colour else replace(shape, print=replace(other, centre=shape.print.centre))


def _names(rng: Random, difficulty: Difficulty) -> list[tuple[str, str]]:
    """Forms and colours of a scene's shapes, drawn from few of each so that they often share one."""
    wanted = rng.randint(*difficulty.shapes)
    forms = rng.sample(FORMS, rng.randint(2, 5))
    if wanted <= len(COLOURS) and rng.random() < difficulty.distinct:
        return [(rng.choice(forms), colour) for colour in rng.sample(sorted(COLOURS), wanted)]
    palette = rng.sample(sorted(COLOURS), rng.randint(3, 6))
    names = [(form, colour) for form in forms for colour in palette]
    return rng.sample(names, min(wanted, len(names)))


def _picture_size(rng: Random, difficulty: Difficulty) -> tuple[int, int]:
    long_side = rng.randint(*difficulty.long_side)
    aspect = rng.choice(ASPECTS[: difficulty.aspects])
    if aspect >= 1:
        return long_side, round(long_side / aspect)
    return round(long_side * aspect), long_side


def _background(rng: Random) -> Background:
    texture = rng.choice(("plain", "clouds", "grain", "stripes", "checks"))
    base = rng.randint(60, 215)
    dark, light = _muted(rng, base), _muted(rng, base + rng.randint(10, 40))
    columns = rng.randint(4, 24)
    return Background(texture, dark, light, columns, rng.randbytes(columns * columns))


def _muted(rng: Random, base: int) -> Rgb:
    red, green, blue = (min(255, base + rng.randint(-14, 14)) for _ in range(3))
    return red, green, blue


def _place(
    rng: Random,
    difficulty: Difficulty,
    picture: tuple[int, int],
    form: str,
    colour: str,
    placed: list[Shape],
) -> Shape | None:
    """Try places for one shape; None when the picture is too full for it."""
    for attempt in range(12):
        # Later attempts draw smaller sizes, so that crowded pictures still fill up.
        smallest, largest = difficulty.sizes
        share = rng.uniform(smallest, largest - (largest - smallest) * attempt / 12)
        shape = _draw_up(rng, difficulty, picture, share, form, colour)
        if shape is not None and all(_fits(shape, other, difficulty) for other in placed):
            return shape
    return None


def _draw_up(
    rng: Random, difficulty: Difficulty, picture: tuple[int, int], share: float, form: str, colour: str
) -> Shape | None:
    width, height = picture
    half = share * max(picture) / 2
    outline = _outline(rng, form, half)
    xs, ys = zip(*outline, strict=True)
    if max(xs) - min(xs) > width or max(ys) - min(ys) > height:
        return None
    x = rng.uniform(-min(xs), width - max(xs))
    y = rng.uniform(-min(ys), height - max(ys))
    moved = tuple((px + x, py + y) for px, py in outline)
    red, green, blue = (min(255, max(0, c + rng.randint(-16, 16))) for c in COLOURS[colour])
    mark = _print(rng, difficulty, colour, (x, y), max(picture) * rng.uniform(*difficulty.print_scale), half)
    return Shape(form, colour, (red, green, blue), moved, mark)


def _outline(rng: Random, form: str, half: float) -> list[Point]:
    """The polygon of a form around the origin, slightly stretched and turned."""
    stretch = rng.uniform(0.87, 1.0)
    wide = rng.random() < 0.5
    across, down = (half, half * stretch) if wide else (half * stretch, half)
    angle = math.radians(rng.uniform(-9, 9))
    cos, sin = math.cos(angle), math.sin(angle)
    return [(x * across * cos - y * down * sin, x * across * sin + y * down * cos) for x, y in _UNIT[form]]


def _wheel(count: int, radii: tuple[float, ...] = (1.0,)) -> list[Point]:
    turns = [2 * math.pi * i / count - math.pi / 2 for i in range(count)]
    lengths = [radii[i % len(radii)] for i in range(count)]
    return [(r * math.cos(turn), r * math.sin(turn)) for turn, r in zip(turns, lengths, strict=True)]


def _plus(arm: float) -> list[Point]:
    quarter = [(-arm, -1.0), (arm, -1.0), (arm, -arm)]
    points: list[Point] = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]
    return points


_UNIT: dict[str, list[Point]] = {
    "circle": _wheel(40),
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": [(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)],
    "diamond": _wheel(4),
    "star": _wheel(10, (1.0, 0.48)),
    "cross": _plus(0.36),
}


def _print(rng: Random, difficulty: Difficulty, colour: str, origin: Point, long_side: float, half: float) -> Print:
    kind = rng.choice(difficulty.prints)
    share = DOT_SHARE if kind == "dot" else GLYPH_SHARE
    reach = half * (0.2 if kind == "dot" else 0.06)
    centre = (origin[0] + rng.uniform(-reach, reach), origin[1] + rng.uniform(-reach, reach))
    return Print(kind, _print_text(rng, difficulty, kind, colour), centre, rng.uniform(*share) * long_side)


def _print_text(rng: Random, difficulty: Difficulty, kind: str, colour: str) -> str:
    if kind == "number":
        return str(rng.randint(0, 99) if rng.random() < difficulty.two_digits else rng.randint(0, 9))
    if kind == "letter":
        return rng.choice(LETTERS)
    return rng.choice([name for name in COLOURS if name != colour])


def _fits(shape: Shape, below: Shape, difficulty: Difficulty) -> bool:
    """The new shape may cover a little of the one below, never its print; print stays apart."""
    shared = _common(shape.extent, below.extent)
    smaller = min(_area(shape.extent), _area(below.extent))
    return shared <= difficulty.overlap * smaller and not _common(shape.extent, print_extent(below.print))


def print_extent(mark: Print) -> Extent:
    """The pixels a print takes up; a glyph is at most 0.8 of its height wide."""
    x, y = mark.centre
    down = mark.height / 2
    across = down if mark.kind == "dot" else 0.8 * down * len(mark.text)
    return x - across, y - down, x + across, y + down


def _area(extent: Extent) -> float:
    return (extent[2] - extent[0]) * (extent[3] - extent[1])


def _common(one: Extent, other: Extent) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)
