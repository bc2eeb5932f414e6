"""Which scenes a model is judged by, and which questions about each: the usual mix, fine print, objects apart."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from dualfocus_eval.scenes.layout import Difficulty, Scene
from dualfocus_eval.scenes.questions import Question, ask
from dualfocus_eval.scenes.together import ask_together

_QUESTIONS = 4

# Small shapes in large pictures. At an encoder input of 128 pixels a shape is about 10 wide in the whole picture, its
# print (10 to 14 pixels) about 4 high in a crop of the shape: still unreadable, while a crop of that crop reads it.
FINE = Difficulty(
    shapes=(4, 8),
    sizes=(0.07, 0.09),
    long_side=(3600, 4000),
    distinct=1.0,
    print_scale=(0.13, 0.145),
    prints=("number", "letter"),
)
# Shapes far from each other; their print is often of one sort, and the same.
APART = Difficulty(
    shapes=(4, 7),
    sizes=(0.12, 0.20),
    overlap=0.0,
    prints=("number", "number", "letter", "dot"),
    two_digits=0.4,
    alike=0.25,
)


@dataclass(frozen=True)
class Mix:
    """Scenes of one difficulty, and the questions that are asked about each, four at most."""

    summary: str
    difficulty: Difficulty
    ask: Callable[[Scene, Random], list[Question]]


def _usual(scene: Scene, rng: Random) -> list[Question]:
    questions = ask(scene, rng)
    details = [question for question in questions if question.kind == "detail"]
    others = [question for question in questions if question.kind != "detail"]
    return [*details[:2], *others[:2]]


def _fine(scene: Scene, rng: Random) -> list[Question]:
    details = [question for question in ask(scene, rng) if question.kind == "detail"]
    return [replace(question, kind="fine") for question in details[:_QUESTIONS]]


def _apart(scene: Scene, rng: Random) -> list[Question]:
    return ask_together(scene, rng)[:_QUESTIONS]


STANDARD = "standard"
MIXES = {
    STANDARD: Mix("two questions on details and two others a scene", Difficulty(), _usual),
    "fine": Mix("print that takes a crop of a crop to read, in pictures of 3,600 to 4,000 pixels", FINE, _fine),
    "several": Mix("two or three objects apart: read each, add, compare", APART, _apart),
}
