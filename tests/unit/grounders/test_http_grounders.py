"""Grounders behind HTTP: what they are sent, and that nothing that comes back does harm."""

import asyncio
import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import pytest
from dualfocus_engine import Box, ConfigError, load_profile
from dualfocus_server.grounders import bounded_http
from dualfocus_server.grounders.bounded_http import MAX_ANSWER_BYTES, MAX_CONNECTIONS, GrounderAnswerError
from dualfocus_server.grounders.http_grounder import HttpGrounder
from dualfocus_server.grounders.model_grounder import ModelGrounder
from PIL import Image

from ..fake_engine import WAIT
from ..local_web import Page, Web, body_of, redirect, respond, serving

PICTURE = Image.new("RGB", (300, 200), (200, 30, 30))
QUESTION = "What colour is the cup?"
BOX = Box(0.1, 0.2, 0.5, 0.75)
MODELS = respond(200, json.dumps({"data": [{"id": "first"}, {"id": "second"}]}).encode())


def keeping(page: Page, bodies: list[Any]) -> Page:
    """A page that keeps what it is sent."""

    def keep(request: BaseHTTPRequestHandler) -> None:
        bodies.append(json.loads(body_of(request)))
        page(request)

    return keep


def says(answer: Any) -> Page:
    return respond(200, json.dumps(answer).encode())


async def located(web: Web) -> Box | None:
    async with asyncio.timeout(WAIT), HttpGrounder(f"{web.address}/locate") as grounder:
        return await grounder.locate(PICTURE, QUESTION)


async def test_it_is_sent_picture_and_question_and_its_box_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALFOCUS_GROUNDER_API_KEY", "a-key")
    bodies: list[Any] = []
    with serving({"/locate": keeping(says({"box": [0.1, 0.2, 0.5, 0.75], "seconds": 1}), bodies)}) as web:
        assert await located(web) == BOX
    (body,) = bodies
    assert set(body) == {"image", "question"}
    assert body["question"] == QUESTION
    kind, _, data = body["image"].partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert (image.format, image.size) == ("JPEG", PICTURE.size)
    assert web.headers["authorization"] == "Bearer a-key"


async def test_null_is_no_box() -> None:
    with serving({"/locate": says({"box": None})}) as web:
        assert await located(web) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not JSON",
        b"[0.1, 0.2, 0.5, 0.75]",
        b"{}",
        b'{"box": [0.1, 0.2, 0.5]}',
        b'{"box": [0.1, 0.2, 0.5, "0.75"]}',
        b'{"box": [0.1, 0.2, 0.5, true]}',
        b'{"box": {"x1": 0.1}}',
        b"[" * 50_000,
        b"\xff\xfe",
    ],
)
async def test_what_is_not_such_json_is_an_error(body: bytes) -> None:
    with (
        serving({"/locate": respond(200, body)}) as web,
        pytest.raises(GrounderAnswerError, match=r"answered otherwise than expected: [^\n]*$"),
    ):
        await located(web)


@pytest.mark.parametrize("status", [201, 204, 400, 429, 500])
async def test_another_status_than_200_is_an_error(status: int) -> None:
    with (
        serving({"/locate": respond(status, b'{"box": null}')}) as web,
        pytest.raises(GrounderAnswerError, match=f"answered {status}"),
    ):
        await located(web)


async def test_a_redirect_is_not_followed() -> None:
    with (
        serving({"/locate": redirect("/elsewhere", 307), "/elsewhere": says({"box": None})}) as web,
        pytest.raises(GrounderAnswerError, match="answered 307"),
    ):
        await located(web)
    assert web.requests == ["/locate"]


async def test_a_long_answer_is_not_read_to_its_end() -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(b" " * MAX_ANSWER_BYTES)

    with serving({"/locate": endless}) as web, pytest.raises(GrounderAnswerError, match="more than 65,536 bytes"):
        await located(web)


async def test_one_that_is_not_there_is_an_error() -> None:
    with serving({}) as web:
        pass
    with pytest.raises(httpx.ConnectError):
        await located(web)


async def test_many_questions_share_few_connections() -> None:
    with serving({"/locate": keeping(says({"box": [0.1, 0.2, 0.5, 0.75]}), [])}) as web:
        async with asyncio.timeout(WAIT), HttpGrounder(f"{web.address}/locate") as grounder:
            asked = [grounder.locate(PICTURE, QUESTION) for _ in range(4 * MAX_CONNECTIONS)]
            assert await asyncio.gather(*asked) == [BOX] * len(asked)
    assert web.connections <= MAX_CONNECTIONS


async def test_cancelling_closes_the_connection() -> None:
    is_asked, is_left = threading.Event(), threading.Event()

    def waiting(request: BaseHTTPRequestHandler) -> None:
        body_of(request)
        is_asked.set()
        if request.rfile.read(1) == b"":  # the client's end
            is_left.set()

    with serving({"/locate": waiting}) as web:
        async with HttpGrounder(f"{web.address}/locate") as grounder:
            call = asyncio.create_task(grounder.locate(PICTURE, QUESTION))
            assert await asyncio.to_thread(is_asked.wait, WAIT)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await asyncio.to_thread(is_left.wait, WAIT)


