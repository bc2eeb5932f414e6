"""A library asks for a typed answer about an image, whole and streamed: BASE_URL MODEL FILE (a data URL) LIBRARY."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import instructor
from kept import Kept
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, ImageUrl
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

ASKED = "Is anything in the cup?"
# Tabs, line feeds, carriage returns, spaces, which JSON allows anywhere: a small model would write nothing else.
OPTIONS: dict[str, Any] = {"max_tokens": 60, "logit_bias": dict.fromkeys(("201", "202", "205", "224"), -100)}


class Seen(BaseModel):
    """What the model is to say."""

    anything: bool


def content(image: str) -> list[dict[str, Any]]:
    """The question as a message's content."""
    return [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": ASKED}]


def by_pydantic_ai(base_url: str, name: str, image: str, kept: Kept) -> list[Seen]:
    """Ask by the tool that it makes of a type."""
    client = AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, http_client=kept.asynchronous)
    model = OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client))
    agent = Agent(model, output_type=Seen, model_settings=OPTIONS)

    async def both() -> list[Seen]:
        asked = [ImageUrl(url=image), ASKED]
        whole = (await agent.run(asked)).output
        async with agent.run_stream(asked) as stream:
            return [whole, await stream.get_output()]

    return asyncio.run(both())


def by_instructor(base_url: str, name: str, image: str, kept: Kept) -> list[Seen]:
    """Ask by the tool that it makes of a type."""
    client = instructor.from_openai(OpenAI(base_url=base_url, api_key="none", max_retries=0, http_client=kept.client))
    asked = {"model": name, "messages": [{"role": "user", "content": content(image)}], "response_model": Seen}
    whole = client.chat.completions.create(**asked, **OPTIONS, max_retries=0)
    *_, last = client.chat.completions.create_partial(**asked, **OPTIONS, max_retries=0)
    return [whole, last]


def by_langchain(base_url: str, name: str, image: str, kept: Kept, **method: str) -> list[Seen]:
    """Ask by a JSON schema, or the method given."""
    chat = ChatOpenAI(
        base_url=base_url,
        model=name,
        api_key="none",
        http_client=kept.client,
        include_response_headers=False,
        **OPTIONS,
    ).with_structured_output(Seen, **method)
    asked = [HumanMessage(content=content(image))]
    *_, last = chat.stream(asked)
    return [chat.invoke(asked), last]


def by_langchain_tool(base_url: str, name: str, image: str, kept: Kept) -> list[Seen]:
    """Ask by the tool that it makes of a type."""
    return by_langchain(base_url, name, image, kept, method="function_calling")


LIBRARIES: dict[str, Callable[..., list[Seen]]] = {
    "pydantic-ai": by_pydantic_ai,
    "instructor": by_instructor,
    "langchain": by_langchain,
    "langchain's tool": by_langchain_tool,
}
base_url, model, path, library = sys.argv[1:]
kept = Kept()
whole, streamed = (seen.model_dump_json() for seen in LIBRARIES[library](base_url, model, Path(path).read_text(), kept))
print(json.dumps({"text": whole, "streamed": streamed, "dualfocus": kept.fields}))
