"""Questions about a scene, with answers, kinds and boxes (Section 3.2's unambiguous pairs).

Every question has one possible referent: it is asked only where its description fits one shape.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from dualfocus_eval.boxes import Box
from dualfocus_eval.scenes.layout import COLOURS, FORMS, LETTERS, Extent, Scene, Shape

WHOLE = Box(0.0, 0.0, 1.0, 1.0)

# The smallest ratio of two sizes, and the smallest distance of two centres as a share of the
# picture, that a comparison may rest on.
_CLEAR_RATIO = 1.2
_CLEAR_DISTANCE = 0.1
# A question about two prints is asked only where a crop of both still magnifies them.
_WIDEST_PAIR = 0.45
# The share of shapes of which it is also asked whether their print is this or that: half of those can be guessed.
_YES_OR_NO = 0.35
# Questions about pairs of shapes, of each sort, in a scene.
_MOST_PAIRS = 2


@dataclass(frozen=True)
class Question:
    """`kind` is "detail", "several" or "global"; `box` holds all that it is about, as shares of the picture.

    `about` are the shapes that the answer is read from, by their place in the scene; none where it is the picture.
    `boxes` is one for each of them, in the order in which the question names them.
    """

    question: str
    answer: str
    kind: str
    box: Box
    about: tuple[int, ...] = ()
    boxes: tuple[Box, ...] = ()


def ask(scene: Scene, rng: Random) -> list[Question]:
    """Every question this scene allows, each in one phrasing drawn at random, in random order."""
    asked = [*_details(scene, rng), *_several(scene, rng), *_globals(scene, rng)]
    rng.shuffle(asked)
    return asked


def _details(scene: Scene, rng: Random) -> Iterator[Question]:
    for shape in scene.shapes:
        name = rng.choice(referents(scene, shape))
        text = rng.choice(_READ[shape.print.kind]).format(name)
        yield ask_about(scene, text, shape.print.text, "detail", shape)
        if rng.random() < _YES_OR_NO:
            yield _yes_or_no(scene, shape, name, rng)


def ask_to_verify(scene: Scene, rng: Random) -> list[Question]:
    """Return a question on each shape's print that is answered yes or no, in random order."""
    shapes = rng.sample(scene.shapes, len(scene.shapes))
    return [_yes_or_no(scene, shape, rng.choice(referents(scene, shape)), rng) for shape in shapes]


_READ = {
    "number": (
        "What number is on the {}?",
        "Which number does the {} carry?",
        "Read the number on the {}.",
    ),
    "letter": (
        "What letter is on the {}?",
        "Which letter does the {} carry?",
        "Read the letter on the {}.",
    ),
    "dot": (
        "What colour is the dot in the {}?",
        "What is the colour of the dot on the {}?",
        "Which colour does the dot in the {} have?",
    ),
}


def _yes_or_no(scene: Scene, shape: Shape, name: str, rng: Random) -> Question:
    """A detail question answered yes or no, each half of the time."""
    true = rng.random() < 0.5
    kind, text = shape.print.kind, shape.print.text
    if not true:
        text = rng.choice([other for other in _ALTERNATIVES[kind] if other != text])
    verb = "Is the dot in the {} {}?" if kind == "dot" else f"Is the {kind} on the {{}} {{}}?"
    return ask_about(scene, verb.format(name, text), _yes(true), "detail", shape)


_ALTERNATIVES = {
    "number": [str(number) for number in range(100)],
    "letter": list(LETTERS),
    "dot": sorted(COLOURS),
}


def referents(scene: Scene, shape: Shape) -> list[str]:
    """The descriptions that fit this shape and no other; the full name counts double."""
    forms = Counter(other.form for other in scene.shapes)
    colours = Counter(other.colour for other in scene.shapes)
    names = [shape.name] * 2
    if forms[shape.form] == 1:
        names.append(shape.form)
    if colours[shape.colour] == 1:
        names.append(f"{shape.colour} shape")
    return names + extremes(scene, shape)


def extremes(scene: Scene, shape: Shape) -> list[str]:
    """The descriptions by size that fit this shape and no other, of its form and of all."""
    same = [other for other in scene.shapes if other.form == shape.form]
    return _extremes(shape, shape.form, same) + _extremes(shape, "shape", list(scene.shapes))


def _extremes(shape: Shape, noun: str, group: list[Shape]) -> list[str]:
    others = [other.size for other in group if other is not shape]
    if not others:
        return []
    if shape.size > _CLEAR_RATIO * max(others):
        return [f"largest {noun}"]
    if shape.size * _CLEAR_RATIO < min(others):
        return [f"smallest {noun}"]
    return []


def _several(scene: Scene, rng: Random) -> Iterator[Question]:
    for one, other in [pair for pair in _pairs(scene, rng) if _read_together(scene, *pair)][:_MOST_PAIRS]:
        text = rng.choice(_READ_BOTH[one.print.kind]).format(one.name, other.name)
        answer = f"{one.print.text} and {other.print.text}"
        yield ask_about(scene, text, answer, "several", one, other)


def _read_together(scene: Scene, one: Shape, other: Shape) -> bool:
    """Whether both carry the same kind of print, close enough for one crop to magnify."""
    left, top, right, bottom = union(one, other)
    near = max(right - left, bottom - top) <= _WIDEST_PAIR * max(scene.width, scene.height)
    return near and one.print.kind == other.print.kind


