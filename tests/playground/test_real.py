"""The page against the model that ships, with keys: what a stranger sees with one click."""

import io
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Open
from dualfocus_engine.shipped import SHIPPED_NAME
from dualfocus_server.playground import playground_folder
from dualfocus_server.startup.startup_message import example_curl
from looking import assert_drawn_at
from PIL import Image
from playwright.sync_api import expect
from running_server import PATIENCE, Server, start_server

KEY = "sk-of-the-page"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ["--api-key", KEY, "--max-body-bytes", "100000"]
    running = start_server(tmp_path_factory.mktemp("page") / "log", *flags, model=())
    yield running
    running.process.terminate()
    assert running.process.wait(PATIENCE) == 0


def test_the_sample_is_the_readmes_drawing() -> None:
    sample = playground_folder() / "sample.png"
    _, _, encoded = example_curl("http://server").partition("base64,")
    command = ["base64", "--wrap", "0", str(sample)]
    assert encoded.startswith(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_start_up_says_where_the_page_is(shipped: Server) -> None:
    assert f"In a browser: {shipped.url}/playground\n" in shipped.log.read_text()


# Every text of the status, also those that are there too briefly to be seen.
_WATCH_STATUS = """
window.statuses = [];
new MutationObserver((seen) => {
    for (const { addedNodes } of seen) window.statuses.push(...[...addedNodes].map((node) => node.data));
}).observe(document.getElementById("status"), { childList: true });
"""


def report_in(stream: str) -> dict[str, Any]:
    """How the answer was found, from the stream that the page was sent."""
    pieces = [json.loads(line.removeprefix("data: ")) for line in stream.splitlines() if line.startswith("data: {")]
    (found,) = [piece["dualfocus"] for piece in pieces if "winner" in piece.get("dualfocus", {})]
    return dict(found)


def test_the_sample_is_answered_once_the_key_is_right(visit: Open, shipped: Server) -> None:
    page = visit(shipped.url)
    expect(page.locator("#key-hint.needed")).to_be_visible()
    page.fill("#key", "sk-wrong")
    page.click("#sample")
    expect(page.locator("#problem")).to_contain_text("The server needs a valid API key")
    page.fill("#key", KEY)
    page.evaluate(_WATCH_STATUS)
    with page.expect_response("**/v1/chat/completions") as answered:
        page.click("#sample")
    expect(page.locator("#answer-title")).to_have_text("42")
    found = report_in(answered.value.text())
    looking, waiting, *side_by_side, again, answer = page.evaluate("window.statuses")
    assert (looking, waiting, again) == ("Looking …", "Waiting for its turn …", "Looking again, at that part …")
    assert sorted(side_by_side) == ["Finding where to look …", "Looking at the whole picture …"]
    assert answer.startswith("Answer: 42.")
    expect(page.locator("#model")).to_have_text(SHIPPED_NAME)
    expect(page.locator(".micro.winner .badge")).to_be_visible()
    assert_drawn_at(page, found["box"])
    left, top, right, bottom = found["crop"]
    crop = page.locator(".micro figure img")
    assert crop.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [right - left, bottom - top]
    page.locator("input[value=off]").check()
    page.click("#send")
    expect(page.locator(".why")).to_contain_text("The model's own chat answered")


def test_what_the_server_does_not_take_is_said(visit: Open, shipped: Server) -> None:
    page = visit(shipped.url)
    page.fill("#key", KEY)
    page.fill("#question", "What?")
    noise = io.BytesIO()
    Image.effect_noise((600, 600), 90).save(noise, "PNG")
    page.set_input_files("#file", {"name": "noise.png", "mimeType": "image/png", "buffer": noise.getvalue()})
    expect(page.locator("#drop-title")).to_have_text("noise.png")
    page.click("#send")
    expect(page.locator("#problem")).to_contain_text("The picture is too large to send")
    page.set_input_files("#file", {"name": "text.png", "mimeType": "image/png", "buffer": b"no picture at all"})
    expect(page.locator("#drop-title")).to_have_text("text.png")
    page.click("#send")
    expect(page.locator("#problem")).to_contain_text("The picture can't be read")
