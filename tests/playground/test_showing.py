"""An answer is shown as it was given: the box where it is, the winner, the reasons, the measures."""

import copy
import re
from typing import Any

import pytest
from conftest import Open
from dualfocus_engine.method.results import Ending, Selection
from looking import ask, assert_drawn_at, choose, picture
from playwright.sync_api import Page, expect
from stub import RECORDED, Stub

BOX = [0.25, 0.2, 0.5, 0.6]
_IS_SHOWN = "image => image.complete && image.naturalWidth > 0"


def answered(page: Page, content: bytes | None = None) -> Page:
    choose(page, content)
    ask(page)
    return page


def test_the_box_is_drawn_where_it_is(visit: Open, stub: Stub) -> None:
    stub.answer_with(box=BOX, crop=[60, 30, 240, 210])
    page = answered(visit(stub.url))
    assert_drawn_at(page, BOX)
    expect(page.get_by_alt_text("The model looked from 25 % to 50 % of its width and 20 % to 60 %")).to_be_visible()
    line = page.locator("rect.crop-line:not(.under)")
    assert [line.get_attribute(name) for name in ("x", "y", "width", "height")] == ["60", "30", "180", "180"]


@pytest.mark.parametrize("settings", [{"viewport": {"width": 360, "height": 740}}, {"device_scale_factor": 1.5}])
def test_it_is_there_at_any_size(visit: Open, stub: Stub, settings: dict[str, Any]) -> None:
    stub.answer_with(box=BOX, crop=None, crop_image=None)
    page = answered(visit(stub.url, **settings))
    assert_drawn_at(page, BOX)
    page.set_viewport_size({"width": 700, "height": 600})
    assert_drawn_at(page, BOX)


def test_a_picture_taken_sideways_is_marked_upright(visit: Open, stub: Stub) -> None:
    stub.answer_with(box=BOX, crop=None, crop_image=None)
    page = answered(visit(stub.url), picture(800, 500, orientation=6))
    expect(page.locator(".framed svg")).to_have_attribute("viewBox", "0 0 500 800")
    assert_drawn_at(page, BOX)


def test_the_crop_stands_beside_the_picture_and_the_winner_is_marked(visit: Open, stub: Stub) -> None:
    page = answered(visit(stub.url))
    crop = page.locator(".micro figure img")
    expect(crop).to_have_attribute("src", RECORDED["dual"]["dualfocus"]["crop_image"])
    assert crop.evaluate(_IS_SHOWN)
    whole, part = (page.locator(each).bounding_box() for each in (".look.macro", ".look.micro"))
    assert whole is not None
    assert part is not None
    assert part["x"] >= whole["x"] + whole["width"]
    expect(page.locator(".winner")).to_have_count(1)
    expect(page.locator(".micro.winner .badge")).to_have_text("chosen")
    expect(page.locator("#status")).to_contain_text("Answer: 42.")


def test_each_region_is_drawn_and_its_crop_shown(visit: Open, stub: Stub) -> None:
    image = RECORDED["dual"]["dualfocus"]["crop_image"]
    regions = [
        {"box": [0.1, 0.1, 0.3, 0.3], "crop": [20, 10, 140, 110], "tokens": 64, "crop_image": image},
        {"box": [0.6, 0.5, 0.9, 0.9], "crop": [220, 130, 390, 290], "tokens": 64, "crop_image": image},
    ]
    stub.answer_with(regions=regions, box=[0.1, 0.1, 0.9, 0.9], crop=[20, 10, 390, 290])
    page = answered(visit(stub.url))
    assert _lines(page) == [[40, 30, 80, 60], [240, 150, 120, 120]], "of 400 x 300 pixels"
    expect(page.locator("rect.crop-line:not(.under)")).to_have_count(2)
    expect(page.get_by_alt_text("and 10 % to 30 % of its height, then from 60 % to 90 % of its width")).to_be_visible()
    for place, size in enumerate(("120 . 100", "170 . 160")):
        expect(page.locator(".micro figcaption").nth(place)).to_have_text(re.compile(f"{size} pixels of the picture"))
    left, right = (page.locator(".micro figure").nth(place).bounding_box() for place in (0, 1))
    assert left is not None
    assert right is not None
    assert right["x"] >= left["x"] + left["width"]


