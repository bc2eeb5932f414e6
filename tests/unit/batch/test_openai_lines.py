"""`dualfocus batch` on the lines of OpenAI's batch API: what it writes, and what is that format's own."""

import json
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from ..fake_engine import WAIT
from ..local_web import respond
from .model import CHAT, COMPLETIONS, MESSAGES, RESPONSES, ROUTES, Folder, Model, completion, line, refusal, request


def test_answers_are_openais_lines(folder: Folder, model: Model) -> None:
    model.pages = {"one": [respond(body=json.dumps(completion("one")).encode(), X_Request_Id="r-1")]}
    folder.write(request("one"))
    assert folder.ask_of(model) == 0
    (told,) = folder.told()
    assert told.pop("id").startswith("batch_req_")
    response = {"status_code": 200, "request_id": "r-1", "body": completion("one")}
    assert told == {"custom_id": "my one", "response": response, "error": None}


def test_each_body_goes_to_its_route_as_it_is(folder: Folder, model: Model) -> None:
    lines = [request(f"q{number}", url, temperature=0, stream=False) for number, url in enumerate(ROUTES)]
    folder.write(*lines)
    assert folder.ask_of(model, "--concurrency", "1") == 0
    assert model.routes == [CHAT, RESPONSES, MESSAGES, COMPLETIONS]
    assert model.bodies == [line["body"] for line in lines]


def test_a_responses_answer_is_kept_whole(folder: Folder, model: Model) -> None:
    answer = {"object": "response", "status": "completed", "output": [{"type": "message"}], "dualfocus": {"box": None}}
    model.pages = {"one": [respond(body=json.dumps(answer).encode())]}
    folder.write(request("one", RESPONSES))
    assert folder.ask_of(model) == 0
    assert folder.told()[0]["response"]["body"] == answer


def test_mode_is_for_two_looks_that_name_none_and_model_for_bodies_without_one(folder: Folder, model: Model) -> None:
    folder.write(
        request("q0", model="theirs", dualfocus={"box": [0, 0, 1, 1]}),
        request("q1", RESPONSES, dualfocus={"mode": "micro"}),
        request("q2", MESSAGES),
        request("q3", COMPLETIONS),
        request("q4", model="theirs:macro"),
    )
    assert folder.ask_of(model, "--mode", "adaptive", "--model", "ours", "--concurrency", "1") == 0
    assert [(body["model"], body.get("dualfocus")) for body in model.bodies] == [
        ("theirs", {"mode": "adaptive", "box": [0, 0, 1, 1]}),
        ("ours", {"mode": "micro"}),
        ("ours", {"mode": "adaptive"}),
        ("ours", None),
        ("theirs:macro", None),
    ]


def test_a_refusal_is_kept_as_the_server_said_it(folder: Folder, model: Model) -> None:
    refused = {"type": "error", "error": {"type": "invalid_request_error", "message": "damaged"}}
    model.pages = {"one": [respond(400, json.dumps(refused).encode(), X_Request_Id="r-1")]}
    folder.write(request("one", MESSAGES))
    assert folder.ask_of(model) == 1
    (told,) = folder.told()
    assert told["response"] == {"status_code": 400, "request_id": "r-1", "body": refused}
    assert told["error"] == {"code": "400", "message": "400: damaged"}


def test_what_is_no_json_is_no_response(folder: Folder, model: Model) -> None:
    model.pages = {"one": [respond(502, b"<html>")]}
    folder.write(request("one"))
    assert folder.ask_of(model, "--retries", "0") == 1
    (told,) = folder.told()
    assert told["response"] is None
    assert told["error"] == {"code": "502", "message": "The server answered 502 and no JSON."}


def test_silence_has_openais_code(folder: Folder, model: Model) -> None:
    over = threading.Event()

    def silent(request: BaseHTTPRequestHandler) -> None:
        over.wait(WAIT)
        request.close_connection = True

    model.pages = {"one": [silent]}
    folder.write(request("one"))
    assert folder.ask_of(model, "--timeout", "1", "--retries", "0") == 1
    over.set()
    (told,) = folder.told()
    assert (told["response"], told["error"]["code"]) == (None, "request_timeout")


