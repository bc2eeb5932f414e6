"""What models write when they are asked for a box, and what is read of it: each way to go wrong that is known."""

from typing import Any

import pytest
from dualfocus_engine.families.box_format import BoxFormat
from dualfocus_engine.families.boxes import Box
from dualfocus_engine.families.profiles import load_profile
from pydantic import ValidationError

QWEN25, QWEN3 = load_profile("qwen2.5-vl").box_format, load_profile("qwen3-vl").box_format
INTERNVL = load_profile("internvl").box_format
SHOWN = (1596, 896)


def _of(shares: tuple[float, float, float, float]) -> Any:
    return pytest.approx(shares, abs=1e-3)


@pytest.mark.parametrize(
    "text",
    [
        '```json\n[\n\t{"bbox_2d": [250, 100, 500, 300], "label": "sign"}\n]\n```',
        '{"bbox_2d":[250,100,500,300],"label":"sign","confidence":0.9}',
        "[250, 100, 500, 300]",
        "(250,100),(500,300)",
        "sign(250,100),(500,300)",  # its tokens stripped, glued to the label
        'The 2 cups of [3] are here: [{"bbox_2d": [250.0, 100.0, 500.0, 300.0], "label": "2 cups at [1, 2, 3]"}]',
        '[{"bbox_2d": [250, 100, 500, 300], "label": "a"}, {"bbox_2d": [0, 0, 9, 9], "la',  # cut: the first is whole
        '[{"bbox_2d": [250, 100, 500, 300], "bbox_2d": [0, 0, 9, 9]}]',  # two in one object
        '<think>maybe [1, 2, 3, 4]</think>[{"bbox_2d": [250, 100, 500, 300]}]',
        '[{"bbox_2d": [500, 300, 250, 100]}]',  # right before left
        '[{"bbox_2d": [0.25, 0.1, 0.5, 0.3]}]',  # shares, where numbers per mille were asked for
    ],
)
def test_a_box_per_mille_is_read_however_it_is_wrapped(text: str) -> None:
    box = QWEN3.read(text)
    assert box is not None
    assert box.as_tuple() == _of((0.25, 0.1, 0.5, 0.3))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "There is no sign in the picture.",
        '{"bbox_2d": null}',
        "[x1, y1, x2, y2]",  # the prompt's own words come back
        "[999999, 999999, 999999, 999999]",  # no box has six digits
        "[100, 200, 300]",
        "[100, 200, 300, 400, 500]",
        '[{"bbox_2d": [250, 100, 500, 3',  # cut within: never a part of a number
        '[{"bbox_2d": [250, 100, 500',
        "<think>[1, 2, 3, 4]</think>It is not there.",
        "<think>maybe [1, 2, 3, 4], or",  # cut within its thoughts
        "<think>[1, 2, 3, 4]</think>[5, 6, 7, 8]<think>Or [1, 2, 3, 4]?",
    ],
)
def test_what_is_no_box_is_read_as_none(text: str) -> None:
    assert QWEN3.read(text) is None


def test_values_a_little_over_the_scale_are_clipped() -> None:
    box = QWEN3.read('[{"bbox_2d": [990, 0, 1012, 1003]}]')
    assert box is not None
    assert box.as_tuple() == _of((0.99, 0.0, 1.0, 1.0))


def test_pixels_are_those_of_the_picture_as_shown() -> None:
    box = QWEN25.read('[{"bbox_2d": [399, 224, 798, 448]}]', SHOWN)
    assert box is not None
    assert box.as_tuple() == _of((0.25, 0.25, 0.5, 0.5))
    assert "[399, 224, 798, 448]" in QWEN25.write(Box(0.25, 0.25, 0.5, 0.5), SHOWN)
    assert QWEN25.read(QWEN25.write(box, SHOWN), SHOWN) == box


@pytest.mark.parametrize(
    "text", ["sign[[250, 100, 500, 300]]", "<ref>sign</ref><box>[[250, 100, 500, 300]]</box>", "[[250,100,500,300]]"]
)
def test_internvls_box_is_read_with_its_tokens_and_without(text: str) -> None:
    box = INTERNVL.read(text)
    assert box is not None
    assert box.as_tuple() == _of((0.25, 0.1, 0.5, 0.3))


def test_boxes_of_long_pictures_have_pixels_of_five_digits() -> None:
    screenshot, low = (1064, 11928), Box(0.1, 0.9, 0.5, 0.95)
    read = QWEN25.read(QWEN25.write(low, screenshot), screenshot)
    assert read is not None
    assert read.as_tuple() == pytest.approx(low.as_tuple(), abs=0.001)


def _format(**fields: Any) -> BoxFormat:
    template = "[{x1:.0f}, {y1:.0f}, {x2:.0f}, {y2:.0f}]"
    return BoxFormat.model_validate({"pattern": r"\[{corners}\]", "scale": 1000, "template": template} | fields)


