"""The mixes of scenes: the usual one as it was, print that takes two crops, several objects apart."""

import re
from random import Random

import numpy as np
import pytest
from dualfocus_engine.families.boxes import Box, CropPolicy, Region, crop_region
from dualfocus_eval.scenes.drawing import draw
from dualfocus_eval.scenes.generate import compose_all
from dualfocus_eval.scenes.held_out import held_out
from dualfocus_eval.scenes.layout import Difficulty, Scene, Shape
from dualfocus_eval.scenes.mixes import MIXES
from dualfocus_eval.scenes.questions import Question, ask

SIDE = 128


def asked_of(mix: str, count: int) -> list[tuple[Scene, Question]]:
    chosen = MIXES[mix]
    return [
        (scene, question)
        for scene, rng in compose_all(5, count, chosen.difficulty)
        for question in chosen.ask(scene, rng)
    ]


def test_the_usual_mix_of_a_seed_is_what_it_was() -> None:
    asked = [(one.number, one.question.question, one.question.answer) for one in held_out(950, 2)]
    assert asked == USUAL


USUAL = [
    (0, "Read the number on the yellow square.", "23"),
    (1, "What letter is on the cyan square?", "X"),
    (2, "Is there a cyan square in the picture?", "yes"),
    (3, "Is the yellow square right of the green square?", "yes"),
    (4, "Which letter does the orange star carry?", "Q"),
    (5, "What colour is the dot in the red star?", "cyan"),
    (6, "Is the orange star left of the pink circle?", "no"),
    (7, "What shape is at the bottom right?", "orange star"),
]


def test_fine_print_takes_a_crop_of_a_crop() -> None:
    for scene, question in asked_of("fine", 30):
        (place,) = question.about
        shape = scene.shapes[place]
        assert 9 < shape.print.height < 15
        assert shape.print.height * SIDE / max(scene.width, scene.height) < 1
        assert seen(scene, shape, shape.extent) < 5.5
        assert seen(scene, shape, around_print(shape)) > 12


def seen(scene: Scene, shape: Shape, extent: tuple[float, float, float, float]) -> float:
    """The height of the shape's print, in the encoder's pixels, where a crop shows the extent."""
    left, top, right, bottom = extent
    box = Box(left / scene.width, top / scene.height, right / scene.width, bottom / scene.height)
    region = crop_region(box, (scene.width, scene.height), CropPolicy())
    assert region is not None
    return shape.print.height * SIDE / max(region.right - region.left, region.bottom - region.top)


def around_print(shape: Shape) -> tuple[float, float, float, float]:
    (x, y), reach = shape.print.centre, 1.5 * shape.print.height
    return x - reach, y - reach, x + reach, y + reach


@pytest.fixture(scope="module")
def apart() -> list[tuple[Scene, Question]]:
    return asked_of("several", 200)


def test_objects_apart_have_a_box_each_and_no_crop_of_all_magnifies_them(apart: list[tuple[Scene, Question]]) -> None:
    for scene, question in apart:
        assert len(question.boxes) == len(question.about) in (2, 3)
        corners = list(zip(*(box.as_tuple() for box in question.boxes), strict=True))
        assert question.box.as_tuple() == (*map(min, corners[:2]), *map(max, corners[2:]))
        for place in question.about:
            left, top, right, bottom = question.box.as_tuple()
            all_of_them = left * scene.width, top * scene.height, right * scene.width, bottom * scene.height
            assert seen(scene, scene.shapes[place], all_of_them) < 5.5


def test_answers_about_objects_apart_are_true(apart: list[tuple[Scene, Question]]) -> None:
    kinds = {question.kind for _, question in apart}
    assert kinds == {"several", "sum", "larger", "equal"} == set(TRUE)
    for scene, question in apart:
        shapes = [scene.shapes[place] for place in question.about]
        # A description is told where its words stand in the question: in the order of the boxes.
        found = [question.question.index(f"the {shape.name}") for shape in shapes]
        assert found == sorted(found)
        assert question.answer == TRUE[question.kind](shapes)


def _numbers(shapes: list[Shape]) -> list[int]:
    return [int(shape.print.text) for shape in shapes]


TRUE = {
    "several": lambda shapes: re.sub(r", ([^,]*)$", r" and \1", ", ".join(shape.print.text for shape in shapes)),
    "sum": lambda shapes: str(sum(_numbers(shapes))),
    "larger": lambda shapes: max(shapes, key=lambda shape: int(shape.print.text)).name,
    "equal": lambda shapes: "yes" if len({shape.print.text for shape in shapes}) == 1 else "no",
}


def test_equal_print_is_as_likely_as_other(apart: list[tuple[Scene, Question]]) -> None:
    answers = [question.answer for _, question in apart if question.kind == "equal"]
    assert 0.25 < answers.count("yes") / len(answers) < 0.75


def test_a_region_is_drawn_as_the_picture_is(apart: list[tuple[Scene, Question]]) -> None:
    for scene, _ in apart[:10]:
        region = Region(40, 30, 290, 240)
        part = np.asarray(draw(scene, region)).astype(int)
        whole = np.asarray(draw(scene).crop(region)).astype(int)
        # Edges of shapes may fall on the other side of a pixel's middle.
        assert (abs(part - whole).max(-1) > 0).mean() < 0.01


def test_every_question_has_a_box_for_each_thing_it_is_about() -> None:
    for number in range(50):
        rng = Random(number)
        (scene, _) = next(compose_all(number, 1, Difficulty()))
        for question in ask(scene, rng):
            assert len(question.boxes) == max(1, len(question.about))
            assert all(question.box.shared_with(box).area == pytest.approx(box.area) for box in question.boxes)
