"""Where the server says no, or says nothing, the page says so in words."""

import json
import re
from pathlib import Path

import pytest
from conftest import Open
from looking import ask, choose
from playwright.sync_api import Page, expect
from starlette.responses import HTMLResponse, JSONResponse, Response
from stub import RECORDED, Stub, pieces_of

API = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
# (status, code) of each error that a question may be answered with.
ERRORS = [
    (int(status), code)
    for status, code in re.findall(r"^\| (\d+) \| `\w+` \| `(\w+)` \|", API, re.MULTILINE)
    if code not in ("engine_busy", "asleep")  # of /ready only
]


def refused(page: Page) -> Page:
    choose(page)
    page.fill("#question", "What?")
    page.click("#send")
    expect(page.locator("#problem")).to_be_visible()
    return page


def test_every_error_that_is_documented_has_a_title(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    titles = set()
    for status, code in ERRORS:
        stub.refuse(status, f"The server's own words about {code}.", code)
        refused(page)
        expect(page.locator("#problem")).to_contain_text(f"The server's own words about {code}.")
        titles.add(page.locator("#problem h2").inner_text())
    assert len(titles) == len(ERRORS) >= 10
    assert not any("said no" in title for title in titles)


def test_a_wrong_key_leads_to_the_field_and_a_right_one_on(visit: Open, stub: Stub) -> None:
    stub.refuse(401, "Give a valid API key: Authorization: Bearer KEY.", "invalid_api_key")
    page = refused(visit(stub.url))
    expect(page.locator("#key")).to_be_focused()
    stub.reset()
    page.keyboard.type("sk-right")
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_be_visible()
    expect(page.locator("#problem")).to_be_hidden()
    assert stub.keys == ["Bearer sk-right"]


def test_a_key_that_no_header_carries_is_said_and_not_sent(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    page.fill("#key", "sk-right\u200b\u2026")
    refused(page)
    expect(page.locator("#problem h2")).to_have_text("The API key can't be sent")
    expect(page.locator("#key")).to_be_focused()
    assert stub.keys == []


def test_an_error_takes_the_place_of_the_last_answer(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    choose(page)
    ask(page)
    stub.refuse(429, "64 questions are worked on and 256 wait. Try again in a moment.", "too_busy")
    refused(page)
    expect(page.locator("#answer")).to_be_hidden()
    expect(page.locator("#problem")).to_have_attribute("role", "alert")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (HTMLResponse("<h1>Bad Gateway</h1>", 502), "The server said no (502)"),
        (HTMLResponse("<h1>Too large</h1>", 413), "The picture is too large to send"),
        (HTMLResponse("<h1>Log in first</h1>"), "What came back is no answer"),
        (Response('{"detail": "no"}', 422), "The server said no (422)"),
    ],
)
def test_what_stands_before_the_server_may_answer_too(visit: Open, stub: Stub, answer: Response, words: str) -> None:
    stub.answer = answer
    expect(refused(visit(stub.url)).locator("#problem h2")).to_have_text(words)


def test_a_server_that_cannot_be_reached_is_said_and_nothing_is_lost(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    page.context.set_offline(True)
    refused(page)
    expect(page.locator("#problem h2")).to_have_text("The server can't be reached")
    page.context.set_offline(False)
    page.click("#send")
    expect(page.locator("#answer")).to_be_visible()


EVENTS = "text/event-stream"


@pytest.mark.parametrize(
    "answer",
    [
        JSONResponse({"choices": None}),
        Response('data: {"choices": null}\n\ndata: [DONE]\n\n', media_type=EVENTS),
        Response("data: no JSON\n\n", media_type=EVENTS),
        Response("data: [DONE]\n\n", media_type=EVENTS),
    ],
    ids=["JSON", "pieces that are none", "events that are none", "nothing"],
)
def test_what_is_no_answer_is_said(visit: Open, stub: Stub, answer: Response) -> None:
    stub.answer = answer
    page = visit(stub.url)
    page.evaluate("window.reportError = () => {}")
    expect(refused(page).locator("#problem h2")).to_have_text("What came back is no answer")


def test_an_error_in_the_middle_of_a_stream_is_said_in_words(visit: Open, stub: Stub) -> None:
    error = {"message": "The question took longer than 9 s.", "type": "timeout_error", "param": None, "code": "timeout"}
    events = [*pieces_of(RECORDED["dual"])[:3], {"error": error}]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    stub.answer = Response(text, media_type=EVENTS)
    problem = refused(visit(stub.url)).locator("#problem")
    expect(problem.locator("h2")).to_have_text("The answer took too long")
    expect(problem).to_contain_text("The question took longer than 9 s.")


def test_an_error_without_a_code_is_the_servers_own(visit: Open, stub: Stub) -> None:
    error = {"message": "Something failed here.", "type": "server_error", "param": None, "code": None}
    stub.answer = Response(f"data: {json.dumps({'error': error})}\n\ndata: [DONE]\n\n", media_type=EVENTS)
    problem = refused(visit(stub.url)).locator("#problem")
    expect(problem.locator("h2")).to_have_text("The server said no")
    expect(problem).to_contain_text("Something failed here.")


def test_a_stream_that_is_cut_off_is_no_answer(visit: Open, stub: Stub) -> None:
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in pieces_of(RECORDED["dual"]))
    stub.answer = Response(text, media_type=EVENTS)
    expect(refused(visit(stub.url)).locator("#problem h2")).to_have_text("The server can't be reached")


def test_the_sample_too_needs_a_server(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    page.context.set_offline(True)
    page.click("#sample")
    expect(page.locator("#problem h2")).to_have_text("The server can't be reached")
