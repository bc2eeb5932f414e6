"""Why a request is refused, with its status: the errors of the server, beside those of the engine.

HttpError
├── Unauthorized   401  no key, or a wrong one
├── Forbidden      403  a key, but not an administrator's
├── TooSlow        408  the body did not arrive in time
├── TooLarge       413  the body is larger than the server takes
├── Encoded        415  the body is packed
├── TooBusy        429  no place for another question
├── TimedOut       504  the question took longer than it may
├── Stalled        504  a stream had no further token
├── Draining       503  the server is stopping
├── Asleep         503  the engine was put to sleep (what `/ready` says; questions wait)
└── EngineBusy     503  the engine does not answer just now
"""

from http import HTTPStatus
from typing import ClassVar

# nginx's: the client is gone, only the access log sees it.
CLIENT_LEFT = 499


class HttpError(Exception):
    """Base of all refusals; `str(refusal)` is fit for the client's eyes."""

    status: ClassVar[HTTPStatus]
    code: ClassVar[str]
    retry_after: ClassVar[int | None] = None  # seconds


class Unauthorized(HttpError):
    """No key was given, or one that is not known."""

    status, code = HTTPStatus.UNAUTHORIZED, "invalid_api_key"

    def __init__(self, advice: str = "") -> None:
        super().__init__(f"Give a valid API key: Authorization: Bearer KEY.{advice}")


class Forbidden(HttpError):
    """The key that was given is not an administrator's."""

    status, code = HTTPStatus.FORBIDDEN, "admin_key_needed"

    def __init__(self) -> None:
        super().__init__("This route is for the keys of --admin-api-key; the one that was given is none of them.")


class TooSlow(HttpError):
    """The body did not arrive in time."""

    status, code = HTTPStatus.REQUEST_TIMEOUT, "body_too_slow"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The body did not arrive within {seconds:g} s.")


class TooLarge(HttpError):
    """The body is larger than the server takes."""

    status, code = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is larger than the {limit} bytes the server takes (--max-body-bytes).")


class Encoded(HttpError):
    """The body is packed, or encoded in some other way."""

    status, code = HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding"

    def __init__(self, encoding: str) -> None:
        super().__init__(
            f"The body has Content-Encoding: {encoding}. Only identity is accepted: send it as plain JSON."
        )


class TooBusy(HttpError):
    """There is no place for another question."""

    status, code, retry_after = HTTPStatus.TOO_MANY_REQUESTS, "too_busy", 1

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}. Try again in a moment.")


class TimedOut(HttpError):
    """The question took longer than the server's limit; its turns were aborted."""

    status, code = HTTPStatus.GATEWAY_TIMEOUT, "timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The question took longer than {seconds:g} s and was stopped.")


class Stalled(HttpError):
    """A stream that vLLM's own serving writes had no further token within the server's limit; it was aborted."""

    status, code = HTTPStatus.GATEWAY_TIMEOUT, "timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"No further token came within {seconds:g} s, and the answer was stopped.")


class Draining(HttpError):
    """The server is stopping and takes no new questions."""

    status, code, retry_after = HTTPStatus.SERVICE_UNAVAILABLE, "shutting_down", 5

    def __init__(self) -> None:
        super().__init__("The server is shutting down and takes no new questions.")


class Asleep(HttpError):
    """The engine was put to sleep by an administrator."""

    status, code, retry_after = HTTPStatus.SERVICE_UNAVAILABLE, "asleep", 5

    def __init__(self) -> None:
        super().__init__("The engine sleeps: questions wait until an administrator wakes it (/wake_up).")


class EngineBusy(HttpError):
    """The engine does not answer just now; it may be starting on something large, or hang."""

    status, code, retry_after = HTTPStatus.SERVICE_UNAVAILABLE, "engine_busy", 1

    def __init__(self) -> None:
        super().__init__("The engine does not answer just now.")