def test_broken_connection_has_a_code(folder: Folder, model: Model) -> None:
    def hang_up(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True

    model.pages = {"one": [hang_up]}
    folder.write(request("one"))
    assert folder.ask_of(model, "--retries", "0") == 1
    (told,) = folder.told()
    assert (told["response"], told["error"]["code"]) == (None, "connection_error")


def test_a_model_that_is_not_served_is_its_lines_fault(folder: Folder, model: Model) -> None:
    model.pages = {"one": [refusal(404, "no such model")]}
    folder.write(request("one", model="other"), request("two"))
    assert folder.ask_of(model, "--concurrency", "1") == 1
    assert [told["response"]["status_code"] for told in folder.told()] == [404, 200]


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_ends_the_run(folder: Folder, model: Model, status: int) -> None:
    model.pages = {"one": [refusal(status)]}
    folder.write(request("one"), request("two"))
    assert folder.ask_of(model, "--concurrency", "1") == 1
    assert model.asked == ["one"]
    assert folder.told() == []


@pytest.mark.parametrize(
    ("lines", "arguments"),
    [
        ([request("one"), {**request("two"), "custom_id": "other"}], []),
        ([request("one"), request("two", temperature=1)], []),
        ([request("one"), {**request("two"), "url": MESSAGES}], []),
        ([request("two"), request("one")], []),
        ([request("one")], []),
        ([request("one"), request("two")], ["--mode", "macro"]),
        ([request("one"), request("two")], ["--model", "m"]),
        ([line("one"), line("two")], []),
    ],
)
def test_requests_that_have_changed_are_said(
    folder: Folder, model: Model, capsys: pytest.CaptureFixture[str], lines: list[Any], arguments: list[str]
) -> None:
    folder.write(request("one"), request("two"))
    assert folder.ask_of(model) == 0
    kept = folder.answers.read_bytes()
    folder.write(*lines)
    model.asked.clear()
    assert folder.ask_of(model, *arguments) == 2
    assert "name another --output" in capsys.readouterr().err
    assert (model.asked, folder.answers.read_bytes()) == ([], kept)


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ({**request("two"), "custom_id": "my one"}, "line 2: custom_id: 'my one' is that of line 1 too"),
        ({**request("two"), "custom_id": 5}, "line 2: custom_id: "),
        ({**request("two"), "method": "GET"}, "line 2: method: Input should be 'POST'"),
        ({**request("two"), "url": "/v1/embeddings"}, "line 2: url: Input should be '/v1/chat/completions', "),
        ({**request("two"), "body": "two"}, "line 2: body: "),
        ({"custom_id": "my two", "method": "POST", "url": CHAT}, "line 2: body: Field required"),
        (request("two", stream=True), "line 2: body: Value error, stream: "),
        (request("two", RESPONSES, background=True), "line 2: body: Value error, background: "),
        (request("two", dualfocus="macro"), "line 2: body: Value error, dualfocus: "),
        (line("two"), "line 2: custom_id: Field required"),
        ("[1]\n", "line 2: "),
    ],
)
def test_bad_lines_are_named_before_anything_is_asked(
    folder: Folder, model: Model, capsys: pytest.CaptureFixture[str], second: Any, complaint: str
) -> None:
    folder.write(request("one"), second)
    assert folder.ask_of(model) == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert "accepted are lines of OpenAI's batch API" in err
    assert model.asked == []


def test_a_request_among_our_own_lines_is_named(
    folder: Folder, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write(line("one"), request("two"))
    assert folder.ask_of(model) == 2
    assert "line 2: image: Field required" in capsys.readouterr().err
    assert model.asked == []


def test_our_own_lines_may_have_openais_names_beside(folder: Folder, model: Model) -> None:
    folder.write(line("one", custom_id="mine"))
    assert folder.ask_of(model) == 0
    assert folder.told()[0]["answer"] == "ONE"
