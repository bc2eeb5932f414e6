"""What a grounding turn's boxes are shares of, and the tokens of a box that the model did not write."""

from collections.abc import Iterator

import pytest
from dualfocus_engine.families.boxes import Box, Region
from dualfocus_engine.families.profiles import Profile, load_profile
from dualfocus_engine.method.looks.grounding import box_reply, read_boxes
from dualfocus_engine.method.questions import Question
from dualfocus_engine.pictures.fitting import size_within_aspect

from ..builders import asked, plain
from ..fake_engine import FakeEngine

PAPER = load_profile("paper")
STRIP = plain(size=(4000, 100))
# In the strip, which is shown with as much white above and below as it is high itself, half of it above.
LOW, LOW_AS_SHOWN = Box(0.5, 0.8, 0.6, 1.0), "[0.50, 0.65, 0.60, 0.75]"


def boxes(written: str, profile: Profile = PAPER) -> Iterator[tuple[float, ...]]:
    question = Question((asked("What is it?", STRIP),))
    return (box.as_tuple() for box in read_boxes(profile, question, written, STRIP))


def test_a_box_in_a_strip_is_one_of_the_strip_and_not_of_the_white_beside_it() -> None:
    assert size_within_aspect(STRIP.size) == (4000, 200)
    (box,) = boxes(LOW_AS_SHOWN)
    assert box == pytest.approx(LOW.as_tuple())


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("[0.10, 0.10, 0.20, 0.90]", (0.1, 0.0, 0.2, 1.0)),
        ("[0.10, 0.00, 0.20, 0.50]", (0.1, 0.0, 0.2, 0.5)),
        ("[0.10, 0.02, 0.20, 0.20]", (0.1, 0.0, 0.2, 0.0)),
    ],
)
def test_of_a_box_in_the_white_beside_a_strip_the_strips_part_is_taken(written: str, read: tuple[float, ...]) -> None:
    (box,) = boxes(written)
    assert box == pytest.approx(read)


def test_a_box_that_is_given_is_written_as_the_model_sees_the_strip() -> None:
    engine = FakeEngine()
    engine.profile = PAPER
    assert "".join(map(chr, box_reply(engine, STRIP, LOW))) == LOW_AS_SHOWN


def test_what_is_padded_to_a_square_or_shown_at_a_size_is_read_as_before() -> None:
    padded = load_profile("llava-dualfocus")
    assert padded.pad_color is not None
    assert [*boxes(LOW_AS_SHOWN, padded)] == [(0.5, 0.65, 0.6, 0.75)]
    shown = STRIP.shown_at((4000, 100))
    question = Question((asked("What is it?", shown),))
    assert [box.as_tuple() for box in read_boxes(PAPER, question, LOW_AS_SHOWN, shown)] == [(0.5, 0.65, 0.6, 0.75)]


def test_a_box_of_the_whole_picture_and_the_same_as_one_of_a_region() -> None:
    region, size = Region(100, 50, 300, 250), (400, 500)
    box = Box(0.1, 0.2, 0.3, 0.9)
    assert box.within(region, size).of(region, size).as_tuple() == pytest.approx(box.as_tuple())
