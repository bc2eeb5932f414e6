"""From a chat completion request to the question the engine answers."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

from dualfocus_engine import BadQuestion, Box, DualFocus, Message, Mode, Question
from dualfocus_engine.pictures import bounded
from dualfocus_engine.pool import in_thread

from dualfocus_server.media import ImageSource
from dualfocus_server.protocol import MODES, FocusRequest

_TEXT_TYPES = ("text", "input_text")
_IMAGE_TYPES = ("image_url", "input_image")

# What only vLLM's own chat serving does; a request that uses one of these is not a DualFocus question.
_VLLM_ONLY = (
    "tools",
    "use_beam_search",
    "echo",
    "continue_final_message",
    "documents",
    "chat_template",
    "chat_template_kwargs",
    "media_io_kwargs",
    "mm_processor_kwargs",
    "prompt_logprobs",
    "logprob_token_ids",
    "truncate_prompt_tokens",
    "cache_salt",
)


def concerns_focus(request: FocusRequest) -> bool:
    """Whether a request asks about an image in a way two looks can answer; the rest is vLLM's."""
    if request.dualfocus.mode == "off" or (request.n or 1) > 1:
        return False
    if any(getattr(request, name) for name in _VLLM_ONLY):
        return False
    messages = cast("list[Any]", request.messages)
    if not messages or messages[-1].get("role") != "user":
        return False
    if not all(_is_plain(message) for message in messages):
        return False
    return any(part["type"] in _IMAGE_TYPES for message in messages for part in _parts(message))


async def question_of(request: FocusRequest, focus: DualFocus, images: ImageSource) -> Question:
    """Return the question a request asks. Raises BadPicture, BadQuestion, and vLLM's errors for its sampling."""
    options = request.dualfocus
    messages = await asyncio.gather(*(_message(message, images) for message in cast("list[Any]", request.messages)))
    return Question(
        messages=tuple(messages),
        mode=Mode(options.mode),
        grounding=options.question,
        box=Box(*options.box) if options.box else None,
        zoom=options.image,
        sampling=_sampling(request, focus),
    )


def take_mode_from_model(request: FocusRequest, is_served: Callable[[str], bool]) -> None:
    """Read `NAME:MODE` as model and mode, for clients that can't send the `dualfocus` field (which goes before it)."""
    name, _, mode = (request.model or "").rpartition(":")
    if mode not in MODES or not is_served(name):
        return
    request.model = name
    if "mode" not in request.dualfocus.model_fields_set:
        request.dualfocus = request.dualfocus.model_copy(update={"mode": mode})


async def inline_images(request: FocusRequest, images: ImageSource) -> None:
    """Open the images of a request that vLLM answers, by the same rules: vLLM itself fetches and decodes nothing.

    Raises BadPicture.
    """
    for message in cast("list[Any]", request.messages):
        for part in _parts(message):
            if part["type"] in _IMAGE_TYPES:
                picture = await images.picture(_url(part))
                image = await in_thread(bounded, picture.image)
                part.clear()
                part |= {"type": "image_pil", "image_pil": image, "uuid": f"{picture.key}-as-sent"}


def _sampling(request: FocusRequest, focus: DualFocus) -> Any:
    """Return the client's sampling over the profile's and the model's defaults, as `vllm serve` would."""
    defaults = focus.engine.llm.model_config.get_diff_sampling_param()
    limits = (request.max_completion_tokens, request.max_tokens, focus.profile.max_answer_tokens)
    limit = next(limit for limit in limits if limit is not None)
    return request.to_sampling_params(limit, defaults | {"temperature": focus.profile.temperature})


async def _message(message: dict[str, Any], images: ImageSource) -> Message:
    parts = _parts(message)
    texts = [part["text"] for part in parts if part["type"] in _TEXT_TYPES]
    urls = [_url(part) for part in parts if part["type"] in _IMAGE_TYPES]
    pictures = await asyncio.gather(*(images.picture(url) for url in urls))
    return Message(message["role"], "\n".join(texts), tuple(pictures))


def _url(part: dict[str, Any]) -> str:
    value = part.get("image_url")
    url = value.get("url") if isinstance(value, dict) else value
    if not isinstance(url, str):
        raise BadQuestion("An image part has no image_url with a url in it.")
    return url


def _is_plain(message: dict[str, Any]) -> bool:
    """Whether a message is text and images only (no tool calls, audio, video)."""
    known = (*_TEXT_TYPES, *_IMAGE_TYPES)
    return (
        message["role"] in ("system", "user", "assistant")
        and all(part["type"] in known for part in _parts(message))
        and not message.get("tool_calls")
    )


def _parts(message: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """Return a message's content as parts, however the client wrote it."""
    content = message.get("content")
    if not isinstance(content, str):
        return [_part(part) for part in content or ()]
    return [{"type": "text", "text": content}]


def _part(part: Any) -> dict[str, Any]:
    return {"type": "text", "text": part} if isinstance(part, str) else part
