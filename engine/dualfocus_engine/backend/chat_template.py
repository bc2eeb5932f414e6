"""The chat template that both ways through the server render with: the model's, with what its profile changes about it.

Put into the template, a profile's changes hold for vLLM's own chat serving too: both then see the same prompt.

Leans on these parts of vLLM 0.32 (tests/engine/test_vllm_contract.py): `resolve_chat_template`,
`resolve_chat_template_content_format`, `get_model_cls` with `get_placeholder_str`, `interleave_mm_strings`, and
`input_processor.generation_config_fields`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vllm.model_executor.model_loader import get_model_cls
from vllm.renderers.hf import resolve_chat_template, resolve_chat_template_content_format
from vllm.v1.engine.async_llm import AsyncLLM

from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.method.questions import Message, Text
from dualfocus_engine.pictures.pictures import Picture

_WITHOUT_SYSTEM = "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}"
_WITH_SYSTEM = (
    "{%% if not messages | selectattr('role', 'equalto', 'system') | list %%}"
    "{%% set messages = [{'role': 'system', 'content': %s}] + messages %%}{%% endif %%}"
)
_OPENING = "{{ bos_token }}"
# No template has it in its own words.
_PROBE = {"type": "text", "text": "aXqZa"}
# How configurations name the tokens that stand for pictures and films.
_MEDIA_TOKEN = re.compile(r"(image|video|vision).*token.*(id|index)$")


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """Jinja `text` (None: the model's own, wherever vLLM finds it) and how it takes a message's content.

    `pictures_first`: the model is shown a message's pictures before its text, whatever order they were sent in.
    `closing_token` ends an answer: of those that the model stops at, the one that the template writes behind it.
    """

    text: str | None
    content_format: str
    pictures_first: bool
    closing_token: int


def chat_template_of(llm: AsyncLLM, profile: Profile) -> ChatTemplate:
    """Return the template that a model is served with."""
    tokenizer, config = llm.renderer.get_tokenizer(), llm.model_config
    if not hasattr(tokenizer, "get_chat_template"):  # of a make that has no Jinja: nothing can be put before it
        content_format, eos = profile.chat_template_content_format, tokenizer.eos_token_id
        return ChatTemplate(profile.chat_template, content_format, pictures_first=False, closing_token=eos)
    own = resolve_chat_template(tokenizer, profile.chat_template, None, model_config=config)
    content_format = resolve_chat_template_content_format(
        profile.chat_template, None, profile.chat_template_content_format, tokenizer, model_config=config
    )
    before = _system(profile, content_format)
    if own is not None and _lacks_opening(tokenizer, before + own, content_format, profile):
        before = _OPENING + before
    if content_format == "string":
        pictures_first = not config.multimodal_config.interleave_mm_strings
    else:
        pictures_first = own is not None and _puts_pictures_first(tokenizer, before + own, profile)
    whole = before + own if before and own else profile.chat_template
    closing_token = _closing_token(llm, whole or own, content_format, profile)
    return ChatTemplate(whole, content_format, pictures_first, closing_token)


def _system(profile: Profile, content_format: str) -> str:
    """Return what goes before a template for the profile's way with system messages."""
    before = _WITHOUT_SYSTEM if profile.drop_system_messages else ""
    if profile.system is None:
        return before
    text = '"' + profile.system.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
    return before + _WITH_SYSTEM % (f"[{{'type': 'text', 'text': {text}}}]" if content_format == "openai" else text)


def _lacks_opening(tokenizer: Any, template: str, content_format: str, profile: Profile) -> bool:
    """Whether the tokenizer opens texts with a token that the template leaves out: models are trained with it."""
    opening = getattr(tokenizer, "bos_token", None)
    if not opening or tokenizer.encode("a")[:1] != [tokenizer.bos_token_id]:
        return False
    content = _written(_PROBE["text"], content_format)
    return not _rendered(tokenizer, template, content, profile).startswith(opening)


def _closing_token(llm: AsyncLLM, template: str | None, content_format: str, profile: Profile) -> int:
    """Return the token that closes an answer in a conversation that goes on, where the model stops at it; else its eos.

    Gemma and GLM name one for the end of texts as theirs (eos), and end their turns with another.
    """
    tokenizer = llm.renderer.get_tokenizer()
    named = llm.input_processor.generation_config_fields.get("eos_token_id")
    ends = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    words = (("user", "q"), ("assistant", _PROBE["text"]), ("user", "q"))
    conversation = [{"role": role, "content": _written(said, content_format)} for role, said in words]
    try:
        behind = _render(tokenizer, template, conversation, profile).rpartition(_PROBE["text"])[2]
    except Exception:  # a template raises what its author likes; a conversation can't be continued by it
        return int(tokenizer.eos_token_id)
    token = next(iter(tokenizer.encode(behind, add_special_tokens=False)), None)
    return int(tokenizer.eos_token_id if token is None or token not in ends else token)


def _written(text: str, content_format: str) -> Any:
    return [{"type": "text", "text": text}] if content_format == "openai" else text


def _puts_pictures_first(tokenizer: Any, template: str, profile: Profile) -> bool:
    """Whether a template that takes parts writes a message's pictures before its text, whatever their order."""
    contents: tuple[list[dict[str, str]], ...] = ([_PROBE], [_PROBE, {"type": "image"}])
    try:
        alone, with_picture = (
            _rendered(tokenizer, template, content, profile).find(_PROBE["text"]) for content in contents
        )
    except Exception:  # a template raises what its author likes; this one takes no such message
        return False
    return 0 <= alone < with_picture


def _rendered(tokenizer: Any, template: str, content: Any, profile: Profile) -> str:
    return _render(tokenizer, template, [{"role": "user", "content": content}], profile)


def _render(tokenizer: Any, template: str | None, conversation: list[dict[str, Any]], profile: Profile) -> str:
    text: str = tokenizer.apply_chat_template(
        conversation,
        chat_template=template,
        tokenize=False,
        add_generation_prompt=True,
        **profile.chat_template_kwargs,
    )
    return text


def placeholder_pattern(llm: AsyncLLM) -> "re.Pattern[str] | None":
    """Return what finds the words that stand for a picture or a film in the model's prompts; None where it has none."""
    words = sorted(set(_placeholders(llm)), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, words))) if words else None


