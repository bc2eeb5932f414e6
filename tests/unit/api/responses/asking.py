"""Asks for responses on a scripted engine."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from dualfocus_server.answering.service import Service
from dualfocus_server.api.responses.protocol import FocusedResponse, ResponseRequest
from dualfocus_server.api.responses.routes import respond
from dualfocus_server.api.responses.store import ResponseStore
from fastapi import Request
from PIL import Image
from vllm import SamplingParams

from ...builders import data_url, encoded
from ...fake_engine import WAIT
from ..test_chat_service import FakeChat

URL = data_url(encoded(Image.new("RGB", (40, 30))))
IMAGE = {"type": "input_image", "image_url": URL, "detail": "auto"}
TEXT = {"type": "input_text", "text": "What?"}
ABOUT_AN_IMAGE = [{"role": "user", "content": [IMAGE, TEXT]}]


class Vllm(FakeChat):
    """vLLM's servings: `given` is what each request and its messages were, when it was asked."""

    def __init__(self, *events: Any) -> None:
        super().__init__()
        self.scripted = events
        self.given: list[tuple[ResponseRequest, list[Any]]] = []

    async def until_read(self) -> None:
        """Go on once the client reads, where vLLM has said more than that it begins."""
        if len(self.scripted) > 3:
            await self.is_read.wait()

    async def respond(self, request: ResponseRequest, messages: list[Any], raw_request: Request) -> FocusedResponse:
        self.given.append((request, messages))
        return of_vllm(request)

    async def respond_in_events(
        self, request: ResponseRequest, messages: list[Any], raw_request: Request
    ) -> AsyncGenerator[Any, None]:
        self.given.append((request, messages))

        async def events() -> AsyncGenerator[Any, None]:
            for make in self.scripted:
                if isinstance(event := make(request), Exception):
                    await self.until_read()
                    raise event
                yield event

        return events()


def of_vllm(request: ResponseRequest, status: Any = "completed") -> FocusedResponse:
    """What vLLM answers."""
    response: FocusedResponse = FocusedResponse.from_request(request, SamplingParams(), "model", 1, [], status)
    return response


def raw(owner: str = "") -> Request:
    """A request of a client's."""
    return Request({"type": "http", "headers": [], "client_id": owner})


def wanted(input: Any, **fields: Any) -> ResponseRequest:
    """A request as it comes over the wire."""
    request: ResponseRequest = ResponseRequest.model_validate(json.loads(json.dumps({"input": input} | fields)))
    return request


async def responded(
    on: Service, input: Any, kept_in: ResponseStore | None = None, owner: str = "", **fields: Any
) -> Any:
    """Ask for a response."""
    async with asyncio.timeout(WAIT):
        return await respond(on, kept_in, wanted(input, **fields), raw(owner))


async def body_of(on: Service, input: Any, *given: Any, **fields: Any) -> Any:
    """Ask for one that is not streamed."""
    return json.loads((await responded(on, input, *given, **fields)).body)


async def events_of(response: Any) -> list[dict[str, Any]]:
    """What the events of a stream hold; each is named as it says itself."""
    found = []
    async with asyncio.timeout(WAIT):
        async for event in response.body_iterator:
            name, _, data = str(event).removesuffix("\n\n").partition("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {found[-1]['type']}"
    return found