@pytest.mark.parametrize("url", ["", "locate", "//host/locate", "ftp://host/", "http:///locate", "http://a:b:c/"])
def test_what_is_no_url_is_said(url: str) -> None:
    with pytest.raises(ConfigError, match="--grounder http"):
        HttpGrounder(url)


def test_a_url_with_a_password_is_refused_without_telling_it() -> None:
    with pytest.raises(ConfigError, match="DUALFOCUS_GROUNDER_API_KEY") as error:
        HttpGrounder("http://user:secret@host/")
    assert "secret" not in str(error.value)


async def asked_of_a_model(profile: str, written: str, bodies: list[Any]) -> Box | None:
    completion = says({"id": "1", "choices": [{"index": 0, "message": {"role": "assistant", "content": written}}]})
    pages = {"/v1/models": MODELS, "/v1/chat/completions": keeping(completion, bodies)}
    with serving(pages) as web:
        async with asyncio.timeout(WAIT), ModelGrounder(f"{web.address}/v1/", load_profile(profile)) as grounder:
            boxes = [await grounder.locate(PICTURE, QUESTION) for _ in range(2)]
    assert web.requests == ["/v1/models", *["/v1/chat/completions"] * 2]
    assert boxes[0] == boxes[1]
    return boxes[0]


@pytest.mark.parametrize("profile", ["llava-dualfocus", "qwen3-vl", "qwen2-vl", "internvl"])
async def test_another_model_is_asked_in_the_profiles_words_and_its_notation_is_read(profile: str) -> None:
    bodies: list[Any] = []
    words = load_profile(profile)
    box = await asked_of_a_model(profile, words.box_format.write(Box(0.25, 0.25, 0.5, 0.75)), bodies)
    assert box == Box(0.25, 0.25, 0.5, 0.75)
    body = bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("first", 0, words.max_box_tokens)
    image, text = body["messages"][-1]["content"]
    assert image["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert text == {"type": "text", "text": words.grounding_text(QUESTION)}


async def test_a_reply_behind_the_opening_is_read_too_and_one_without_a_box_is_none() -> None:
    box_format = load_profile("qwen3-vl").box_format
    behind = box_format.write(Box(0.25, 0.25, 0.5, 0.75)).removeprefix(box_format.opening)
    assert await asked_of_a_model("qwen3-vl", behind, []) == Box(0.25, 0.25, 0.5, 0.75)
    assert await asked_of_a_model("qwen3-vl", "I see no cup.", []) is None


async def test_after_a_failure_the_server_is_asked_anew_which_model_it_has() -> None:
    with serving({"/v1/models": MODELS, "/v1/chat/completions": respond(404)}) as web:
        async with asyncio.timeout(WAIT), ModelGrounder(f"{web.address}/v1", load_profile("paper")) as grounder:
            for _ in range(2):
                with pytest.raises(GrounderAnswerError):
                    await grounder.locate(PICTURE, QUESTION)
    assert web.requests.count("/v1/models") == 2


async def test_no_query_of_the_url_is_told_in_an_error() -> None:
    """It may be a key, and the log has the error."""
    with serving({"/locate": respond(500)}) as web:
        async with asyncio.timeout(WAIT), HttpGrounder(f"{web.address}/locate?key=secret") as grounder:
            with pytest.raises(GrounderAnswerError, match=r"locate\?… answered") as told:
                await grounder.locate(PICTURE, QUESTION)
    assert "secret" not in str(told.value)
    assert bounded_http.shown("grounding-dino") == "grounding-dino"


@pytest.mark.parametrize(
    ("models", "completion"),
    [
        (says({"data": []}), says({})),
        (respond(500), says({})),
        (MODELS, says({"choices": []})),
        (MODELS, says({"choices": [{"message": {"content": None}}]})),
        (MODELS, respond(200, b"data: [DONE]")),
        (MODELS, respond(503)),
    ],
)
async def test_what_is_no_completion_is_an_error(models: Page, completion: Page) -> None:
    with serving({"/v1/models": models, "/v1/chat/completions": completion}) as web:
        async with asyncio.timeout(WAIT), ModelGrounder(f"{web.address}/v1", load_profile("paper")) as grounder:
            with pytest.raises(GrounderAnswerError):
                await grounder.locate(PICTURE, QUESTION)


@pytest.mark.parametrize("profile", ["no-grounding", "qwen2.5-vl"])
def test_a_profile_whose_boxes_can_not_be_read_is_refused(profile: str) -> None:
    with pytest.raises(ConfigError, match="--grounder-profile"):
        ModelGrounder("http://host/v1", load_profile(profile))


def test_the_key_is_left_out_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(bounded_http._KEY_VARIABLE, raising=False)
    assert "authorization" not in bounded_http.BoundedHttp()._client.headers
