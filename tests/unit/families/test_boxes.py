"""From what a model writes to the pixels it means."""

import random
import re

import pytest
from dualfocus_engine.families.box_format import BoxFormat
from dualfocus_engine.families.boxes import Box, CropPolicy, Region, crop_region
from dualfocus_engine.families.profiles import load_profile
from dualfocus_training.models.untrained import untrained_profile
from pydantic import ValidationError

PAPER = CropPolicy()
BARE = CropPolicy(square=False, margin=0)
LLAVA = load_profile("llava-dualfocus").box_format
UNTRAINED = untrained_profile().box_format
# Qwen's kind: thousandths, y before x, its own brackets.
THOUSANDTHS = BoxFormat(
    template="<box>({y1:.0f},{x1:.0f}),({y2:.0f},{x2:.0f})</box>",
    pattern=r"\((?P<y1>-?\d+),(?P<x1>-?\d+)\),\((?P<y2>-?\d+),(?P<x2>-?\d+)\)",
    scale=1000,
)


def test_released_code_settings_are_the_default() -> None:
    assert CropPolicy(square=True, margin=25) == PAPER


@pytest.mark.parametrize(
    ("box", "size", "region"),
    [
        # 100 x 100 around (500, 500), then 25 a side.
        pytest.param(Box(0.45, 0.45, 0.55, 0.55), (1000, 1000), Region(425, 425, 575, 575), id="square"),
        # 400..600 x 250..350: squared to 200 around (500, 300), then widened.
        pytest.param(Box(0.4, 0.5, 0.6, 0.7), (1000, 500), Region(375, 175, 625, 425), id="wide"),
        # 250..300 x 300..700 of 500 x 1000: squared to 400 around (275, 500).
        pytest.param(Box(0.5, 0.3, 0.6, 0.7), (500, 1000), Region(50, 275, 500, 725), id="tall"),
        # 0..200 x 400..1000 squared to -200..400: what falls outside is lost, not shifted to the other side.
        pytest.param(Box(0.0, 0.4, 0.2, 1.0), (1000, 1000), Region(0, 375, 425, 1000), id="left border"),
        pytest.param(Box(0.8, 0.0, 1.0, 0.6), (1000, 1000), Region(575, 0, 1000, 625), id="right border"),
        # Squared to 900..1100 before clipping: centred on 1000, not shifted inwards.
        pytest.param(Box(1.0, 0.4, 1.0, 0.6), (1000, 1000), Region(875, 375, 1000, 625), id="on the border"),
        pytest.param(Box(0, 0, 1, 1), (640, 427), Region(0, 0, 640, 427), id="whole picture"),
        # 90..100 squared is 5 px outside no side; widening meets the border on two.
        pytest.param(Box(0.9, 0.9, 1.0, 1.0), (100, 100), Region(65, 65, 100, 100), id="corner"),
        pytest.param(Box(0.4, 0.4, 0.6, 0.6), (10, 6), Region(0, 0, 10, 6), id="tiny picture"),
        pytest.param(Box(0, 0, 1, 1), (1, 1), Region(0, 0, 1, 1), id="one pixel"),
        # x 123.5..247 (side 123.5), y 84..168: squared to 64.25..187.75; floats are truncated, not rounded.
        pytest.param(Box(0.247, 0.2, 0.494, 0.4), (500, 420), Region(98, 39, 272, 212), id="truncated"),
    ],
)
def test_box_becomes_the_released_codes_crop(box: Box, size: tuple[int, int], region: Region) -> None:
    assert crop_region(box, size, PAPER) == region


@pytest.mark.parametrize(
    ("policy", "region"),
    [
        (CropPolicy(square=True, margin=0), Region(400, 200, 600, 400)),
        (CropPolicy(square=False, margin=0), Region(400, 250, 600, 350)),
        (CropPolicy(square=False, margin=10), Region(390, 240, 610, 360)),
        (CropPolicy(square=True, margin=150), Region(250, 50, 750, 500)),
    ],
)
def test_policy_says_whether_to_square_and_how_far_to_widen(policy: CropPolicy, region: Region) -> None:
    assert crop_region(Box(0.4, 0.5, 0.6, 0.7), (1000, 500), policy) == region


@pytest.mark.parametrize(
    "box",
    [
        pytest.param(Box(0.5, 0.5, 0.501, 0.501), id="less than a pixel"),
        pytest.param(Box(0.5, 0.2, 0.5, 0.8), id="no width"),
        pytest.param(Box(1.0, 1.0, 1.0, 1.0), id="corner"),
    ],
)
def test_no_pixel_left_is_no_region(box: Box) -> None:
    assert crop_region(box, (100, 100), BARE) is None