def _lines(page: Page) -> list[list[int]]:
    """The boxes as they are drawn: left, top, width, height."""
    expect(page.locator(".framed svg")).to_be_visible()
    lines = page.locator("rect.box-line:not(.under)").all()
    return [[round(float(line.get_attribute(name) or 0)) for name in ("x", "y", "width", "height")] for line in lines]


def _searched() -> list[dict[str, Any]]:
    found = RECORDED["dual"]["dualfocus"]
    image, places = found["crop_image"], [[0.2, 0.2, 0.6, 0.6], [0.3, 0.3, 0.4, 0.4], [0.35, 0.3, 0.38, 0.35]]
    looks = [{"turn": "macro", "answer": found["macro"], "box": None, "crop": None, "crop_image": None}]
    for number, box in enumerate(places, 2):
        answer = found["micro"] | {"text": f"look {number}"}
        crop = [round(share * side) for share, side in zip(box, (400, 300, 400, 300), strict=True)]
        looks.append({"turn": "micro", "answer": answer, "box": box, "crop": crop, "crop_image": image})
    looks[-1] |= {"answer": None, "crop_image": None, "failed": "nothing_to_enlarge"}
    return [{"failed": None, "chosen": place == 2} | look for place, look in enumerate(looks)]


def test_each_look_of_a_search_has_its_place(visit: Open, stub: Stub) -> None:
    stub.answer_with(looks=_searched(), ending="look_failed")
    page = answered(visit(stub.url))
    assert _lines(page) == [[80, 60, 160, 120], [120, 90, 40, 30], [140, 90, 12, 15]]
    expect(page.locator(".look h3")).to_have_text(["First look", "Second look", "Third look", "Fourth look"])
    expect(page.locator(".look .said")).to_have_count(4)
    assert page.locator(".said .text").all_inner_texts() == ["89", "look 2", "look 3"]
    expect(page.locator(".said.none")).to_have_text("This part was already shown as large as it can be.")
    expect(page.locator(".winner")).to_have_count(1)
    expect(page.get_by_role("article", name="Third look").locator(".badge")).to_have_text("chosen")
    expect(page.locator(".why")).to_have_text(
        "The third look was the surest: of its answers, the model found this the least surprising. "
        "The last look came to nothing."
    )


