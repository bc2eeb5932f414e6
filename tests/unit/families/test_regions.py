"""Which of several boxes become one."""

import pytest
from dualfocus_engine.families.boxes import Box, CropPolicy, Region
from dualfocus_engine.families.regions import places_of

SIZE = (1000, 1000)
TIGHT = CropPolicy(square=False, margin=0)
LEFT, RIGHT, LOW = Box(0.1, 0.1, 0.2, 0.2), Box(0.7, 0.1, 0.8, 0.2), Box(0.1, 0.8, 0.2, 0.9)


def _boxes(*boxes: Box, most: int = 4, policy: CropPolicy = TIGHT) -> list[Box]:
    return [place.box for place in places_of(boxes, SIZE, policy, most)]


def test_boxes_apart_stay_apart_each_with_its_crop() -> None:
    places = places_of((LEFT, RIGHT), SIZE, CropPolicy(margin=25), 4)
    assert places == [(LEFT, Region(75, 75, 225, 225)), (RIGHT, Region(675, 75, 825, 225))]


@pytest.mark.parametrize(
    ("other", "joined"),
    [
        (Box(0.15, 0.15, 0.25, 0.25), Box(0.1, 0.1, 0.25, 0.25)),
        (Box(0.1, 0.1, 0.2, 0.2), LEFT),
        (Box(0.12, 0.12, 0.13, 0.13), LEFT),
    ],
    ids=["overlapping", "the same", "inside"],
)
def test_boxes_that_overlap_become_one(other: Box, joined: Box) -> None:
    assert _boxes(LEFT, other) == _boxes(other, LEFT) == [joined]


def test_boxes_so_close_that_one_crop_takes_no_more_pixels_than_two_become_one() -> None:
    beside = Box(0.22, 0.1, 0.32, 0.2)
    assert _boxes(LEFT, beside) == [LEFT, beside], "22 x 10 are more than twice 10 x 10"
    wide = CropPolicy(square=False, margin=25)
    assert _boxes(LEFT, beside, policy=wide) == [Box(0.1, 0.1, 0.32, 0.2)], "27 x 15 are less than twice 15 x 15"


def test_of_too_many_those_become_one_that_lose_least_by_it() -> None:
    near = Box(0.75, 0.25, 0.85, 0.35)
    assert _boxes(LEFT, RIGHT, near, LOW, most=3) == [LEFT, Box(0.7, 0.1, 0.85, 0.35), LOW]
    assert _boxes(LEFT, RIGHT, LOW, most=1) == [Box(0.1, 0.1, 0.8, 0.9)]


def test_what_holds_no_pixel_is_left_out() -> None:
    empty = Box(0.5, 0.5, 0.5, 0.5)
    assert _boxes(empty, LEFT) == [LEFT]
    assert _boxes(empty) == _boxes() == []
    assert _boxes(empty, policy=CropPolicy(square=False, margin=0, least_side=32)) == [empty]