def test_y_may_come_first() -> None:
    swapped = _format(order="yxyx", template="[{y1:.0f}, {x1:.0f}, {y2:.0f}, {x2:.0f}]")
    box = swapped.read("[100, 250, 300, 500]")
    assert box is not None
    assert box.as_tuple() == _of((0.25, 0.1, 0.5, 0.3))
    with pytest.raises(ValidationError, match="another box or none"):
        _format(order="yxyx")


@pytest.mark.parametrize(("scale", "written"), [(999, "[250, 100, 500, 300]"), (1024, "[256, 102, 512, 307]")])
def test_other_scales_are_data(scale: int, written: str) -> None:
    box = _format(scale=scale).read(written)
    assert box is not None
    assert box.as_tuple() == _of((0.25, 0.1, 0.5, 0.3))


@pytest.mark.parametrize(
    ("several", "box"),
    [("first", (0.1, 0.1, 0.2, 0.2)), ("largest", (0.5, 0.5, 0.9, 0.9)), ("union", (0.1, 0.1, 0.9, 0.9))],
)
def test_of_several_boxes_one_is_taken(several: str, box: tuple[float, float, float, float]) -> None:
    read = _format(several=several).read("[100, 100, 200, 200] and [500, 500, 900, 900]")
    assert read is not None
    assert read.as_tuple() == _of(box)


@pytest.mark.parametrize(
    ("ends", "text"),
    [("◁/think▷", "◁think▷[100, 100, 200, 200]"), ("</answer>", "<answer>[100, 100, 200, 200]")],
)
def test_what_thoughts_begin_with_is_what_ends_them_without_its_slash(ends: str, text: str) -> None:
    assert _format(read_after=ends).read(text) is None
    assert _format(read_after=ends).read(f"{text}{ends}[100, 100, 200, 200]") is not None


def test_what_stands_behind_a_word_alone_is_read_without_it_too() -> None:
    assert _format(read_after="Box:").read("[100, 100, 200, 200]") is not None


def test_all_of_several_boxes_are_read_where_a_model_writes_lists() -> None:
    written = "[100, 100, 200, 200] and [500, 500, 900, 900]"
    read = [box.as_tuple() for box in _format(several="union").read_all(written)]
    assert read == [_of((0.1, 0.1, 0.2, 0.2)), _of((0.5, 0.5, 0.9, 0.9))]
    (union,) = _format(several="union", lists=False).read_all(written)
    assert union.as_tuple() == _of((0.1, 0.1, 0.9, 0.9))
    assert _format().read_all("none") == _format(lists=False).read_all("none") == []
    assert len(_format().read_all("[1, 2, 3, 4] " * 100)) == 16, "a list without an end"


def test_a_pattern_that_finds_nothing_leaves_it_to_the_next() -> None:
    either = _format(pattern=[r"<box>{corners}</box>", r"\[{corners}\]"])
    assert either.read("[1, 2, 3, 4] <box>500 600 700 800</box>") == either.read("<box>500, 600, 700, 800</box>")
    assert either.read("[500, 600, 700, 800]") == either.read("<box>500 600 700 800</box>") is not None


def test_a_point_is_the_middle_of_a_square() -> None:
    points = BoxFormat.model_validate(
        {
            "pattern": r'x="(?P<x>[\d.]+)" y="(?P<y>[\d.]+)"',
            "scale": 100,
            "point_side": 0.2,
            "template": '<point x="{x:.1f}" y="{y:.1f}">it</point>',
        }
    )
    box = points.read('<point x="50.0" y="25.0" alt="it">it</point>', (2000, 1000))
    assert box is not None
    assert box.as_tuple() == _of((0.45, 0.15, 0.55, 0.35)), "200 x 200 pixels"
    at_the_edge = points.read('<point x="0" y="0">', (2000, 1000))
    assert at_the_edge is not None
    assert at_the_edge.as_tuple() == _of((0, 0, 0.05, 0.1))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"scale": "feet"}, "scale"),
        ({"scale": -1}, "scale"),
        ({"order": "xxyy"}, "order"),
        ({"several": "all"}, "several"),
        ({"pattern": []}, "pattern"),
        ({"pattern": "{point} and (?P<x1>1)", "template": "{x:.0f}, {y:.0f}"}, "another box or none"),
        ({"pattern": r"(?P<x>\d+)"}, "no group named y"),
        ({"stop": "]", "closing": ")"}, "closing does not begin"),
        ({"opening": "{"}, "does not begin with opening"),
        ({"closing": "!"}, "end with closing"),
    ],
)
def test_a_format_that_can_not_be_is_refused_by_its_field(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        _format(**fields)


def test_a_pattern_that_takes_too_long_reads_nothing() -> None:
    slow = BoxFormat.model_construct(pattern=(r"(a+)+\[(?P<x1>b)",), read_after="</think>", scale=1.0)
    assert slow.read("a" * 60) is None
