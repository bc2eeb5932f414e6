"""From a chat completion request to the question the engine answers."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from dualfocus_engine import BadQuestion, Box, DualFocus, Message, Mode, Picture, Question, Scoring, Text
from dualfocus_engine.method.stages import Stages
from dualfocus_engine.pictures.picture_cache import PictureCache
from dualfocus_engine.pictures.pictures import ImageLimits, read_source_image

from dualfocus_server.answering.contents import IMAGE, TEXT, parts_of
from dualfocus_server.answering.protocol import MODES, Conversation, FocusRequest
from dualfocus_server.guards.api_errors import as_client_errors
from dualfocus_server.images.request_images import RequestImages

# What only vLLM's own chat serving does; a request that uses one of these is not a DualFocus question.
_VLLM_ONLY = (
    "tools",
    "use_beam_search",
    "echo",
    "add_generation_prompt",
    "add_special_tokens",
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
    "priority",
    "return_token_ids",
    "return_prompt_text",
    "routed_experts_prompt_start",
    "kv_transfer_params",
    "ec_transfer_params",
)

# The roles of a conversation of text and images.
_ROLES = ("system", "developer", "user", "assistant")


def is_dualfocus_request(request: FocusRequest) -> bool:
    """Whether a request asks about an image in a way two looks can answer; the rest is vLLM's."""
    if request.dualfocus.mode == "off" or (request.n or 1) > 1:
        return False
    if any(_is_asked(request, name) for name in _VLLM_ONLY):
        return False
    messages = request.messages
    if not messages or messages[-1].get("role") != "user":
        return False
    if not all(_is_plain(message) for message in messages):
        return False
    return any(image_parts(request))


def image_parts(request: Conversation) -> Iterator[dict[str, Any]]:
    """Yield the parts of a request that are images, in their order."""
    for message in request.messages:
        yield from (part for part in parts_of(message) if part["type"] == IMAGE)


def _is_asked(request: FocusRequest, name: str) -> bool:
    """Whether a field asks for something: its default, an empty list or null does not, 0 may."""
    value, default = getattr(request, name), FocusRequest.model_fields[name].default
    if default is True:
        return value is False
    return value != default and value is not None and value is not False and value not in ([], {}, "")


def may_be_kept(request: FocusRequest) -> bool:
    """Whether the client leaves it to the server to keep its answers: `store` is not false, and it has no salt."""
    # OpenAI's field, which vLLM does not know: it comes as it was sent, and what is not plainly true may mean false.
    store = getattr(request, "store", None)
    return (store is None or store is True) and request.cache_salt is None


async def question_of(request: FocusRequest, focus: DualFocus, images: RequestImages, stages: Stages) -> Question:
    """Return the question a request asks; `stages` count what its images take.

    Raises BadPicture, BadQuestion, and vLLM's errors for its sampling.
    """
    options = request.dualfocus
    sampling = _sampling(request, focus)  # what is wrong with it is said before images are opened
    for name in ("whole_tokens", "crop_tokens"):
        _check_tokens(name, getattr(options, name), focus)
    urls = [part[IMAGE]["url"] for part in image_parts(request)]
    pictures = iter(await images.opened(urls, stages, focus.engine.pictures.open))
    messages = [_message(message, pictures) for message in request.messages]
    return Question(
        messages=tuple(messages),
        mode=Mode(options.mode),
        grounding_question=options.question,
        box=Box(*options.box) if options.box else None,
        image_index=options.image,
        scoring=Scoring(options.scoring),
        skip_below=options.skip_below,
        sampling=sampling,
        whole_tokens=options.whole_tokens,
        crop_tokens=options.crop_tokens,
    )


def _check_tokens(name: str, asked: int | None, focus: DualFocus) -> None:
    """Raise BadQuestion where a picture can't be shown in the tokens asked for, or the server allows fewer."""
    if asked is None:
        return
    views = focus.engine.views
    if views is None:
        raise BadQuestion("This model shows every picture at one size: it takes no image tokens.", f"dualfocus.{name}")
    most = (views.whole if name == "whole_tokens" else views.crop).most
    if most is not None and asked > most:
        raise BadQuestion(f"The server shows it in at most {most} image tokens.", f"dualfocus.{name}")