_READ_BOTH = {
    "number": (
        "What numbers are on the {} and the {}?",
        "Read the numbers on the {} and the {}.",
    ),
    "letter": (
        "What letters are on the {} and the {}?",
        "Read the letters on the {} and the {}.",
    ),
    "dot": (
        "What colours are the dots in the {} and the {}?",
        "Which colours do the dots in the {} and the {} have?",
    ),
}


def _pairs(scene: Scene, rng: Random) -> list[tuple[Shape, Shape]]:
    """Every pair of shapes, in either order, in random order."""
    pairs = [(one, other) for one in scene.shapes for other in scene.shapes if one is not other]
    return rng.sample(pairs, len(pairs))


def _globals(scene: Scene, rng: Random) -> Iterator[Question]:
    for maker in (_counts, _existence, _relations, _positions, _colours):
        yield from maker(scene, rng)


def _counts(scene: Scene, rng: Random) -> Iterator[Question]:
    total = len(scene.shapes)
    yield _whole(rng.choice(_COUNT).format("shapes"), str(total))
    form = rng.choice(FORMS) if rng.random() < 0.3 else rng.choice(scene.shapes).form
    count = sum(shape.form == form for shape in scene.shapes)
    yield _whole(rng.choice(_COUNT).format(_PLURALS.get(form, form + "s")), str(count))
    colour = rng.choice(scene.shapes).colour
    count = sum(shape.colour == colour for shape in scene.shapes)
    yield _whole(rng.choice(_COUNT).format(f"{colour} shapes"), str(count))


_COUNT = ("How many {} are there?", "How many {} are in the picture?", "Count the {}.")
_PLURALS = {"cross": "crosses"}


def _existence(scene: Scene, rng: Random) -> Iterator[Question]:
    """One question answered yes and one answered no, whose colour or form often does occur."""
    names = {shape.name for shape in scene.shapes}
    colour, form = rng.choice(scene.shapes).colour, rng.choice(scene.shapes).form
    absent = [f"{colour} {other}" for other in FORMS] + [f"{other} {form}" for other in COLOURS]
    present = rng.choice(scene.shapes).name
    for name in (present, rng.choice([name for name in absent if name not in names])):
        text = rng.choice(_EXISTENCE).format(_with_article(name))
        yield _whole(text, "yes" if name in names else "no")


_EXISTENCE = ("Is there {}?", "Is there {} in the picture?", "Does the picture show {}?")


def _relations(scene: Scene, rng: Random) -> Iterator[Question]:
    for one, other in _pairs(scene, rng)[:_MOST_PAIRS]:
        across = (one.centre[0] - other.centre[0]) / scene.width
        down = (one.centre[1] - other.centre[1]) / scene.height
        if abs(across) > _CLEAR_DISTANCE:
            side = rng.choice(("left", "right"))
            text = f"Is the {one.name} {side} of the {other.name}?"
            yield ask_about(scene, text, _yes((across < 0) == (side == "left")), "global", one, other)
        if abs(down) > _CLEAR_DISTANCE:
            side = rng.choice(("above", "below"))
            text = f"Is the {one.name} {side} the {other.name}?"
            yield ask_about(scene, text, _yes((down < 0) == (side == "above")), "global", one, other)


def _positions(scene: Scene, rng: Random) -> Iterator[Question]:
    corners: dict[str, list[Shape]] = {}
    for shape in scene.shapes:
        vertical = _third(shape.centre[1] / scene.height, "top", "bottom")
        horizontal = _third(shape.centre[0] / scene.width, "left", "right")
        if vertical and horizontal:
            corners.setdefault(f"{vertical} {horizontal}", []).append(shape)
    alone = [(corner, found[0]) for corner, found in corners.items() if len(found) == 1]
    if alone:
        corner, shape = rng.choice(alone)
        text = rng.choice(("What is at the {}?", "What shape is at the {}?")).format(corner)
        yield _whole(text, shape.name)


def _third(share: float, low: str, high: str) -> str | None:
    if share < 0.4:
        return low
    return high if share > 0.6 else None


def _colours(scene: Scene, rng: Random) -> Iterator[Question]:
    """The colour of the only shape of a form: coarse enough to see without a crop."""
    forms = Counter(shape.form for shape in scene.shapes)
    alone = [shape for shape in scene.shapes if forms[shape.form] == 1]
    if alone:
        shape = rng.choice(alone)
        text = rng.choice(("What colour is the {}?", "Which colour does the {} have?"))
        yield ask_about(scene, text.format(shape.form), shape.colour, "global", shape)


def _whole(text: str, answer: str) -> Question:
    return Question(text, answer, "global", WHOLE, boxes=(WHOLE,))


def ask_about(scene: Scene, text: str, answer: str, kind: str, *shapes: Shape) -> Question:
    """Ask about shapes: the box holds them all."""
    about = tuple(scene.shapes.index(shape) for shape in shapes)
    boxes = tuple(_box(scene, shape.extent) for shape in shapes)
    return Question(text, answer, kind, _box(scene, union(*shapes)), about, boxes)


def _yes(true: bool) -> str:
    return "yes" if true else "no"


def _with_article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def union(*shapes: Shape) -> Extent:
    """The least extent that holds some shapes: left, top, right, bottom, in pixels."""
    lefts, tops, rights, bottoms = zip(*(shape.extent for shape in shapes), strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _box(scene: Scene, extent: Extent) -> Box:
    left, top, right, bottom = extent
    return Box(left / scene.width, top / scene.height, right / scene.width, bottom / scene.height)
