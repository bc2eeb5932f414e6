"""pydantic-ai lets an agent with a tool look at an image, whole and streamed: BASE_URL MODEL FILE QUESTION RESULT.

RESULT is what the tool, `look`, returns; FILE holds the image as a data URL.
"""

import asyncio
import json
import sys
from pathlib import Path

from kept import Kept
from openai import AsyncOpenAI
from pydantic_ai import Agent, ImageUrl
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


async def main(base_url: str, name: str, path: str, question: str, result: str) -> None:
    """Ask, and print what was said and how often the tool was called."""
    kept, called = Kept(), []
    client = AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, http_client=kept.asynchronous)
    model = OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client))
    agent = Agent(model, model_settings={"max_tokens": 200})

    @agent.tool_plain
    def look(side: str) -> str:
        """Look at one side of the picture."""
        called.append(side)
        return result

    asked = [ImageUrl(url=Path(path).read_text()), question]
    whole = (await agent.run(asked)).output
    async with agent.run_stream(asked) as stream:
        streamed = await stream.get_output()
    print(json.dumps({"text": whole, "streamed": streamed, "called": called, "dualfocus": kept.fields}))


asyncio.run(main(*sys.argv[1:]))
