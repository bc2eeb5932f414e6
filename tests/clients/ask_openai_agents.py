"""openai-agents asks one image question, whole and streamed: BASE_URL MODEL FILE [TEXT]."""

import asyncio
import json
import sys
from pathlib import Path

from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, set_tracing_disabled
from openai import AsyncOpenAI

# An answer that is cut is an error of this client's: of a model that is not trained, one of these ends by itself.
ANSWERS = {"structured_outputs": {"choice": ["yes", "no"]}}


async def main(base_url: str, name: str, path: str, text: str | None = None) -> None:
    """Ask, and print what was said."""
    set_tracing_disabled(True)
    model = OpenAIResponsesModel(name, AsyncOpenAI(base_url=base_url, api_key="none"))
    settings = ModelSettings(extra_body=None if text else ANSWERS)
    agent = Agent(name="Looker", instructions="Be brief.", model=model, model_settings=settings)
    image = {"type": "input_image", "image_url": Path(path).read_text(), "detail": "auto"}
    asked = [{"role": "user", "content": [image, {"type": "input_text", "text": text or "Is anything in the cup?"}]}]
    whole = (await Runner.run(agent, asked)).final_output
    run, focus = Runner.run_streamed(agent, asked), None
    async for event in run.stream_events():
        if event.type == "raw_response_event" and hasattr(event.data, "response"):
            focus = getattr(event.data.response, "dualfocus", focus)
    print(json.dumps({"text": whole, "streamed": run.final_output, "dualfocus": focus}))


asyncio.run(main(*sys.argv[1:]))
