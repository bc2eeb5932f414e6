"""From a chat completion request to the question the engine answers."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from dualfocus_engine import BadQuestion, Box, DualFocus, Message, Mode, Picture, Question, Scoring, Text
from dualfocus_engine.machine.pool import run_in_image_pool
from dualfocus_engine.method.prompts import NO_OPTIONS, TurnOptions
from dualfocus_engine.method.questions import as_it_is
from dualfocus_engine.method.results import Turn
from dualfocus_engine.method.stages import Stages
from dualfocus_engine.pictures.picture_cache import PictureCache
from dualfocus_engine.pictures.pictures import ImageLimits, read_source_image
from pydantic import BaseModel
from pydantic_core import from_json
from vllm.entrypoints.openai.completion.protocol import CompletionRequest

from dualfocus_server.answering.contents import EMBEDDINGS, IMAGE, TEXT, TOOL, parts_of
from dualfocus_server.answering.protocol import MODES, Conversation, FocusOptions, FocusRequest
from dualfocus_server.answering.vllm_serving.rendering import once_rendered
from dualfocus_server.guards.api_errors import as_client_errors
from dualfocus_server.images.embeddings import check_embeddings, embeddings_key
from dualfocus_server.images.request_images import RequestImages, SentImage

# The type of a part with pixels in it, as vLLM has it.
_PIXELS = "image_pil"
# What vLLM gives to the chat template of a message, besides its content.
_TOLD = ("tool_calls", "tool_call_id", "name", "reasoning", "task", "tools")


def image_parts(request: Conversation) -> Iterator[dict[str, Any]]:
    """Yield the parts of a request that are images, in their order."""
    for message in request.messages:
        yield from (part for part in parts_of(message) if part["type"] == IMAGE)


def _sent(part: dict[str, Any]) -> SentImage:
    return SentImage(part[IMAGE]["url"], part.get("uuid"))


def may_be_kept(request: FocusRequest) -> bool:
    """Whether the client leaves it to the server to keep its answers: `store` is not false, and it has no salt."""
    # OpenAI's field, which vLLM does not know: it comes as it was sent, and what is not plainly true may mean false.
    store = getattr(request, "store", None)
    return (store is None or store is True) and request.cache_salt is None


async def question_of(
    request: FocusRequest,
    focus: DualFocus,
    images: RequestImages,
    stages: Stages,
    turns: TurnOptions = NO_OPTIONS,
    read: Callable[[Turn], Turn] = as_it_is,
) -> Question:
    """Return the question a request asks, its turns run with `turns` and its answers read by `read`.

    `stages` count what its images take.

    Raises BadPicture, BadQuestion, and vLLM's errors for its sampling.
    """
    options = request.dualfocus
    sampling = sampling_of(request, focus)  # what is wrong with it, and with options, is said before images are opened
    _check_options(options, focus)
    return Question(
        messages=await _messages_of(request, focus, images, stages),
        mode=Mode(options.mode),
        grounding_question=options.question,
        box=Box(*options.box) if options.box else None,
        image_index=options.image,
        scoring=Scoring(options.scoring),
        skip_below=options.skip_below,
        sure_below=options.sure_below,
        max_looks=options.max_looks,
        enough=options.enough,
        candidates=options.candidates,
        sampling=sampling,
        whole_tokens=options.whole_tokens,
        crop_tokens=options.crop_tokens,
        turns=turns,
        read=read,
    )


def _check_options(options: FocusOptions, focus: DualFocus) -> None:
    for name in ("whole_tokens", "crop_tokens"):
        _check_tokens(name, getattr(options, name), focus)
    if (options.max_looks or 0) > focus.profile.max_looks:
        raise BadQuestion(f"The server takes at most {focus.profile.max_looks} looks.", "dualfocus.max_looks")


async def _messages_of(
    request: FocusRequest, focus: DualFocus, images: RequestImages, stages: Stages
) -> tuple[Message, ...]:
    """Open a request's images and return its messages with them."""
    sent = [_sent(part) for part in image_parts(request)]
    for_crops = request.dualfocus.mode != Mode.MACRO.value
    opening = partial(focus.engine.pictures.open, salt=_salt_of(request), for_crops=for_crops)
    pictures = iter(await images.opened(sent, stages, opening, request.cache_salt))
    return tuple(_message(message, pictures) for message in request.messages)


