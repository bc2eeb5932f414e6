"""Boxes asked for with an opening and without: which is better, and the line of the profile to change."""

import pytest
from dualfocus_engine import Box, load_profile
from dualfocus_engine.families.box_format import BoxFormat
from dualfocus_server.check.asking import Answered, EngineAsker
from dualfocus_server.check.drawing import Drawn
from dualfocus_server.check.findings import find
from dualfocus_server.check.openings import Opening, compare_openings, with_opening

from ..builders import turn
from ..fake_engine import FakeEngine, focus_on
from .test_findings import PICTURES, QWEN3, SMALL, _json, _per_mille, _reply

FREE = QWEN3.box_format
OPENED = with_opening(FREE)
assert OPENED is not None
ANSWERED = [Answered(drawn, _reply(QWEN3, drawn, _per_mille)) for drawn in PICTURES]
BESIDE = [Answered(drawn, _reply(QWEN3, drawn, lambda box, size, shown: _json(10, 10, 20, 20))) for drawn in PICTURES]


@pytest.mark.parametrize("name", ["qwen2.5-vl", "qwen3-vl", "internvl", "llava-dualfocus"])
def test_a_profiles_opening_is_what_its_template_writes_around_the_numbers(name: str) -> None:
    profile = load_profile(name)
    opened = with_opening(profile.box_format)
    assert opened is not None
    box = Box(0.2, 0.3, 0.6, 0.8)
    written = opened.write(box)
    assert written == profile.box_format.write(box)
    numbers = written.removeprefix(opened.opening).removesuffix(opened.closing)
    assert numbers[0].isdigit()
    assert numbers[-1].isdigit()
    assert opened.stop is not None
    assert opened.stop not in numbers
    assert BoxFormat.model_validate(opened.model_dump()) == opened, "such a profile is accepted"


@pytest.mark.parametrize(
    ("template", "stop"),
    [
        ("<box>({x1:.0f},{y1:.0f}),({x2:.0f},{y2:.0f})</box>", ")<"),  # a bracket alone stands between the numbers too
        ("at ({x1:.0f},{y1:.0f}),({x2:.0f},{y2:.0f})", None),
        ("{x1:.0f} {y1:.0f} {x2:.0f} {y2:.0f} is it", None),  # nothing to open with
    ],
)
def test_what_ends_a_box_stands_nowhere_inside_it(template: str, stop: str | None) -> None:
    found = with_opening(BoxFormat(pattern="{corners}", scale=1000, template=template))
    assert (found and found.stop) == stop


async def _asked(own: BoxFormat, answered: list[Answered], points: bool) -> tuple[Opening | None, list[BoxFormat]]:
    """What is found where the other way's boxes are where the things are, or nowhere."""
    formats: list[BoxFormat] = []

    async def locate(drawn: Drawn, box_format: BoxFormat) -> Box | None:
        formats.append(box_format)
        return drawn.box if points else None

    return await compare_openings(own, answered, locate), formats


async def test_an_opening_that_makes_boxes_better_is_told_as_lines_of_the_profile() -> None:
    found, formats = await _asked(FREE, BESIDE, points=True)
    assert found is not None
    assert formats == [OPENED] * 6, "asked about all that is there"
    assert (found.used, found.iou_with, found.iou_without, found.better) == (False, 1.0, 0.0, True)
    (advice,) = find(ANSWERED, QWEN3, QWEN3.views, found).advice
    assert r'box_format: {opening: "```json\n[\n\t{\"bbox_2d\": [", stop: "]", closing: "], \"label\"' in advice


async def test_a_profiles_opening_that_makes_boxes_worse_is_to_be_left_out() -> None:
    found, formats = await _asked(OPENED, BESIDE, points=True)
    assert found is not None
    assert [(one.opening, one.stop, one.closing) for one in formats] == [("", None, "")] * 6
    assert (found.used, found.iou_with, found.iou_without, found.better) == (True, 0.0, 1.0, False)
    (advice,) = find(ANSWERED, QWEN3, QWEN3.views, found).advice
    assert "better without box_format.opening (a mean IoU of 0.00 with, 1.00 without)" in advice


@pytest.mark.parametrize(
    ("own", "answered", "points", "better"),
    [(FREE, ANSWERED, True, None), (FREE, ANSWERED, False, False), (OPENED, ANSWERED, False, True)],
    ids=["alike", "worse with one", "worse without its own"],
)
async def test_a_profile_that_is_as_good_as_can_be_is_left_alone(
    own: BoxFormat, answered: list[Answered], points: bool, better: bool | None
) -> None:
    found, _ = await _asked(own, answered, points)
    assert found is not None
    assert found.better is better
    assert find(answered, QWEN3, QWEN3.views, found).works


async def test_a_server_is_asked_one_way_only() -> None:
    found = await compare_openings(FREE, BESIDE, None)
    assert found is not None
    assert (found.used, found.iou_with, found.iou_without, found.better) == (False, None, 0.0, None)
    assert not list(found.advice())


async def test_an_engine_is_asked_in_the_other_format_and_keeps_its_own() -> None:
    engine = FakeEngine(grounding=turn("0.20, 0.20, 0.60, 0.60]"))
    asker = EngineAsker(focus_on(engine))
    opened = with_opening(engine.profile.box_format)
    assert opened is not None
    assert asker.locate is not None
    assert await asker.locate(PICTURES[0], opened) == Box(0.2, 0.2, 0.6, 0.6)
    assert "".join(map(chr, engine.prompts["grounding"].token_ids[-1:])) == "["
    assert "macro" not in engine.prompts
    assert engine.profile.box_format.opening == ""


def test_the_shipped_model_writes_a_box_that_can_be_opened() -> None:
    opened = with_opening(SMALL.box_format)
    assert opened is not None
    assert (opened.opening, opened.stop, opened.closing) == ("[", "]", "]")
