"""What a body may hold to be handed to the engine: text that is UTF-8, numbers of 64 bits, and not too many values."""

from collections.abc import Iterator
from typing import Any

LARGEST = 2**63 - 1
# Validating a value takes microseconds and a kilobyte, and the event loop waits for it.
MAX_VALUES = 100_000
# As deep as pydantic reads JSON; what goes through a body by recursion holds out longer.
MAX_DEPTH = 200


class FieldError(ValueError):
    """A value that is not taken; `field` says whose it is, in the client's words."""

    def __init__(self, message: str, field: str | None) -> None:
        super().__init__(message)
        self.field = field


def validate_json(body: Any) -> None:
    """Raise FieldError naming the first value of a JSON body that the engine's wire format can't carry."""
    for name, value in _leaves(body):
        if isinstance(value, str):
            _check_text(name, value)
        elif isinstance(value, int) and not -LARGEST - 1 <= value <= LARGEST:
            raise FieldError(f"{name or 'the body'} has a number of more than 64 bits", name or None)


def count_values(body: Any) -> int:
    """How many keys and plain values a body has that `validate_json` took."""
    return sum(1 for _ in _leaves(body))


def _check_text(name: str, text: str) -> None:
    if text.isascii():  # known without a look at it
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        surrogate = f"an unpaired surrogate (U+{ord(text[error.start]):04X})"
        message = f"{name or 'the body'} has {surrogate} in it, which is not valid text"
        raise FieldError(message, name or None) from error


def _leaves(body: Any) -> Iterator[tuple[str, Any]]:
    """Yield keys and plain values with the name of the outermost field they are in; no recursion, at any depth."""
    left: list[tuple[str, Any, int]] = [("", body, 0)]
    found = 0
    while left:
        name, value, depth = left.pop()
        found += len(value) if isinstance(value, dict | list) else 0
        if found > MAX_VALUES:
            raise FieldError(f"the body has more than {MAX_VALUES:,} values in it", None)
        if depth > MAX_DEPTH:
            raise FieldError(f"{name} has objects and lists nested more than {MAX_DEPTH} deep", name)
        if isinstance(value, dict):
            yield from ((name, key) for key in value)
            left += [(name or str(key), inner, depth + 1) for key, inner in value.items()]
        elif isinstance(value, list):
            left += [(name, inner, depth + 1) for inner in value]
        else:
            yield name, value
