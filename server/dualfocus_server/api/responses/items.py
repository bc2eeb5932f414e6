"""The items of an input, written one way however the client wrote them: nothing else is left for vLLM to read.

A message holds text and images as the parts of a chat completion; what a tool gave does too. Leans on vLLM 0.32's
`construct_input_messages`, which takes such messages as they are.
"""

from typing import Any, TypeVar

from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseReasoningItem
from openai.types.responses.response_reasoning_item import Content
from pydantic import BaseModel, ValidationError

from dualfocus_server.answering.contents import normalize_message
from dualfocus_server.answering.protocol import MAX_MESSAGES, MAX_PARTS
from dualfocus_server.guards.json_limits import FieldError

_ROLES = ("system", "developer", "user", "assistant")
Item = TypeVar("Item", bound=BaseModel)
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_KNOWN = ("message", "function_call", "custom_tool_call", *_OUTPUTS, "reasoning")
_TEXTS, _IMAGES = ("input_text", "output_text", "text"), ("input_image", "image_url")


def check_input(asked: Any) -> None:
    """Judge the shape of an input, and how much there is to read. Raises FieldError."""
    if isinstance(asked, str):
        return
    if not isinstance(asked, list) or not asked or not all(isinstance(item, dict) for item in asked):
        raise FieldError("input must be a text, or a list of at least one item, each an object", "input")
    if len(asked) > MAX_MESSAGES:
        raise FieldError(f"input has {len(asked):,} items; {MAX_MESSAGES:,} are the most", "input")
    for place, item in enumerate(asked):
        for name in ("content", "output", "summary"):
            parts = item.get(name)
            if isinstance(parts, list) and len(parts) > MAX_PARTS:
                where = f"input.{place}.{name}"
                raise FieldError(f"{where} has {len(parts):,} parts; {MAX_PARTS:,} are the most", where)


def canonical_items(asked: str | list[Any]) -> list[Any]:
    """Return the items of an input. Raises FieldError naming what can't be read."""
    if isinstance(asked, str):
        return [{"role": "user", "content": asked}]
    return [_item(f"input.{place}", item) for place, item in enumerate(asked)]


def canonical_output(output: list[Any]) -> list[Any]:
    """Return an answer's items as those of the next input; what the model thought is not said again."""
    return [_item("output", item) for item in output if not isinstance(item, ResponseReasoningItem)]


def _item(place: str, item: Any) -> Any:
    if isinstance(item, ResponseOutputMessage):
        item = item.model_dump()
    if isinstance(item, ResponseReasoningItem):  # vLLM has read it
        return _thought(item)
    if not isinstance(item, dict):  # and this
        return item
    kind = item.get("type") or "message"
    if kind == "message":
        return _message(place, item)
    if kind == "function_call":
        return _read(place, item, ResponseFunctionToolCall)
    if kind == "reasoning":
        return _read(place, item, ResponseReasoningItem)
    if kind == "custom_tool_call":
        return {"type": kind, **{name: _text_of(place, item, name) for name in ("call_id", "name", "input")}}
    if kind in _OUTPUTS:
        output = _content(f"{place}.output", item.get("output"))
        return {"type": kind, "call_id": _text_of(place, item, "call_id"), "output": output}
    raise FieldError(
        f"{place} is of type {kind!r}, which can't be read; there are {', '.join(_KNOWN)}", f"{place}.type"
    )


def _message(place: str, item: dict[str, Any]) -> dict[str, Any]:
    role, status = item.get("role"), item.get("status")
    if role not in _ROLES:
        raise FieldError(f"{place}.role must be one of {', '.join(_ROLES)}", f"{place}.role")
    content = _content(f"{place}.content", item.get("content"))
    if role == "assistant" and not isinstance(content, str):
        content = _joined(f"{place}.content", content)
    # vLLM goes on with a last message that is not complete.
    ending = {"type": "message", "status": status} if isinstance(status, str) else {}
    return {"role": role, "content": content, **ending}


def _joined(place: str, parts: list[dict[str, Any]]) -> str:
    """Return the text of an assistant's message, of which vLLM reads one part."""
    if any(part["type"] != "text" for part in parts):
        raise FieldError(f"{place}: an assistant's message holds text alone", place)
    return "".join(part["text"] for part in parts)


def _content(place: str, content: Any) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise FieldError(f"{place} must be a text, or a list of parts", place)
    return [_part(f"{place}.{number}", part) for number, part in enumerate(content)]


def _part(place: str, part: Any) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return {"type": "text", "text": part["refusal"]}
    if kind not in (*_TEXTS, *_IMAGES):
        raise FieldError(f"{place} is of type {kind!r}; there are input_text, output_text and input_image", place)
    if part.get("file_id") is not None:
        advice = "no files are kept here: send the image as image_url, a data: or http(s) URL"
        raise FieldError(f"{place}.file_id can't be used: {advice}", f"{place}.file_id")
    try:
        read = {"type": "text", "text": part.get("text")} if kind in _TEXTS else part | {"type": "image_url"}
        (normal,) = normalize_message({"content": [read]})["content"]
    except ValueError as error:
        raise FieldError(f"{place}: {error}", place) from error
    return dict(normal)


def _thought(item: ResponseReasoningItem) -> ResponseReasoningItem:
    """Return reasoning with the content that vLLM would take from its summary, and warn of in the log each time."""
    if not item.content and item.summary:
        item.content = [Content(type="reasoning_text", text=item.summary[0].text)]
    return item


def _read(place: str, item: dict[str, Any], kind: type[Item]) -> Item:
    try:
        return kind.model_validate(item)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([place, *map(str, first["loc"])])
        raise FieldError(f"{where}: {first['msg']}", where) from error


def _text_of(place: str, item: dict[str, Any], name: str) -> str:
    if not isinstance(item.get(name), str):
        raise FieldError(f"{place}.{name} must be a text", f"{place}.{name}")
    return str(item[name])
