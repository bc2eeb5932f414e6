"""A picture and a question go in, by every way there is; the request is the one that was meant."""

import base64
import io
from typing import Any

import pytest
from conftest import Open
from looking import ask, choose, picture
from PIL import Image
from playwright.sync_api import Page, expect
from stub import RECORDED, Stub

_OFFER = """([kind, name, type, bytes]) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(bytes)], name, { type }));
    const options = { bubbles: true, cancelable: true };
    document.body.dispatchEvent(kind === "paste"
        ? new ClipboardEvent("paste", { clipboardData: data, ...options })
        : new DragEvent("drop", { dataTransfer: data, ...options }));
}"""


def offer(page: Page, kind: str, name: str = "grey.jpg", media: str = "image/jpeg") -> None:
    page.evaluate(_OFFER, [kind, name, media, list(picture())])


def sent(stub: Stub) -> dict[str, Any]:
    [body] = stub.asked
    return body


def picture_in(body: dict[str, Any]) -> bytes:
    head, _, encoded = body["messages"][0]["content"][0]["image_url"]["url"].partition(",")
    assert head.startswith("data:image/")
    return base64.b64decode(encoded)


def test_a_chosen_picture_is_sent_as_it_is_with_the_question(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    choose(page)
    ask(page, "  What is it?\nSay “why”. ")
    assert picture_in(sent(stub)) == picture()
    assert sent(stub)["messages"][0]["content"][1] == {"type": "text", "text": "What is it?\nSay “why”."}
    assert sent(stub)["dualfocus"] == {"mode": "dual", "progress": True, "return_crop": True}
    assert stub.keys == [None]


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(visit: Open, stub: Stub, kind: str) -> None:
    page = visit(stub.url)
    offer(page, kind)
    expect(page.locator("#drop-title")).to_have_text("grey.jpg")
    expect(page.locator("#preview")).to_be_visible()
    ask(page)
    assert picture_in(sent(stub)) == picture()


def test_what_is_no_picture_is_said(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    offer(page, "drop", "notes.txt", "text/plain")
    expect(page.locator("#problem")).to_contain_text("That is no picture")
    expect(page.locator("#problem")).to_contain_text("notes.txt")


def test_a_picture_whose_type_the_browser_does_not_know_is_one_by_its_name(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    offer(page, "drop", "IMG_0001.HEIC", "")
    expect(page.locator("#drop-title")).to_have_text("IMG_0001.HEIC")


def test_a_complaint_about_a_file_that_came_meanwhile_gives_way_to_the_answer(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    choose(page)
    stub.is_held = True
    page.fill("#question", "What is it?")
    page.click("#send")
    offer(page, "drop", "notes.txt", "text/plain")
    expect(page.locator("#problem")).to_be_visible()
    stub.is_held = False
    expect(page.locator("#answer")).to_be_visible()
    expect(page.locator("#problem")).to_be_hidden()


def test_a_picture_that_the_browser_cannot_show_is_sent_all_the_same(visit: Open, stub: Stub) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "TIFF")
    page = visit(stub.url)
    choose(page, file.getvalue(), "scan.tiff")
    expect(page.locator("#drop-hint")).to_contain_text("can't show it")
    ask(page)
    assert picture_in(sent(stub)) == file.getvalue()


def test_the_sample_takes_one_click(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    page.click("#sample")
    expect(page.locator("#answer-title")).to_have_text("42")
    assert Image.open(io.BytesIO(picture_in(sent(stub)))).size == (480, 360)
    assert sent(stub)["messages"][0]["content"][1]["text"] == "What number is on the red circle?"


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("regions", {"mode": "regions", "progress": True, "return_crop": True}),
        ("adaptive", {"mode": "adaptive", "progress": True, "return_crop": True}),
        ("macro", {"mode": "macro", "progress": True, "return_crop": True}),
        ("micro", {"mode": "micro", "progress": True, "return_crop": True}),
        ("off", {"mode": "off", "progress": True}),
    ],
)
def test_the_mode_is_the_chosen_one(visit: Open, stub: Stub, mode: str, options: dict[str, Any]) -> None:
    page = visit(stub.url)
    before = page.locator("#mode-hint").inner_text()
    page.locator(f"input[value={mode}]").check()
    expect(page.locator("#mode-hint")).not_to_have_text(before)
    choose(page)
    ask(page)
    assert sent(stub)["dualfocus"] == options


def test_a_key_goes_with_the_question_and_is_stored_nowhere(visit: Open, stub: Stub) -> None:
    stub.models_need_key = True
    page = visit(stub.url)
    expect(page.locator("#key-hint")).to_have_class("hint needed")
    expect(page.locator("#key-hint")).to_contain_text("This server asks for one.")
    page.fill("#key", " sk-mine ")
    choose(page)
    ask(page)
    assert stub.keys == ["Bearer sk-mine"]
    expect(page.locator("#model")).to_have_text(RECORDED["models"]["data"][0]["id"])
    expect(page.locator("#key-hint")).to_have_class("hint")
    stored = page.evaluate("[{...localStorage}, {...sessionStorage}, document.cookie, location.href]")
    assert stored == [{}, {}, "", f"{stub.url}/playground"]
    page.reload()
    expect(page.locator("#key")).to_have_value("")


@pytest.mark.parametrize(
    ("with_picture", "complaint", "focused"),
    [(False, "There is no picture yet", "file"), (True, "There is no question yet", "question")],
)
def test_what_is_missing_is_said_and_nothing_is_sent(
    visit: Open, stub: Stub, with_picture: bool, complaint: str, focused: str
) -> None:
    page = visit(stub.url)
    if with_picture:
        choose(page)
    page.click("#send")
    expect(page.locator("#problem")).to_contain_text(complaint)
    expect(page.locator(f"#{focused}")).to_be_focused()
    assert stub.asked == []


PROGRESS = {
    "waiting": "Waiting for its turn …",
    "grounding": "Finding where to look …",
    "macro": "Looking at the whole picture …",
    "micro": "Looking again, at that part …",
}


def test_what_is_being_done_is_asked_for_and_shown(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    choose(page)
    page.fill("#question", "What?")
    stub.held_at = "waiting"
    page.click("#send")
    for doing, words in PROGRESS.items():
        stub.held_at = doing
        expect(page.locator("#status")).to_have_text(words)
    stub.held_at = None
    expect(page.locator("#answer-title")).to_have_text("42")
    expect(page.locator("#status")).to_contain_text("Answer: 42.")


def test_a_question_can_be_stopped_in_the_middle_of_its_stream(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    choose(page)
    page.fill("#question", "What?")
    stub.held_at = "macro"
    page.click("#send")
    expect(page.locator("#status")).to_have_text(PROGRESS["macro"])
    page.click("#stop")
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(page.locator("#problem")).to_be_hidden()
    stub.held_at = None
    ask(page)


def test_a_question_can_be_stopped(visit: Open, stub: Stub) -> None:
    stub.is_held = True
    page = visit(stub.url)
    choose(page)
    page.fill("#question", "What?")
    page.click("#send")
    expect(page.locator("#status")).to_have_text("Looking …")
    expect(page.locator("#send")).to_be_disabled()
    page.click("#stop")
    expect(page.locator("#send")).to_be_enabled()
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(page.locator("#problem")).to_be_hidden()
    assert stub.left.wait(60), "the server is told, so that it stops too"
    stub.is_held = False
    ask(page)


def test_another_picture_stops_the_question_about_the_first(visit: Open, stub: Stub) -> None:
    stub.is_held = True
    page = visit(stub.url)
    choose(page)
    page.fill("#question", "What?")
    page.click("#send")
    choose(page, name="other.jpg")
    expect(page.locator("#send")).to_be_enabled()
    expect(page.locator("#answer")).to_be_hidden()
