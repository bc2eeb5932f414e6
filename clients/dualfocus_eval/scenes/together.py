"""Questions about two or three shapes that lie apart, so that one crop of them all magnifies none."""

from collections.abc import Iterator
from itertools import combinations
from random import Random

from dualfocus_eval.scenes.layout import Scene, Shape
from dualfocus_eval.scenes.questions import Question, ask_about, union

# The shapes of a question take up at least this share of the picture's long side.
_LEAST_APART = 0.6
# Questions of one kind about a scene.
_MOST_OF_A_KIND = 2


def ask_together(scene: Scene, rng: Random) -> list[Question]:
    """Return questions about two or three shapes that lie apart, in random order.

    Kinds: "several" (read the print on each), "sum", "larger" (the name of the one that carries the larger number) and
    "equal" (yes or no, as often as the scene allows).
    """
    groups = [group for count in (2, 3) for group in combinations(scene.shapes, count) if _lie_apart(scene, group)]
    groups = [tuple(rng.sample(group, len(group))) for group in groups]
    asked: list[Question] = []
    for ask in (_readings, _sums, _comparisons, _equalities):
        asked += list(ask(scene, rng.sample(groups, len(groups)), rng))[:_MOST_OF_A_KIND]
    return rng.sample(asked, len(asked))


_Group = tuple[Shape, ...]


def _lie_apart(scene: Scene, group: _Group) -> bool:
    """Whether shapes carry one sort of print, too far from each other for one crop to magnify."""
    left, top, right, bottom = union(*group)
    apart = max(right - left, bottom - top) >= _LEAST_APART * max(scene.width, scene.height)
    return apart and len({shape.print.kind for shape in group}) == 1


def _readings(scene: Scene, groups: list[_Group], rng: Random) -> Iterator[Question]:
    for group in groups:
        text = rng.choice(_READ_EACH[group[0].print.kind]).format(_listed([f"the {shape.name}" for shape in group]))
        answer = _listed([shape.print.text for shape in group])
        yield ask_about(scene, text, answer, "several", *group)


_READ_EACH = {
    "number": ("What numbers are on {}?", "Read the numbers on {}."),
    "letter": ("What letters are on {}?", "Read the letters on {}."),
    "dot": ("What colours are the dots in {}?", "Which colours do the dots in {} have?"),
}


def _sums(scene: Scene, groups: list[_Group], rng: Random) -> Iterator[Question]:
    """Sums of numbers of one digit."""
    for group in groups:
        if group[0].print.kind == "number" and all(len(shape.print.text) == 1 for shape in group):
            text = rng.choice(_SUM).format(_listed([f"the {shape.name}" for shape in group]))
            yield ask_about(scene, text, str(sum(_number(shape) for shape in group)), "sum", *group)


_SUM = ("What is the sum of the numbers on {}?", "Add the numbers on {}.")


def _comparisons(scene: Scene, groups: list[_Group], rng: Random) -> Iterator[Question]:
    for group in groups:
        numbers = [_number(shape) for shape in group if shape.print.kind == "number"]
        if numbers and numbers.count(max(numbers)) == 1:
            degree = "larger" if len(group) == 2 else "largest"
            text = f"Which has the {degree} number, {_listed([f'the {shape.name}' for shape in group], 'or')}?"
            yield ask_about(scene, text, group[numbers.index(max(numbers))].name, "larger", *group)


def _equalities(scene: Scene, groups: list[_Group], rng: Random) -> Iterator[Question]:
    """One question answered yes and one answered no, where there are both."""
    pairs = [group for group in groups if len(group) == 2]
    for equal in rng.sample((True, False), 2):
        fitting = [(one, other) for one, other in pairs if (one.print.text == other.print.text) == equal]
        for one, other in fitting[:1]:
            text = _EQUAL[one.print.kind].format(one.name, other.name)
            yield ask_about(scene, text, "yes" if equal else "no", "equal", one, other)


_EQUAL = {
    "number": "Is the number on the {} equal to that on the {}?",
    "letter": "Is the letter on the {} the same as that on the {}?",
    "dot": "Does the dot in the {} have the same colour as that in the {}?",
}


def _number(shape: Shape) -> int:
    return int(shape.print.text)


def _listed(names: list[str], last: str = "and") -> str:
    """Return "a and b", or "a, b and c"."""
    return f"{', '.join(names[:-1])} {last} {names[-1]}"