def take_mode(request: FocusRequest, is_served: Callable[[str], bool], default: str) -> None:
    """Fill in the mode of a request whose `dualfocus` field says none: that of `NAME:MODE` as its model, or `default`.

    The name is for clients that can't send the field; what is left of it is the model.
    """
    request.model, mode = model_and_mode(request.model, is_served)
    if "mode" not in request.dualfocus.model_fields_set:
        request.dualfocus = request.dualfocus.model_copy(update={"mode": mode or default})


def model_and_mode(asked: str | None, is_served: Callable[[str], bool]) -> tuple[str | None, str | None]:
    """Split `NAME:MODE` into the model and the mode, which is None in any other name."""
    name, _, mode = (asked or "").rpartition(":")
    return (name, mode) if mode in MODES and is_served(name) else (asked, None)


async def inline_images(request: Conversation, focus: DualFocus, images: RequestImages) -> None:
    """Open the images of a request that vLLM answers, by the same rules: vLLM fetches nothing and decodes no image.

    What stands for a picture in the model's prompts is words in its texts, as it is where two looks answer.
    Raises BadPicture; BadQuestion where the prompt is to be cut, which vLLM can't do to one with images.
    """
    parts = list(image_parts(request))
    if parts and getattr(request, "truncate_prompt_tokens", None) is not None:
        raise BadQuestion("truncate_prompt_tokens can't be used with images.")
    opening = partial(_as_sent, focus.engine.pictures)
    opened = await images.opened([part[IMAGE]["url"] for part in parts], Stages(), opening)
    for part, image in zip(parts, opened, strict=True):
        part.clear()
        part |= image
    for message in request.messages:
        _put_into_words(message, focus)


def _put_into_words(message: dict[str, Any], focus: DualFocus) -> None:
    if isinstance(message.get("content"), str):
        (message["content"],) = focus.engine.as_words([message["content"]])
        return
    parts = [part for part in parts_of(message) if isinstance(part.get(part["type"]), str)]
    words = focus.engine.as_words([part[part["type"]] for part in parts])
    for part, text in zip(parts, words, strict=True):
        part[part["type"]] = text


def _as_sent(pictures: PictureCache, data: bytes, limits: ImageLimits) -> dict[str, Any]:
    """Return an image as the part of a message that vLLM takes it from; work for a thread."""
    original = read_source_image(data, limits)
    return {"type": "image_pil", "image_pil": pictures.within_aspect(original), "uuid": f"{original.key}-as-sent"}


def _sampling(request: FocusRequest, focus: DualFocus) -> Any:
    """Return the client's sampling over the profile's and the model's defaults, as `vllm serve` would."""
    limits = (request.max_completion_tokens, request.max_tokens, focus.engine.default_max_tokens)
    limit = next((limit for limit in limits if limit is not None), None)
    with as_client_errors():
        return request.to_sampling_params(
            limit, {**focus.engine.default_sampling, "temperature": focus.profile.temperature}
        )


def _message(message: dict[str, Any], pictures: Iterator[Picture]) -> Message:
    """Read one message; its images are the next of the conversation's pictures."""
    parts = [_text(part) if part["type"] == TEXT else next(pictures) for part in parts_of(message)]
    return Message.from_parts(message["role"], parts)


def _text(part: dict[str, Any]) -> Text:
    extra = {name: value for name, value in part.items() if name not in ("type", TEXT)}
    return Text(part[TEXT], extra)


def _is_plain(message: dict[str, Any]) -> bool:
    """Whether a message is text and images only (no tool calls, audio, video)."""
    return (
        message["role"] in _ROLES
        and all(part["type"] in (TEXT, IMAGE) for part in parts_of(message))
        and not message.get("tool_calls")
    )
