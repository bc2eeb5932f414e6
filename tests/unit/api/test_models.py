"""What is listed as served, one model by its name, and what an unknown one is told."""

import re
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from dualfocus_server.answering.protocol import FocusRequest
from dualfocus_server.answering.vllm_serving.chat import VllmChat
from dualfocus_server.app import create_app
from dualfocus_server.guards.api_errors import ApiError, VllmResponseError
from dualfocus_server.guards.keys import KeyRing
from dualfocus_server.settings import Settings
from fastapi import Request
from starlette.datastructures import State
from vllm.entrypoints.serve.engine.protocol import ModelCard, ModelList
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response

NAME, SECOND, ADAPTER = "org/small", "second", "tuned"
MODES = ("dual", "regions", "search", "adaptive", "macro", "micro", "off")


class Models:
    """vLLM's: a model of two names and an adapter."""

    base_model_paths = (SimpleNamespace(name=NAME), SimpleNamespace(name=SECOND))
    lora_requests = (ADAPTER,)
    lora_resolvers = ("a folder of adapters",)
    model_config = SimpleNamespace(max_model_len=8)

    async def resolve_lora(self, name: str) -> Any:
        if name == "in the folder":
            return SimpleNamespace(lora_name=name)
        return create_error_response(f"There is no {name}.", status_code=HTTPStatus.NOT_FOUND)

    async def show_available_models(self) -> ModelList:
        return ModelList(data=[ModelCard(id=name, root="/models/small") for name in (NAME, SECOND, ADAPTER)])


async def refuse(request: FocusRequest, raw_request: Request) -> Any:
    """As vLLM's chat serving does a model that it does not serve."""
    return create_error_response(f"The model `{request.model}` does not exist.", status_code=HTTPStatus.NOT_FOUND)


def chat() -> VllmChat:
    renderer = SimpleNamespace(mm_processor_cache=None)
    serving = SimpleNamespace(create_chat_completion=refuse, renderer=renderer)
    return VllmChat(
        State(
            {
                "openai_serving_chat": serving,
                "openai_serving_models": Models(),
                "serving_tokenization": None,
                "anthropic_serving_messages": None,
                "openai_serving_responses": None,
            }
        )
    )


def client(*, list_modes: bool = False) -> httpx.AsyncClient:
    own, base = [SimpleNamespace(profile=SimpleNamespace(name=name, verified="")) for name in ("its own", "mine")]
    focus_of = {ADAPTER: own, NAME: base, SECOND: base}.__getitem__
    service: Any = SimpleNamespace(chat=chat(), focus=base, list_modes=list_modes, focus_of=focus_of, grounder="http")
    transport = httpx.ASGITransport(create_app(service, Settings(), KeyRing()))
    return httpx.AsyncClient(transport=transport, base_url="http://server")


async def names(http: httpx.AsyncClient) -> list[str]:
    listed = (await http.get("/v1/models")).json()
    assert listed["object"] == "list"
    return [card["id"] for card in listed["data"]]


async def test_each_name_is_listed_once() -> None:
    async with client() as http:
        assert await names(http) == [NAME, SECOND, ADAPTER]


async def test_names_that_choose_a_mode_follow_where_the_flag_asks_for_them() -> None:
    async with client(list_modes=True) as http:
        by_mode = [f"{name}:{mode}" for name in (NAME, SECOND, ADAPTER) for mode in MODES]
        assert await names(http) == [NAME, SECOND, ADAPTER, *by_mode]


@pytest.mark.parametrize("name", [NAME, "org%2Fsmall", SECOND, ADAPTER, f"{NAME}:macro", f"{ADAPTER}:macro"])
async def test_a_model_is_described_by_its_name(name: str) -> None:
    async with client() as http:
        card = (await http.get(f"/v1/models/{name}")).json()
    assert (card["id"], card["object"]) == (name.replace("%2F", "/"), "model")
    assert card["root"] == "/models/small"
    profile = "its own" if name.startswith(ADAPTER) else "mine"
    assert card["dualfocus"] == {"profile": profile, "verified": None, "grounder": "http"}


@pytest.mark.parametrize("name", ["small", "org/small/", f"{NAME}:quick", f"{ADAPTER}:quick"])
async def test_one_that_is_not_served_is_a_404_that_names_those_that_are(name: str) -> None:
    async with client() as http:
        answer = await http.get(f"/v1/models/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "message": f"The model `{name}` does not exist. There is: org/small, second, tuned.",
        "type": "not_found_error",
        "param": "model",
        "code": None,
    }


@pytest.mark.parametrize("name", ["gpt-4o", NAME, None])
def test_any_name_is_the_models_where_none_is_to_be_checked(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's variable, for clients that ask for a name of their own: they are to have their second look too."""
    assert chat().is_served(name) is (name != "gpt-4o")
    monkeypatch.setenv("VLLM_SKIP_MODEL_NAME_VALIDATION", "1")
    assert chat().is_base_model(name)
    assert not chat().is_base_model(ADAPTER)
    assert chat().is_served(ADAPTER)


@pytest.mark.parametrize(("name", "is_found"), [(None, True), (ADAPTER, True), ("in the folder", True), ("no", False)])
async def test_adapters_are_found_where_vllm_finds_them(
    name: str | None, is_found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await chat().finds("in the folder") is False, "vLLM's variable allows it"
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
    assert await chat().finds(name) is is_found


async def test_a_question_to_one_that_is_not_served_is_told_the_same() -> None:
    request = FocusRequest.model_validate({"model": "gpt-4o", "messages": [{"role": "user", "content": "What?"}]})
    with pytest.raises(VllmResponseError) as error:
        await chat().answer(request, Request({"type": "http", "headers": []}))
    told = "The model `gpt-4o` does not exist. There is: org/small, second, tuned."
    assert error.value.problem == ApiError(404, told, "model")


async def test_an_unknown_route_is_told_which_there_are() -> None:
    async with client() as http:
        answer = await http.post("/v1/nothing")
    assert answer.status_code == 404
    begin, _, routes = answer.json()["error"]["message"].removesuffix(".").partition(" There is: ")
    assert begin == "Not Found: POST /v1/nothing."
    assert routes.startswith("POST /v1/chat/completions, ")
    assert {"GET /v1/models", "GET /v1/models/{name}", "GET, POST /ping"} <= set(re.findall(r"[A-Z].*?/[^,]+", routes))
