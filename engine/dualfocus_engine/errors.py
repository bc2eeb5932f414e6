"""What can go wrong with a question, without a word about transport.

DualFocusError
├── BadPicture     the image can't be read, or is not fetched
├── BadQuestion    the question can't be asked this way (no picture, a sampling parameter vLLM refuses, …)
├── ConfigError    the model can't be served this way (a flag, a profile, a key file)
├── ContextFull    the prompt leaves no room for an answer
└── EngineDead     vLLM stopped: no question can be answered any more
"""

from enum import StrEnum


class ErrorKind(StrEnum):
    """Stable names of the errors: the `code` of a response."""

    BAD_PICTURE = "invalid_image"
    BAD_QUESTION = "invalid_value"
    BAD_CONFIG = "invalid_configuration"
    CONTEXT_FULL = "context_length_exceeded"
    ENGINE_DEAD = "engine_dead"


class DualFocusError(Exception):
    """Base of all errors raised on purpose; `str(error)` is fit for the client's eyes."""

    kind: ErrorKind


class BadPicture(DualFocusError):
    """The bytes are no image that can be opened."""

    kind = ErrorKind.BAD_PICTURE


class BadQuestion(DualFocusError):
    """A value of the question is not acceptable; the message names it and what is accepted.

    `param` is the sampling parameter that vLLM refused, where it was one.
    """

    kind = ErrorKind.BAD_QUESTION

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ConfigError(DualFocusError):
    """The model can't be served this way; the message names the flag, file or field and what is accepted."""

    kind = ErrorKind.BAD_CONFIG


class ContextFull(DualFocusError):
    """A prompt of `length` tokens does not fit the model's context of `limit` tokens (or text, in characters)."""

    kind = ErrorKind.CONTEXT_FULL

    def __init__(self, length: int, limit: int, unit: str = "tokens") -> None:
        super().__init__(
            f"The prompt is {length} {unit} long and the model's context holds {limit}, the answer included. "
            "Shorten the conversation, send fewer images, or serve with a larger --max-model-len."
        )


class EngineDead(DualFocusError):
    """The engine stopped."""

    kind = ErrorKind.ENGINE_DEAD

    def __init__(self) -> None:
        super().__init__("The engine has stopped; no question can be answered until the server is restarted.")
