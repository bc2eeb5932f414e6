"""The routes behind keys, over HTTP: what is one client's is not there for another."""

import asyncio

import httpx
from dualfocus_server.app import create_app
from dualfocus_server.guards.keys import KeyRing
from dualfocus_server.settings import Settings
from fastapi import FastAPI

from ...fake_engine import WAIT, never
from ..test_chat_service import service
from .asking import ABOUT_AN_IMAGE

RESPONSES = "/v1/responses"


def client(app: FastAPI, key: str = "none") -> httpx.AsyncClient:
    """A client with a key."""
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server", headers=headers)


async def test_what_is_kept_is_there_for_its_own_key_alone() -> None:
    on = service(micro=never, running=3)
    app = create_app(on, Settings(playground=False, store_responses=True), KeyRing(["one", "two"]))
    asked = {"input": ABOUT_AN_IMAGE, "background": True}
    async with client(app, "one") as one, client(app, "two") as two, asyncio.timeout(WAIT):
        made = (await one.post(RESPONSES, json=asked)).json()["id"]
        for answer in (
            await two.get(f"{RESPONSES}/{made}"),
            await two.get(f"{RESPONSES}/{made}", params={"stream": True}),
            await two.post(f"{RESPONSES}/{made}/cancel"),
            await two.post(RESPONSES, json={"input": "Where?", "previous_response_id": made}),
        ):
            assert answer.status_code == 404
            assert f"There is no response with the id '{made}'" in answer.json()["error"]["message"]
        assert (await one.get(f"{RESPONSES}/{made}")).json()["status"] in ("queued", "in_progress")
        assert (await one.post(f"{RESPONSES}/{made}/cancel")).json()["status"] == "cancelled"
        await on.admission.emptied()


async def test_what_is_wrong_is_named_over_http() -> None:
    app = create_app(service(), Settings(playground=False), KeyRing())
    async with client(app) as http:
        for body, param in (
            ({}, "input"),
            (
                {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
                "input.0.content.0.file_id",
            ),
            ({"input": "a", "temperature": "warm"}, "temperature"),
            ({"input": "a", "top_logprobs": "many"}, "top_logprobs"),
            ({"input": "a", "text": {"format": {"type": "nonesuch"}}}, "text.format.type"),
            ({"input": "a", "dualfocus": {"box": [1, 0, 0, 1]}}, "dualfocus.box"),
            ({"input": "a", "previous_response_id": "resp_1"}, "previous_response_id"),
            ({"input": "a", "background": True}, "background"),
        ):
            answer = await http.post(RESPONSES, json=body)
            assert answer.json()["error"]["param"] == param, answer.text
            assert answer.status_code in (400, 404)
