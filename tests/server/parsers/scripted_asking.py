"""What tests ask of a scripted model, whole or streamed, and what the official client makes of it."""

import itertools
from dataclasses import dataclass
from typing import Any

from anthropic import Anthropic
from hostile_images import data_url, saved
from openai import OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState
from PIL import Image
from running_server import PATIENCE, Server

SIDES = {
    "type": "object",
    "properties": {"side": {"enum": ["left", "right"]}},
    "required": ["side"],
    "additionalProperties": False,
}
LOOK: dict[str, Any] = {"type": "function", "function": {"name": "look", "parameters": SIDES}}
POINT: dict[str, Any] = {"type": "function", "function": {"name": "point", "parameters": SIDES}}
NAMED = {"type": "function", "function": {"name": "look"}}
# As the parser `hermes` reads it.
CALL = '<tool_call>{"name": "look", "arguments": {"side": "left"}}</tool_call></s>'
OFF: dict[str, Any] = {"dualfocus": {"mode": "off"}}
_PLACES = itertools.count()


@dataclass(frozen=True)
class Told:
    """An answer, with what the client put together of it where it was streamed."""

    message: Any
    finish_reason: str
    focus: Any
    usage: Any
    pieces: tuple[Any, ...]

    @property
    def calls(self) -> list[tuple[str, str]]:
        """The tools that it calls, each with its arguments."""
        return [(call.function.name, call.function.arguments) for call in self.message.tool_calls or []]

    @property
    def reasoning(self) -> str | None:
        """Its thoughts."""
        return thought(getattr(self.message, "reasoning", None) or "") or None


def tell(client: OpenAI, stream: bool, messages: Any = None, **body: Any) -> Told:
    """Ask by the official client; what it does not know of `body` goes beside what it does."""
    known = {name: body.pop(name) for name in ("tools", "tool_choice", "response_format") if name in body}
    asked = {"model": client.models.list().data[0].id, "messages": messages or about(), "max_tokens": 200} | known
    if not stream:
        answer: Any = client.chat.completions.create(**asked, extra_body=body)
        choice = answer.choices[0]
        return Told(choice.message, choice.finish_reason, getattr(answer, "dualfocus", None), answer.usage, (answer,))
    usage = {"stream_options": {"include_usage": True}}
    pieces = tuple(client.chat.completions.create(**asked, stream=True, extra_body=body | usage))
    state = ChatCompletionStreamState()
    for piece in pieces:
        state.handle_chunk(piece)
    whole = state.current_completion_snapshot
    focus = [told for piece in pieces if (told := getattr(piece, "dualfocus", None))]
    return Told(
        whole.choices[0].message, whole.choices[0].finish_reason, focus[-1] if focus else None, whole.usage, pieces
    )


def picture(size: tuple[int, int] = (200, 150)) -> dict[str, Any]:
    """A picture that nobody has asked about: a red square, somewhere on white."""
    image, at = Image.new("RGB", size, "white"), next(_PLACES) % 60
    image.paste((200, 30, 40), (at, at, at + 60, at + 60))
    image.putpixel((next(_PLACES) % size[0], size[1] - 1), (0, 0, 0))
    return {"type": "image_url", "image_url": {"url": data_url(saved(image, "PNG"))}}


def about(words: str = "What?", *pictures: dict[str, Any]) -> list[dict[str, Any]]:
    """A conversation of one message: a picture, or those given, and a question."""
    return [{"role": "user", "content": [*(pictures or [picture()]), {"type": "text", "text": words}]}]


def as_claude(words: str, size: tuple[int, int] = (200, 150)) -> list[dict[str, Any]]:
    """A conversation as Anthropic's clients send it."""
    data = picture(size)["image_url"]["url"].partition(",")[2]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    return [{"role": "user", "content": [image, {"type": "text", "text": words}]}]


def by_claude(server: Server, stream: bool, words: str, **options: Any) -> Any:
    """Ask by Anthropic's official client."""
    claude = Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=PATIENCE)
    asked: dict[str, Any] = {"model": "scripted", "max_tokens": 200, "messages": as_claude(words), **options}
    if not stream:
        return claude.messages.create(**asked)
    with claude.messages.stream(**asked) as events:
        return events.get_final_message()


def blocks(message: Any) -> list[tuple[str, Any]]:
    """What a message holds, but for what is made anew each time."""
    holds = {"thinking": "thinking", "text": "text", "tool_use": "input"}
    held = [(block.type, getattr(block, holds[block.type])) for block in message.content]
    return [(kind, thought(text) if kind == "thinking" else text) for kind, text in held]


def thought(text: str) -> str:
    """A thought alone: vLLM's parser of DeepSeek-R1 leaves the mark in a stream's where one piece holds both."""
    return text.removeprefix("<think>")


def by_responses(client: OpenAI, stream: bool, script: dict[str, Any], asked: Any = None, **options: Any) -> Any:
    """Ask by the Responses API, and return the response that ends it."""
    content = [{"type": "input_image", "image_url": picture()["image_url"]["url"], "detail": "auto"}]
    content.append({"type": "input_text", "text": "What?"})
    extra = script | options.pop("extra_body", {})
    asked = asked or [{"role": "user", "content": content}]
    body: dict[str, Any] = {"model": "scripted", "input": asked, "max_output_tokens": 200, "extra_body": extra}
    answer = client.responses.create(**body, **options, stream=stream)
    return answer if not stream else [event for event in answer if hasattr(event, "response")][-1].response


def items(response: Any) -> list[tuple[str, Any]]:
    """What a response holds, but for what is made anew each time."""
    told = {
        "reasoning": lambda item: thought(item.content[0].text),
        "message": lambda item: item.content[0].text,
        "function_call": lambda item: (item.name, item.arguments),
    }
    return [(item.type, told[item.type](item)) for item in response.output]