def test_widening_gives_a_box_of_less_than_a_pixel_a_crop() -> None:
    assert crop_region(Box(0.5, 0.5, 0.501, 0.501), (1000, 1000), PAPER) == Region(475, 475, 526, 526)


def test_every_crop_lies_in_the_picture_and_holds_its_box() -> None:
    rng = random.Random(7)
    for _ in range(2000):
        size = (rng.randint(1, 2000), rng.randint(1, 2000))
        (x1, x2), (y1, y2) = (sorted(rng.random() for _ in range(2)) for _ in range(2))
        region = crop_region(Box(x1, y1, x2, y2), size, PAPER)
        assert region is not None
        assert 0 <= region.left <= x1 * size[0]
        assert 0 <= region.top <= y1 * size[1]
        assert x2 * size[0] - 1 < region.right <= size[0]
        assert y2 * size[1] - 1 < region.bottom <= size[1]


@pytest.mark.parametrize(
    ("box", "empty"),
    [
        (Box(0.2, 0.2, 0.4, 0.4), False),
        (Box(0.0, 0.0, 1.0, 1.0), False),
        (Box(0.2, 0.2, 0.2, 0.4), True),
        (Box(0.2, 0.4, 0.4, 0.4), True),
        (Box(0.4, 0.2, 0.2, 0.4), True),
        (Box(0.2, 0.4, 0.4, 0.2), True),
        (Box(0.4, 0.4, 0.2, 0.2), True),
    ],
)
def test_box_without_area_is_empty(box: Box, empty: bool) -> None:
    assert box.is_empty is empty


@pytest.mark.parametrize("margin", [-1, 1.5, "wide"])
def test_margin_is_a_whole_number_of_pixels(margin: object) -> None:
    with pytest.raises(ValidationError):
        CropPolicy.model_validate({"margin": margin})


@pytest.mark.parametrize("box_format", [LLAVA, UNTRAINED], ids=["llava-dualfocus", "untrained"])
def test_shipped_notation_is_the_papers(box_format: BoxFormat) -> None:
    assert box_format.write(Box(0.2, 0.41, 0.37, 0.74)) == "[0.20, 0.41, 0.37, 0.74]"


@pytest.mark.parametrize(
    "box_format", [LLAVA, UNTRAINED, THOUSANDTHS], ids=["llava-dualfocus", "untrained", "thousandths"]
)
def test_what_was_written_reads_back(box_format: BoxFormat) -> None:
    rng = random.Random(1)
    for _ in range(500):
        box = Box(*(rng.randint(0, 100) / 100 for _ in range(4)))
        read = box_format.read(f"It is at {box_format.write(box)}.")
        assert read is not None
        assert read.as_tuple() == pytest.approx(box.as_tuple())


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[0.20, 0.41, 0.37, 0.74]", (0.20, 0.41, 0.37, 0.74)),
        ("The sign is at [0.20, 0.41, 0.37, 0.74], on the left.", (0.20, 0.41, 0.37, 0.74)),
        ("[0.20,0.41,0.37,0.74]", (0.20, 0.41, 0.37, 0.74)),
        (" [ 0.20 ,\t0.41 ,\n0.37 , 0.74 ]\n", (0.20, 0.41, 0.37, 0.74)),
        ("[0, 0, 1, 1]", (0, 0, 1, 1)),
        ("[.2, 0.4, .37, 1]", (0.2, 0.4, 0.37, 1)),
        ("[0.2, 0.4, 0.375, 0.7401]", (0.2, 0.4, 0.375, 0.7401)),
        # The first box is the answer.
        ("[0.1, 0.2, 0.3, 0.4] or [0.5, 0.6, 0.7, 0.8]", (0.1, 0.2, 0.3, 0.4)),
        # What is no box does not hide one.
        ("[1] see [0.1, 0.2, 0.3] and [0.1, 0.2, 0.3, 0.4]", (0.1, 0.2, 0.3, 0.4)),
        ("[0.20, 0.41, 1.37, 74]", (0.20, 0.41, 1, 1)),
        # Inside out: for the caller to judge.
        ("[0.9, 0.9, 0.1, 0.1]", (0.9, 0.9, 0.1, 0.1)),
    ],
)
def test_box_is_read_from_whatever_surrounds_it(text: str, box: tuple[float, ...]) -> None:
    read = LLAVA.read(text)
    assert read is not None
    assert read.as_tuple() == pytest.approx(box)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I can't see it.",
        "[]",
        "[0.2, 0.4, 0.3]",
        "[0.2, 0.4, 0.3, 0.7",
        "0.2, 0.4, 0.3, 0.7",
        "[0.2 0.4 0.3 0.7]",
        "[0.2, 0.4, 0.3, 0.7, 0.9]",
        "[nan, inf, 0.3, 0.7]",
        "[a, b, c, d]",
        "[0.2.1, 0.4, 0.3, 0.7]",
    ],
)
@pytest.mark.parametrize("box_format", [LLAVA, UNTRAINED], ids=["llava-dualfocus", "untrained"])
def test_nothing_readable_is_no_box(box_format: BoxFormat, text: str) -> None:
    assert box_format.read(text) is None