def test_why_a_look_came_to_nothing_is_told_in_words(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    choose(page)
    for reason in ("no_box", "empty_box", "same_place", "context_full", "image_limit", "micro_failed", "timed_out"):
        stub.answer_with(looks=[*_searched()[:-1], _searched()[-1] | {"failed": reason}], ending="look_failed")
        ask(page)
        expect(page.locator(".said.none")).not_to_have_text("No answer of this look.")


def test_why_a_search_ended_is_told_in_words(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    choose(page)
    told = set()
    for ending in Ending:
        stub.answer_with(looks=_searched(), ending=ending.value)
        ask(page)
        told.add(page.locator(".why").inner_text())
        expect(page.locator(".why")).not_to_contain_text("undefined")
    assert len(told) == len(Ending)


def test_both_answers_stand_with_their_perplexities(visit: Open, stub: Stub) -> None:
    page = answered(visit(stub.url))
    assert page.locator(".said .text").all_inner_texts() == ["89", "42"]
    assert page.locator(".said dd").all_inner_texts() == ["3.15", "1.04"]


def test_the_first_look_can_win(visit: Open, stub: Stub) -> None:
    stub.answer_with(winner="macro")
    page = answered(visit(stub.url))
    expect(page.locator(".macro.winner .badge")).to_be_visible()
    expect(page.locator(".micro .badge")).to_have_count(0)
    expect(page.locator(".why")).to_contain_text("The first look was the surer one")


def test_every_reason_is_explained_in_words_of_its_own(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    choose(page)
    told = set()
    for selection in Selection:
        stub.answer_with(selection=selection.value, grounding={"text": "over <b>there</b>", "finish_reason": "stop"})
        ask(page)
        told.add(page.locator(".why").inner_text())
        expect(page.locator(".why")).not_to_contain_text(selection.value)
        is_degraded = selection in {
            Selection.NO_BOX,
            Selection.EMPTY_BOX,
            Selection.CONTEXT_FULL,
            Selection.IMAGE_LIMIT,
            Selection.MICRO_FAILED,
            Selection.TIMED_OUT,
            Selection.GROUNDER_FAILED,
            Selection.GROUNDER_TIMED_OUT,
        }
        expect(page.locator(".verdict.degraded")).to_have_count(int(is_degraded))
        expect(page.locator("#answer b")).to_have_count(0)
    assert len(told) == len(Selection)
    assert any("over <b>there</b>" in text for text in told)


def test_what_was_done_otherwise_than_by_default_is_told(visit: Open, stub: Stub) -> None:
    stub.answer_with(notes=["Of the GIF file the first frame alone is looked at.", "Shown <b>smaller</b>."])
    notes = answered(visit(stub.url)).locator(".verdict .note")
    expect(notes).to_have_text(["Of the GIF file the first frame alone is looked at.", "Shown <b>smaller</b>."])


def test_a_reason_of_a_later_server_is_named(visit: Open, stub: Stub) -> None:
    stub.answer_with(selection="by_lot")
    expect(answered(visit(stub.url)).locator(".why")).to_contain_text("by_lot")


def test_without_a_second_look_nothing_is_drawn_and_it_is_said(visit: Open, stub: Stub) -> None:
    stub.answer = RECORDED["macro"]
    page = answered(visit(stub.url))
    expect(page.locator(".framed svg")).to_have_count(0)
    expect(page.locator(".look.micro")).to_contain_text("Nothing was enlarged.")
    expect(page.locator(".look.micro")).to_contain_text("No answer of this look.")


def test_vllms_own_answer_stands_alone(visit: Open, stub: Stub) -> None:
    stub.answer = RECORDED["off"]
    page = answered(visit(stub.url))
    expect(page.locator("#answer-title")).to_have_text(RECORDED["off"]["choices"][0]["message"]["content"])
    expect(page.locator(".look")).to_have_count(0)


def test_stages_and_cache_are_bars(visit: Open, stub: Stub) -> None:
    page = answered(visit(stub.url))
    times, cache = page.locator(".measure").all()
    assert times.locator("li").count() == len(RECORDED["dual"]["dualfocus"]["stages"])
    assert cache.locator(".value").all_inner_texts() == ["40 %", "64 of 76", "0 of 77", "64 of 167"]
    length = "bars => bars.map(bar => bar.getBoundingClientRect().width / bar.parentElement.clientWidth)"
    assert cache.locator(".filling").evaluate_all(length) == pytest.approx([128 / 320, 64 / 76, 0, 64 / 167], abs=0.01)
    assert max(times.locator(".filling").evaluate_all(length)) == pytest.approx(1, abs=0.01)


def test_an_answer_is_text_whatever_is_in_it(visit: Open, stub: Stub) -> None:
    text = "<img src=x onerror=alert(1)>\n<script>alert(1)</script>"
    body = copy.deepcopy(RECORDED["dual"])
    body["choices"][0]["message"]["content"] = body["dualfocus"]["micro"]["text"] = text
    stub.answer = body
    page = answered(visit(stub.url))
    assert page.locator("#answer-title").inner_text() == text
    expect(page.locator("#answer script, #answer img[src=x]")).to_have_count(0)


def test_an_empty_answer_is_said(visit: Open, stub: Stub) -> None:
    body = copy.deepcopy(RECORDED["macro"])
    body["choices"][0]["message"]["content"] = body["dualfocus"]["macro"]["text"] = ""
    stub.answer = body
    expect(answered(visit(stub.url)).locator("#answer-title")).to_have_text("(the answer is empty)")
