"""From a chat completion request to the question the engine answers."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from dualfocus_engine import BadQuestion, Box, DualFocus, Message, Mode, Question
from dualfocus_engine.pictures import within_aspect
from dualfocus_engine.pool import in_thread

from dualfocus_server.contents import IMAGE, TEXT, parts_of
from dualfocus_server.media import ImageSource
from dualfocus_server.protocol import MODES, FocusRequest

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
    if any(_is_asked(request, name) for name in _VLLM_ONLY):
        return False
    messages = cast("list[Any]", request.messages)
    if not messages or messages[-1].get("role") != "user":
        return False
    if not all(_is_plain(message) for message in messages):
        return False
    return any(part["type"] == IMAGE for message in messages for part in parts_of(message))


def _is_asked(request: FocusRequest, name: str) -> bool:
    """Whether a field asks for something: 0 may, an empty list or null does not."""
    value = getattr(request, name)
    return value is not None and value is not False and value not in ([], {}, "")


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

    Raises BadPicture; BadQuestion where the prompt is to be cut, which vLLM can't do to one with images.
    """
    for message in cast("list[Any]", request.messages):
        for part in parts_of(message):
            if part["type"] == IMAGE:
                if request.truncate_prompt_tokens is not None:
                    raise BadQuestion("truncate_prompt_tokens can't be used with images.")
                picture = await images.picture(part[IMAGE]["url"])
                image = await in_thread(within_aspect, picture.image)
                part.clear()
                part |= {"type": "image_pil", "image_pil": image, "uuid": f"{picture.key}-as-sent"}


def _sampling(request: FocusRequest, focus: DualFocus) -> Any:
    """Return the client's sampling over the profile's and the model's defaults, as `vllm serve` would."""
    defaults = focus.engine.llm.model_config.get_diff_sampling_param()
    limits = (request.max_completion_tokens, request.max_tokens, focus.profile.max_answer_tokens)
    limit = next(limit for limit in limits if limit is not None)
    return request.to_sampling_params(limit, defaults | {"temperature": focus.profile.temperature})


async def _message(message: dict[str, Any], images: ImageSource) -> Message:
    parts = parts_of(message)
    texts = [part[TEXT] for part in parts if part["type"] == TEXT]
    urls = [part[IMAGE]["url"] for part in parts if part["type"] == IMAGE]
    pictures = await asyncio.gather(*(images.picture(url) for url in urls))
    return Message(message["role"], "\n".join(texts), tuple(pictures))


def _is_plain(message: dict[str, Any]) -> bool:
    """Whether a message is text and images only (no tool calls, audio, video)."""
    return (
        message["role"] in ("system", "user", "assistant")
        and all(part["type"] in (TEXT, IMAGE) for part in parts_of(message))
        and not message.get("tool_calls")
    )
