"""What a model and a profile that do not fit each other show, and that the line to change is named."""

from collections.abc import Callable
from typing import Any

import pytest
from dualfocus_engine import Box, Profile, load_profile
from dualfocus_engine.families.boxes import Size, crop_region
from dualfocus_engine.families.choosing import profile_of
from dualfocus_engine.shipped import SHIPPED_MODEL
from dualfocus_server.check.asking import Answered, Reply
from dualfocus_server.check.drawing import Drawn, draw_pictures
from dualfocus_server.check.findings import Findings, find

SMALL = profile_of(str(SHIPPED_MODEL))
QWEN3, QWEN25 = load_profile("qwen3-vl"), load_profile("qwen2.5-vl")
PICTURES = draw_pictures()
Writes = Callable[[Box, Size, Size], str]


def _shown(profile: Profile, size: Size) -> Size:
    return profile.views.show_whole(size) if profile.views else size


def _reply(profile: Profile, drawn: Drawn, writes: Writes, **turns: Any) -> Reply:
    """What a server answers whose model writes boxes so."""
    size = drawn.picture.size
    shown = _shown(profile, size)
    text = writes(drawn.box, size, shown) if drawn.box else "It is not there."
    box = profile.box_format.read(text, shown)
    crop = None if box is None else crop_region(box, size, profile.crop)
    said = {"text": f"It is {drawn.number}.", "finish_reason": "stop"}
    costs = {
        "grounding": {"prompt_tokens": 1000, "cached_tokens": 900, "image_tokens": 900},
        "micro": {"prompt_tokens": 1500, "cached_tokens": 992, "image_tokens": 1200},
    }
    return Reply.model_validate(
        {
            "selection": "lower_perplexity" if crop else "no_box",
            "box": box and box.as_tuple(),
            "crop": crop,
            "grounding": {"text": text, "finish_reason": "stop"},
            "macro": {"text": "I can't read it.", "finish_reason": "stop"},
            "micro": said if crop else None,
            "turns": costs | turns if crop else {},
        }
    )


def _found(profile: Profile, writes: Writes, **turns: Any) -> Findings:
    answered = [Answered(drawn, _reply(profile, drawn, writes, **turns)) for drawn in PICTURES]
    return find(answered, profile, profile.views)


