"""`dualfocus check`: what it prints and its exit status, on a scripted server."""

import json
from typing import Any

import httpx
import pytest
from dualfocus_engine.families.views import View
from dualfocus_server.check import command
from dualfocus_server.check.drawing import draw_pictures

from .test_findings import QWEN3, _per_mille, _reply, _y_first

MODELS: dict[str, Any] = {"data": [{"id": "a-model", "dualfocus": {"profile": "qwen3-vl"}}]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Answers in the order in which the pictures are asked about; what it holds may be changed."""
    state: dict[str, Any] = {"models": MODELS, "writes": _per_mille, "status": 200, "asked": []}
    pictures = iter(draw_pictures())

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(state["status"], json=state["models"])
        state["asked"].append(json.loads(request.content))
        reply = _reply(QWEN3, next(pictures), state["writes"])
        return httpx.Response(200, json={"dualfocus": reply.model_dump()})

    client = httpx.AsyncClient
    monkeypatch.setattr(
        command.httpx, "AsyncClient", lambda **given: client(transport=httpx.MockTransport(answer), **given)
    )
    return state


@pytest.mark.parametrize("address", ["http://server", "http://server/v1/"])
def test_what_works_is_said_and_is_status_0(
    server: dict[str, Any], capsys: pytest.CaptureFixture[str], address: str
) -> None:
    assert command.main(["--base-url", address]) == 0
    told = capsys.readouterr().out
    assert told.startswith("a-model, profile qwen3-vl\n")
    assert told.endswith("Two looks will work.\n")
    assert "crops that hold the thing           100%" in told
    assert "crop tokens as wanted               yes" in told
    assert 'mean IoU with an opening, without   not asked, 1.00 ("```json' in told
    assert [body["model"] for body in server["asked"]] == ["a-model"] * len(draw_pictures())


def test_what_does_not_is_status_1_and_all_of_it_there_as_json(
    server: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    server["writes"] = _y_first
    assert command.main(["--base-url", "http://server", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["profile"], told["works"]) == ("a-model", "qwen3-vl", False)
    assert "order: yxyx" in told["advice"][0]
    assert (told["as_wanted"], told["opening"]["iou_with"], told["opening"]["used"]) == (True, None, False)


def test_crops_of_another_size_are_status_1(
    server: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    qwen3 = QWEN3.model_copy(update={"views": QWEN3.views and QWEN3.views.model_copy(update={"crop": View(least=301)})})
    monkeypatch.setattr("dualfocus_server.check.asking._profile_named", lambda name: qwen3)
    assert command.main(["--base-url", "http://server"]) == 1
    told = capsys.readouterr().out
    assert "crop tokens as wanted               no" in told
    assert "Crops took 300 to 300 image tokens, wanted were 301 to any number" in told


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"status": 401}, "The server answered 401"),
        ({"models": {"data": []}}, "is not a model"),
        ({"models": {"data": [{"id": "m"}]}}, "does not say which profile it has"),
        ({"models": {"data": [{"id": "m", "dualfocus": {"profile": "mine"}}]}}, "a profile of its own, 'mine'"),
        ({"models": {"data": [{"id": "m", "dualfocus": {"profile": "gemma3"}}]}}, "m can't say where something is"),
    ],
)
def test_a_server_that_can_not_be_asked_is_status_2(
    server: dict[str, Any], capsys: pytest.CaptureFixture[str], changes: dict[str, Any], complaint: str
) -> None:
    server |= changes
    assert command.main(["--base-url", "http://server"]) == 2
    assert complaint in capsys.readouterr().err


def test_a_server_that_is_not_there_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--base-url", "http://127.0.0.1:9"]) == 2
    assert "gives no answer" in capsys.readouterr().err


def test_key_that_no_header_carries_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--base-url", "http://127.0.0.1:9", "--api-key", "sk-right\u2026"]) == 2
    assert "is not ASCII" in capsys.readouterr().err