def _salt_of(request: FocusRequest) -> str | None:
    """Return what pictures' keys are hashed with: one that is processed otherwise is another picture to every cache."""
    salt: str | None = request.cache_salt
    told = request.mm_processor_kwargs
    return json.dumps([salt, told], sort_keys=True) if told else salt


def _check_tokens(name: str, asked: int | None, focus: DualFocus) -> None:
    """Raise BadQuestion where a picture can't be shown in the tokens asked for, or the server allows fewer."""
    if asked is None:
        return
    views = focus.engine.views
    if views is None or views.are_fixed:
        why = "The model's own processor decides how large pictures are shown: it takes no image tokens."
        raise BadQuestion(why, f"dualfocus.{name}")
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


@asynccontextmanager
async def inlined_images(request: Conversation, focus: DualFocus, images: RequestImages) -> AsyncIterator[None]:
    """Open the images of a request that vLLM answers, by the same rules: vLLM fetches nothing and decodes no image.

    They are gone as soon as the request's prompt is rendered, and with the block: vLLM keeps the request itself until
    it has answered.

    What stands for a picture in the model's prompts is words in its texts and tools, as it is where two looks answer.
    Embeddings are judged, and left to vLLM.
    Raises BadPicture; BadQuestion where the prompt is to be cut, which vLLM can't do to one with images.
    """
    parts = list(image_parts(request))
    if parts and getattr(request, "truncate_prompt_tokens", None) is not None:
        raise BadQuestion("truncate_prompt_tokens can't be used with images.")
    salt = getattr(request, "cache_salt", None)
    opening = partial(_as_sent, focus.engine.pictures, salt=salt)
    sent = [_sent(part) for part in parts]
    _put_all_into_words(request, focus)
    embedded = [part for message in request.messages for part in parts_of(message) if EMBEDDINGS in part]
    if embedded:
        await run_in_image_pool(_check_embedded, embedded, focus, salt)
    async with images.kept(sent, opening, salt) as (opened, give_back):

        def forget() -> None:
            opened.clear()
            for part in parts:
                part[_PIXELS] = None
            give_back()

        for part, image in zip(parts, opened, strict=True):
            part.clear()
            part |= image

        def take_keys(keys: Sequence[str]) -> None:
            # Others than ours where its processor was told something: by them it forgets those of a failed request.
            keyed = [part for message in request.messages for part in parts_of(message) if "uuid" in part]
            for part, key in zip(keyed, keys, strict=False):
                part["uuid"] = key
            forget()

        once_rendered(take_keys)
        try:
            yield
        finally:
            forget()


def _put_all_into_words(request: Conversation, focus: DualFocus) -> None:
    """Make words of what stands for a picture in all that the chat template is told."""
    told = getattr(request, "kv_transfer_params", None) or {}
    _check_prompt(told.get("prompt_token_ids"), focus, "kv_transfer_params")  # vLLM takes it in the messages' place
    for message in request.messages:
        _put_into_words(message, focus)
    if tools := getattr(request, "tools", None):
        vars(request)["tools"] = [in_words(tool, focus) for tool in tools]
    for name in ("documents", "chat_template_kwargs"):
        if said := getattr(request, name, None):
            vars(request)[name] = focus.engine.in_words(said)


def in_words(told: BaseModel, focus: DualFocus) -> BaseModel:
    """Return a tool or a call with what stands for a picture in it made words; the same one where nothing does."""
    fields = told.model_dump()
    words = focus.engine.in_words(fields)
    return told if words == fields else type(told).model_validate(words)


def _check_embedded(parts: list[dict[str, Any]], focus: DualFocus, salt: str | None) -> None:
    """Judge embeddings and give them keys of ours; work for a thread. Raises BadPicture."""
    check_embeddings([part[EMBEDDINGS] for part in parts], focus.engine.llm.model_config)
    for part in parts:
        part["uuid"] = embeddings_key(part[EMBEDDINGS], salt)