def _json(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'```json\n[{{"bbox_2d": [{x1:.0f}, {y1:.0f}, {x2:.0f}, {y2:.0f}], "label": "it"}}]\n```'


def _scaled(box: Box, width: float, height: float) -> tuple[float, float, float, float]:
    return box.x1 * width, box.y1 * height, box.x2 * width, box.y2 * height


def _per_mille(box: Box, size: Size, shown: Size) -> str:
    return _json(*_scaled(box, 1000, 1000))


def _y_first(box: Box, size: Size, shown: Size) -> str:
    x1, y1, x2, y2 = _scaled(box, 1000, 1000)
    return _json(y1, x1, y2, x2)


def _pixels_shown(box: Box, size: Size, shown: Size) -> str:
    return _json(*_scaled(box, *shown))


def _padded(box: Box, size: Size) -> Box:
    side, (width, height) = max(size), size
    x, y = (side - width) / 2, (side - height) / 2
    return Box(
        (box.x1 * width + x) / side, (box.y1 * height + y) / side,
        (box.x2 * width + x) / side, (box.y2 * height + y) / side,
    )  # fmt: skip


def _small(box: Box, size: Size, shown: Size) -> str:
    return SMALL.box_format.write(box)


@pytest.mark.parametrize(
    ("profile", "writes"),
    [(QWEN3, _per_mille), (QWEN25, _pixels_shown), (SMALL, _small)],
    ids=lambda given: str(given)[:12],
)
def test_a_model_that_writes_as_its_profile_reads_works(profile: Profile, writes: Writes) -> None:
    found = _found(profile, writes)
    assert (found.works, found.readable, found.hold, found.read_by_micro, found.read_by_macro) == (True, 1, 1, 1, 0)
    assert found.mean_iou is not None
    assert found.mean_iou > 0.9
    assert (found.absent_boxed, found.shared, found.thoughts) == (0, True, False)
    assert found.crop_tokens == (300,) * 6


@pytest.mark.parametrize(
    ("profile", "writes", "named"),
    [
        (QWEN3, _y_first, "y comes first: box_format.order: yxyx"),
        (QWEN3, _pixels_shown, "box_format.scale: pixels"),
        (QWEN25, _per_mille, "box_format.scale: 1000"),
        (SMALL, lambda box, size, shown: SMALL.box_format.write(_padded(box, size)), "padded to a square"),
        (
            SMALL,
            lambda box, size, shown: SMALL.box_format.write(Box(box.y1, box.x1, box.y2, box.x2)),
            "y comes first: box_format.order: yxyx",
        ),
        (SMALL, lambda box, size, shown: SMALL.box_format.write(Box(*(c / 2 for c in box.as_tuple()))), "scale: 0.5"),
        (SMALL, _per_mille, "box_format.scale: 1000"),
        (SMALL, _per_mille, r"box_format.pattern: '\[\s{0,9}{corners}\s{0,9}\]'"),
    ],
    ids=["y first", "pixels", "per mille", "padded", "small, y first", "small, halved", "small, JSON", "pattern"],
)
def test_what_is_wrong_with_a_profile_is_named(profile: Profile, writes: Writes, named: str) -> None:
    found = _found(profile, writes)
    assert not found.works
    assert named in found.advice[0]


def test_a_model_that_writes_no_boxes_is_quoted() -> None:
    found = _found(QWEN3, lambda box, size, shown: "It is on the right.")
    assert (found.readable, found.hold, found.mean_iou, found.read_by_micro) == (0, 0, None, None)
    assert "grounding_prompt" in found.advice[0]
    assert "It is on the right." in found.advice[0]


def test_boxes_beside_the_thing_are_no_fault_of_the_profile() -> None:
    found = _found(QWEN3, lambda box, size, shown: _json(10, 10, 20, 20))
    assert not found.works
    assert "box_format" not in found.advice[0]


def test_a_prefix_that_is_not_shared_and_crops_of_another_size_are_named() -> None:
    micro = {"prompt_tokens": 9000, "cached_tokens": 0, "image_tokens": 8000}
    found = _found(QWEN3, _per_mille, micro=micro)
    assert (found.shared, found.as_wanted, len(found.advice)) == (False, False, 2)
    assert "7100 to 7100 image tokens, wanted were 256 to 1024: see views.rule" in found.advice[0]
    assert "prefix caching" in found.advice[1]


def test_no_prefix_is_missed_where_the_crop_is_in_its_picture() -> None:
    fifth = load_profile("fifth-patch")
    micro = {"prompt_tokens": 3700, "cached_tokens": 96, "image_tokens": 3456}
    found = _found(fifth, lambda box, size, shown: fifth.box_format.write(box), micro=micro)
    assert (found.shared, found.works) == (None, True)


@pytest.mark.parametrize(("tokens", "as_wanted"), [(255, False), (256, True), (1024, True), (1025, False)])
def test_crops_of_too_few_tokens_are_as_wrong_as_those_of_too_many(tokens: int, as_wanted: bool) -> None:
    micro = {"prompt_tokens": 1500, "cached_tokens": 992, "image_tokens": 900 + tokens}
    found = _found(QWEN3, _per_mille, micro=micro)
    assert (found.as_wanted, found.works) == (as_wanted, as_wanted)
    assert all(f"Crops took {tokens} to {tokens} image tokens" in line for line in found.advice)


def test_thoughts_in_an_answer_are_named() -> None:
    answered = [Answered(drawn, _reply(QWEN3, drawn, _per_mille)) for drawn in PICTURES]
    thinking = answered[0].reply.model_copy(update={"macro": {"text": "<think>Hm", "finish_reason": "stop"}})
    thinking = Reply.model_validate(thinking.model_dump())
    found = find([Answered(PICTURES[0], thinking), *answered[1:]], QWEN3, QWEN3.views)
    assert "enable_thinking" in found.advice[0]


def test_things_are_where_they_are_said_to_be() -> None:
    for drawn in PICTURES:
        if drawn.box is None:
            continue
        width, height = drawn.picture.size
        x, y = (drawn.box.x1 + drawn.box.x2) / 2, (drawn.box.y1 + drawn.box.y2) / 2
        edge = drawn.picture.getpixel(
            (int((drawn.box.x1 + 0.1 * (drawn.box.x2 - drawn.box.x1)) * width), int(y * height))
        )
        outside = drawn.picture.getpixel((int(x * width), max(int(drawn.box.y1 * height) - 3, 0)))
        assert edge != outside
        assert abs(x - y) > 0.1, "off the diagonal"