def test_numbers_outside_the_image_are_clipped_on_both_sides() -> None:
    assert THOUSANDTHS.read("(-20,100),(500,1200)") == Box(0.1, 0.0, 1.0, 0.5)


def test_units_and_order_are_the_notations_own() -> None:
    assert THOUSANDTHS.write(Box(0.1, 0.2, 0.3, 0.4)) == "<box>(200,100),(400,300)</box>"
    assert THOUSANDTHS.read("<box>(200,100),(400,300)</box>") == Box(0.1, 0.2, 0.3, 0.4)


def test_grammar_lets_through_only_boxes_that_read_and_hold_area() -> None:
    assert UNTRAINED.grammar is not None
    rng = random.Random(3)
    digits = [(rng.randint(0, 49), rng.randint(0, 49), rng.randint(50, 99), rng.randint(50, 99)) for _ in range(300)]
    for corners in digits:
        box = Box(*(corner / 100 for corner in corners))
        written = UNTRAINED.write(box)
        assert re.fullmatch(UNTRAINED.grammar, written), f"the grammar forbids {written}"
        read = UNTRAINED.read(written)
        assert read == box
        assert not read.is_empty


@pytest.mark.parametrize(
    "text", ["[0.50, 0.10, 0.60, 0.60]", "[0.1, 0.1, 0.6, 0.6]", "[0.10, 0.10, 0.40, 0.60]", "box"]
)
def test_grammar_forbids_what_is_inside_out_or_written_otherwise(text: str) -> None:
    assert UNTRAINED.grammar is not None
    assert re.fullmatch(UNTRAINED.grammar, text) is None


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"pattern": r"(?P<x1>\d)(?P<y1>\d)"}, "x2, y2"),
        ({"pattern": "no groups"}, "x1, x2, y1, y2"),
        ({"scale": 0}, "scale"),
        ({"scale": -1}, "scale"),
        ({"colour": "red"}, "colour"),
        ({"pattern": "("}, "pattern\n.*not a valid regular expression"),
        # Written as the pattern does not read it: without brackets, in another order, in other units, too coarsely.
        ({"template": "{x1},{y1},{x2},{y2}"}, "template\n.*'0.125,0.375,0.625,0.875'"),
        ({"template": "[{y1}, {x1}, {y2}, {x2}]"}, "template\n.*another box"),
        ({"template": "[{x1}, {y1}, {x2}, {y2}]", "scale": 1000, "pattern": THOUSANDTHS.pattern}, "template\n.*none"),
        ({"template": "[{x1:.0f}, {y1:.0f}, {x2:.0f}, {y2:.0f}]"}, "template\n.*another box"),
        ({"template": "no box"}, "template\n.*none"),
        # Formats that can't be filled in.
        ({"template": "[{}, {}, {}, {}]"}, "template\n.*can't write"),
        ({"template": "[{x1"}, "template\n.*can't write"),
        ({"template": "[{x1:d}]"}, "template\n.*can't write"),
        ({"template": "[{x1.left}]"}, "template\n.*can't write"),
        ({"template": "[{x1[0]}]"}, "template\n.*can't write"),
    ],
)
def test_notation_that_can_not_be_read_is_refused(fields: dict[str, object], complaint: str) -> None:
    whole = {"template": LLAVA.template, "pattern": LLAVA.pattern} | fields
    with pytest.raises(ValidationError, match=complaint):
        BoxFormat.model_validate(whole)


@pytest.mark.parametrize(
    ("other", "share"),
    [
        (Box(0.0, 0.0, 0.4, 0.4), 1.0),
        (Box(0.2, 0.0, 0.6, 0.4), 1 / 3),
        (Box(0.4, 0.0, 0.8, 0.4), 0.0),
        (Box(0.1, 0.1, 0.1, 0.1), 0.0),
    ],
)
def test_what_two_boxes_have_in_common_is_a_share_of_what_they_cover(other: Box, share: float) -> None:
    box = Box(0.0, 0.0, 0.4, 0.4)
    assert box.overlap(other) == pytest.approx(share) == pytest.approx(other.overlap(box))
