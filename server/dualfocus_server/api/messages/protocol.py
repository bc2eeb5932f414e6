"""What goes over the wire of the Messages API: vLLM's requests, their shape judged first, with the `dualfocus` field.

Leans on vLLM 0.32's `AnthropicMessagesRequest` and `AnthropicCountTokensRequest`.
"""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import model_validator
from vllm.entrypoints.anthropic.protocol import (
    AnthropicContentBlock,
    AnthropicCountTokensRequest,
    AnthropicMessagesRequest,
    AnthropicMessagesResponse,
)

from dualfocus_server.answering.protocol import FocusFields, FocusReport, Readable, check_messages
from dualfocus_server.guards.json_limits import FieldError

_KINDS: tuple[str, ...] = get_args(AnthropicContentBlock.model_fields["type"].annotation)
_SOURCES = {"base64": "data", "url": "url"}


class _Conversation(Readable):
    """The shape of `messages`: vLLM's conversion takes it for granted."""

    @model_validator(mode="before")
    @classmethod
    def _has_messages(cls, body: Any) -> Any:
        _check_contents(check_messages(body))
        return body


class MessagesRequest(_Conversation, FocusFields, AnthropicMessagesRequest):
    """A message to be answered, with the `dualfocus` field."""


class CountTokensRequest(_Conversation, AnthropicCountTokensRequest):
    """A conversation whose tokens are counted."""


class MessagesResponse(AnthropicMessagesResponse):
    """An answer with the `dualfocus` field."""

    dualfocus: FocusReport


def _check_contents(messages: list[dict[str, Any]]) -> None:
    """Raise FieldError over a block that can't be read; pydantic would name the union that it is in."""
    for number, message in enumerate(messages):
        for place, block in _blocks(f"messages.{number}.content", message.get("content")):
            if block.get("type") not in _KINDS:
                raise FieldError(f"{place}.type must be one of {', '.join(_KINDS)}", f"{place}.type")
            inner = _blocks(f"{place}.content", block.get("content")) if block["type"] == "tool_result" else ()
            for image_place, image in ((place, block), *inner):
                if image.get("type") == "image":
                    _check_source(image_place, image.get("source"))


def _blocks(place: str, content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the blocks of a content that are objects, each with its place in the body."""
    for number, block in enumerate(content if isinstance(content, list) else ()):
        if isinstance(block, dict):
            yield f"{place}.{number}", block


def _check_source(place: str, source: Any) -> None:
    """Raise FieldError over an image that is sent in none of the two ways there are."""
    kind = source.get("type") if isinstance(source, dict) else None
    field = _SOURCES.get(str(kind))
    if field is None:
        raise FieldError(f"{place}.source.type must be base64 or url", f"{place}.source")
    if not isinstance(source.get(field), str):
        raise FieldError(f"{place}.source.{field} must be a string", f"{place}.source.{field}")
    if not isinstance(source.get("media_type", ""), str):
        raise FieldError(f"{place}.source.media_type must be a string", f"{place}.source.media_type")