def prompts_into_words(request: CompletionRequest, focus: DualFocus) -> None:
    """Make words of what stands for a picture in a completion's prompts, as it is in a message's text.

    Raises BadQuestion over a prompt of tokens with such a one in it: to the model it would mean a picture there is not.
    """
    prompt = request.prompt
    several = prompt if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else [prompt]
    for tokens in several:
        _check_prompt(tokens, focus, "prompt")
    said = [focus.engine.as_words([text])[0] if isinstance(text, str) else text for text in several]
    request.prompt = said if several is prompt else said[0]
    if request.suffix is not None:
        (request.suffix,) = focus.engine.as_words([request.suffix])


def _check_prompt(prompt: Any, focus: DualFocus, field: str) -> None:
    """Raise BadQuestion over a prompt of tokens that stands for a picture there is not."""
    tokens = [token for token in prompt if isinstance(token, int)] if isinstance(prompt, list) else ()
    if found := focus.engine.placeholder_tokens.intersection(tokens):
        raise BadQuestion(f"Token {min(found)} stands for a picture: send pictures as a message's parts.", field)


def _put_into_words(message: dict[str, Any], focus: DualFocus) -> None:
    message |= focus.engine.in_words({"role": message["role"], **_fields(message)})
    if isinstance(message.get("content"), str):
        (message["content"],) = focus.engine.as_words([message["content"]])
        return
    parts = [part for part in parts_of(message) if isinstance(part.get(part["type"]), str)]
    words = focus.engine.as_words([part[part["type"]] for part in parts])
    for part, text in zip(parts, words, strict=True):
        part[part["type"]] = text
    for part in parts_of(message):
        if part["type"] in (TEXT, TOOL):
            told = {name: value for name, value in part.items() if name not in ("type", TEXT)}
            part |= focus.engine.in_words(told)


def _as_sent(pictures: PictureCache, data: bytes, limits: ImageLimits, salt: str | None) -> dict[str, Any]:
    """Return an image as the part of a message that vLLM takes it from; work for a thread."""
    original = read_source_image(data, limits, salt)
    return {"type": _PIXELS, _PIXELS: pictures.within_aspect(original), "uuid": f"{original.key}-as-sent"}


def sampling_of(request: FocusRequest, focus: DualFocus) -> Any:
    """Return the client's sampling over the profile's and the model's defaults, as `vllm serve` would."""
    limits = (request.max_completion_tokens, request.max_tokens, focus.engine.default_max_tokens)
    limit = next((limit for limit in limits if limit is not None), None)
    defaults = dict(focus.engine.default_sampling)
    if (request.n or 1) == 1:  # without a temperature of their own, several answers would be one
        defaults["temperature"] = focus.engine.default_temperature
    with as_client_errors():
        return request.to_sampling_params(limit, defaults)


def _message(message: dict[str, Any], pictures: Iterator[Picture]) -> Message:
    """Read one message; its images are the next of the conversation's pictures."""
    parts = [_text(part) if part["type"] == TEXT else next(pictures) for part in parts_of(message)]
    return Message.from_parts(message["role"], parts, **_fields(message))


def _fields(message: dict[str, Any]) -> dict[str, Any]:
    """Return what else a message says to the chat template, the arguments of calls as objects."""
    fields = {name: message[name] for name in _TOLD if message.get(name) is not None}
    if (calls := fields.get("tool_calls")) is not None:
        if not isinstance(calls, list):
            raise BadQuestion("A message's tool_calls must be a list of calls.", "messages")
        fields["tool_calls"] = [_call(call) for call in calls]
    return fields


def _call(call: Any) -> Any:
    """Return a call with its arguments read: their texts are words too (`VllmEngine.in_words`)."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = from_json(function["arguments"])
    except ValueError:
        arguments = {}  # as vLLM reads it
    return {**call, "function": {**function, "arguments": arguments}}


def _text(part: dict[str, Any]) -> Text:
    extra = {name: value for name, value in part.items() if name not in ("type", TEXT)}
    return Text(part[TEXT], extra)