def placeholder_tokens(llm: AsyncLLM) -> frozenset[int]:
    """Return the tokens that stand for a picture or a film in the model's prompts."""
    words = set(_placeholders(llm))
    return _media_tokens(llm) | {number for word, number in _added_tokens(llm).items() if word in words}


def _media_tokens(llm: AsyncLLM) -> frozenset[int]:
    named = vars(llm.model_config.hf_config).items()
    return frozenset(value for name, value in named if _MEDIA_TOKEN.search(name) and isinstance(value, int))


def _added_tokens(llm: AsyncLLM) -> dict[str, int]:
    return getattr(llm.renderer.get_tokenizer(), "get_added_vocab", dict[str, int])()


def _placeholders(llm: AsyncLLM) -> Iterator[str]:
    config, added, ids = llm.model_config, _added_tokens(llm), _media_tokens(llm)
    yield from (word for word, number in added.items() if number in ids)
    for modality in ("image", "video"):
        try:
            written = get_model_cls(config).get_placeholder_str(modality, 1)
        except ValueError:  # not of this model's
            continue
        if written:
            yield written
            yield from (word for word in added if word in written)


def known_tokens(renderer: Any, words: Sequence[str]) -> dict[int, str]:
    """Return those of some words that are tokens of the model's, by their numbers."""
    vocabulary = renderer.get_tokenizer().get_vocab() if words else {}
    return {vocabulary[word]: word for word in words if word in vocabulary}


def as_words(texts: Sequence[str], placeholders: "re.Pattern[str] | None") -> list[str]:
    """Return a message's texts in which placeholders are words, also where one is split over several of them."""
    if placeholders is None:
        return list(texts)
    said, before, longest = [], "", len(placeholders.pattern)
    for text in texts:
        words = _broken_up(text, placeholders)
        around = placeholders.finditer(before + words[:longest])
        ends = [found.end() - len(before) for found in around if found.start() < len(before) < found.end()]
        said.append(_parted(words, min(ends)) if ends else words)
        before = (before + said[-1])[-longest:]
    return said


def _parted(text: str, end: int) -> str:
    """Return a text with a space in its first `end` characters, which end a placeholder that an earlier one begins.

    Behind the first character where it can be: some templates trim each text.
    """
    return f"{text[0]} {text[1:]}" if end > 1 else f" {text}"


def in_words(value: Any, placeholders: "re.Pattern[str] | None") -> Any:
    """Return a value for the template (tools, calls) with the placeholders in its texts made words."""
    if isinstance(value, str):
        return as_words([value], placeholders)[0]
    if isinstance(value, Mapping):
        return {in_words(name, placeholders): in_words(held, placeholders) for name, held in value.items()}
    return [in_words(held, placeholders) for held in value] if isinstance(value, list | tuple) else value


def chat_message(message: Message, placeholders: "re.Pattern[str] | None") -> Any:
    """Write a message the way vLLM's chat rendering takes it: images by key only, their pixels come later."""
    words = iter(as_words([part.text for part in message.in_order if isinstance(part, Text)], placeholders))
    parts: list[dict[str, Any]] = []
    for part in message.in_order:
        if isinstance(part, Picture):
            parts.append({"type": "image_pil", "image_pil": None, "uuid": part.key})
        else:
            parts.append({**part.fields, "type": "text", "text": next(words)})
    return {**in_words(message.fields, placeholders), "role": message.role, "content": parts}


def _broken_up(text: str, placeholders: "re.Pattern[str]") -> str:
    """Return a text with a space after each placeholder's first character; one may be made of others."""
    return placeholders.sub(lambda found: f"{found[0][0]} {_broken_up(found[0][1:], placeholders)}", text)
