"""The contents of messages, written one way however the client wrote them.

vLLM reads parts more than one way (without a type, by a uuid, by whichever URL they hold) and fetches what it reads.
What stands here after is all there is: nothing but data is left for it to read.
"""

import re
from collections.abc import Iterable
from typing import Any

TEXT, IMAGE, EMBEDDINGS = "text", "image_url", "image_embeds"
_ALIASES = {"input_text": TEXT, "input_image": IMAGE}
# What vLLM is handed as it is: data, not URLs.
_HANDED_ON = ("input_audio", "refusal", "thinking")
# A tool that was found by a search for tools, by its name.
TOOL = "tool_reference"
_BY_URL = ("audio_url", "video_url")
# Fields that mean media to some template or to vLLM: a text part may carry any other plain value to the template.
_MEDIA_FIELD = re.compile(r"(image|video|audio)(_url|_embeds)?|prompt_embeds|image_pil|input_audio|uuid")
_LONGEST_UUID = 256
_KNOWN = (TEXT, IMAGE, *_ALIASES, *_HANDED_ON, *_BY_URL, EMBEDDINGS, TOOL)


def normalize_message(message: Any) -> dict[str, Any]:
    """Return a message with its parts written one way. Raises ValueError naming what can't be read."""
    if not isinstance(message, dict):  # vLLM also reads messages of other makes, for models of other makes
        raise ValueError("a message must be an object with role and content, as in OpenAI's chat completions")
    content = message.get("content")
    if content is None or isinstance(content, str):
        return message
    if isinstance(content, dict) or not isinstance(content, Iterable):
        raise ValueError("it must be a string or a list of parts")
    return message | {"content": [_part(part) for part in content]}


def parts_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a canonical message."""
    content = message.get("content") or []
    return [{"type": TEXT, TEXT: content}] if isinstance(content, str) else content


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": TEXT, TEXT: part}
    if not isinstance(part, dict):
        raise ValueError("a part must be an object with a type, or a string")
    kind = part.get("type") or next((name for name in _KNOWN if name in part), None)
    kind = _ALIASES.get(str(kind), kind)
    if kind == TEXT:
        return {**_extra_fields(part), "type": TEXT, TEXT: _text(part)}
    if kind == IMAGE:
        return _image(part)
    if kind in _BY_URL:
        return {"type": kind, kind: {"url": _data(_url(part, kind), kind)}}
    if kind == EMBEDDINGS:
        return {"type": EMBEDDINGS, EMBEDDINGS: _embeddings(part.get(EMBEDDINGS))}
    if kind in _HANDED_ON:
        return {"type": kind, kind: part.get(kind)}
    if kind == TOOL:
        return {"type": TOOL, "name": part.get("name")}
    raise ValueError(f"a part of type {kind!r} can't be read; there are {', '.join(_KNOWN)}")


def _image(part: dict[str, Any]) -> dict[str, Any]:
    """Return an image's part; one that has a uuid alone was sent before."""
    uuid, value = part.get("uuid"), part.get(IMAGE)
    if uuid is None:
        return {"type": IMAGE, IMAGE: {"url": _url(part, IMAGE)}}
    if not isinstance(uuid, str) or not 0 < len(uuid) <= _LONGEST_UUID:
        raise ValueError(f"a part's uuid must be a string of 1 to {_LONGEST_UUID} characters")
    is_named = IMAGE in part and (value is None or (isinstance(value, dict) and value.get("url") is None))
    return {"type": IMAGE, IMAGE: {"url": None if is_named else _url(part, IMAGE)}, "uuid": uuid}


def _embeddings(value: Any) -> Any:
    """Return embeddings as vLLM reads them: a tensor in base64, or several by name, with lists of numbers beside."""
    if isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get(EMBEDDINGS), str)):
        return value
    raise ValueError("image_embeds must be a tensor in base64, or an object with one as its image_embeds")


def _extra_fields(part: dict[str, Any]) -> dict[str, Any]:
    """Return what else a text part carries for the chat template: plain values. Raises ValueError over media."""
    told = {name: value for name, value in part.items() if name not in ("type", TEXT, "cache_control")}
    extra = {name: value for name, value in told.items() if value is not None and value not in ([], {})}
    if media := next((name for name in extra if _MEDIA_FIELD.fullmatch(name)), None):
        raise ValueError(f"a text part can't carry {media!r}: send it as a part of its own")
    return {name: value for name, value in extra.items() if isinstance(value, str | int | float | bool)}


def _text(part: dict[str, Any]) -> str:
    text = part.get(TEXT)
    if not isinstance(text, str):
        raise ValueError("a text part has no text in it")
    return text


def _url(part: dict[str, Any], kind: str) -> str:
    value = part.get(kind)
    url = value.get("url") if isinstance(value, dict) else value
    if not isinstance(url, str):
        raise ValueError(f"a part of type {kind} has no {kind} with a url in it")
    return url


def _data(url: str, kind: str) -> str:
    if url[:15].lower() == "data:video/jpeg":  # which vLLM would open without a limit on pixels
        raise ValueError("a video_url can't be single frames (data:video/jpeg): send them as images")
    if not url[:5].lower() == "data:":
        raise ValueError(f"an {kind} must be a data: URL; only images are fetched")
    return url
