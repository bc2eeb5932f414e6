"""What a client may ask of how an answer is drawn, besides what vLLM checks by itself."""

from collections.abc import Iterator
from typing import Any, Self

from pydantic import BaseModel, field_validator, model_validator
from pydantic_core import from_json

from dualfocus_server.guards.json_limits import FieldError

# OpenAI's own limit.
_MAX_CHOICES = 128
_MAX_LENGTH_PENALTY = 10
# Tokenized before they are counted, on the event loop.
_MAX_BAD_CHARACTERS = 10_000
# To hold an object to a number of properties, grammars take time and memory with the cube of those it names.
_MAX_COUNTED_PROPERTIES = 200
_COUNTS_PROPERTIES = ("minProperties", "maxProperties")
# Names in `vllm_xargs` that vLLM's engine (or ours, by the beginning) reads for itself: not a client's to write.
_RESERVED_XARGS = ("kv_transfer_params", "ec_transfer_params", "kv_cache_report_mode")
_OUR_XARGS = "dualfocus"


def _read_schemas(body: Any) -> Any:
    """The body with the schema that it has as a text; what can't be read is judged by vLLM."""
    asked = body.get("structured_outputs") if isinstance(body, dict) else None
    text = asked.get("json") if isinstance(asked, dict) else None
    if not isinstance(text, str):
        return body
    try:
        return [body, from_json(text)]
    except ValueError:
        return body


def _counted_properties(body: Any) -> Iterator[int]:
    """Yield how many properties each schema anywhere in a body names that says how many there may be."""
    left = [body]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            named = value.get("properties")
            if isinstance(named, dict) and any(name in value for name in _COUNTS_PROPERTIES):
                yield len(named)
        left += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


class Sampled(BaseModel):
    """What every request has in common that something is generated for."""

    @field_validator("vllm_xargs", mode="before", check_fields=False)
    @classmethod
    def _reserves_names(cls, xargs: Any) -> Any:
        for name in xargs if isinstance(xargs, dict) else ():
            if name in _RESERVED_XARGS or str(name).startswith(_OUR_XARGS):
                raise ValueError(f"{name!r} is reserved for the engine; vllm_xargs takes what logits processors read")
        return xargs

    @model_validator(mode="before")
    @classmethod
    def _has_an_object(cls, body: Any) -> Any:
        if isinstance(body, dict) and not isinstance(body.get("structured_outputs"), dict | None):
            raise FieldError("structured_outputs must be an object", "structured_outputs")
        return body

    @model_validator(mode="before")
    @classmethod
    def _has_simple_schemas(cls, body: Any) -> Any:
        named = sum(_counted_properties(_read_schemas(body)))
        if named > _MAX_COUNTED_PROPERTIES:
            limit = f"{named:,} properties under {' or '.join(_COUNTS_PROPERTIES)}"
            raise FieldError(f"the body's schemas have {limit}; {_MAX_COUNTED_PROPERTIES} are the most", None)
        return body

    @field_validator("bad_words", mode="before", check_fields=False)
    @classmethod
    def _has_short_words(cls, words: Any) -> Any:
        found = sum(len(word) for word in words if isinstance(word, str)) if isinstance(words, list) else 0
        if found > _MAX_BAD_CHARACTERS:
            raise ValueError(f"bad_words have {found:,} characters; {_MAX_BAD_CHARACTERS:,} are the most")
        return words

    @model_validator(mode="after")
    def _has_few_choices(self) -> Self:
        if not 1 <= (getattr(self, "n", None) or 1) <= _MAX_CHOICES:
            raise FieldError(f"n must be 1 to {_MAX_CHOICES}", "n")
        return self

    @model_validator(mode="after")
    def _has_scores_of_beams(self) -> Self:
        """Keep lengths to a power of them that is a number: vLLM divides by it."""
        penalty = getattr(self, "length_penalty", None) or 0.0
        if getattr(self, "use_beam_search", False) and not abs(penalty) <= _MAX_LENGTH_PENALTY:
            limits = f"{-_MAX_LENGTH_PENALTY} to {_MAX_LENGTH_PENALTY}"
            raise FieldError(f"length_penalty must be {limits} with use_beam_search", "length_penalty")
        return self
