"""API keys: from flags, the environment and a file that may change while the server runs."""

import hashlib
import hmac
import logging
from collections.abc import Iterable
from pathlib import Path

from dualfocus_engine import ConfigError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from dualfocus_server.guards.api_errors import route_of, to_api_error
from dualfocus_server.guards.http_errors import Unauthorized

logger = logging.getLogger(__name__)

# Probes come without a key.
_OPEN = ("/health", "/ready", "/ping")
# For the operator whose Prometheus has no key.
_ADVICE = {"/metrics": " The server's flag --metrics-open lets /metrics be read without one."}


class KeyRing:
    """Knows the valid keys by their digests, and compares in constant time.

    Raises ConfigError where a key is blank (a variable that is not set, say: no key at all would leave the server
    open) or the file is not UTF-8 text, OSError where it can't be read.
    """

    def __init__(self, keys: Iterable[str] = (), file: Path | None = None) -> None:
        self._fixed = [_digest(_not_blank(key)) for key in keys]
        self._file = file
        self._stamp: tuple[int, int] | None = None
        self._from_file: list[bytes] = []
        self._why_unread: str | None = None
        if file is not None:
            # First the stamp: what changes while the file is read is then read again.
            self._stamp = _stamp_of(file)
            self._from_file = _read(file)

    @property
    def is_needed(self) -> bool:
        """Whether any key was set: then every request needs one, also while the file is empty."""
        return bool(self._fixed) or self._file is not None

    def authenticate(self, headers: Headers) -> str | None:
        """Name the client by its key's digest, or None where the key is missing or wrong.

        Anthropic's clients have a header of their own for it.
        """
        scheme, _, key = headers.get("authorization", f"Bearer {headers.get('x-api-key', '')}").partition(" ")
        given = _digest(key.strip())
        self._refresh()
        known = [hmac.compare_digest(given, valid) for valid in (*self._fixed, *self._from_file)]
        return given.hex()[:16] if scheme.lower() == "bearer" and any(known) else None

    def _refresh(self) -> None:
        """Read the file again where it changed; keep the keys there were where it can't be read."""
        if self._file is None:
            return
        try:
            if (stamp := _stamp_of(self._file)) != self._stamp:
                self._from_file, self._stamp = _read(self._file), stamp
            self._why_unread = None
        except (OSError, ConfigError) as error:
            why = str(error.strerror if isinstance(error, OSError) else error)
            if why != self._why_unread:  # once, not with every request
                logger.warning("The API key file can't be read (%s); the keys read before stay valid.", why)
            self._why_unread = why


def client_of(raw_request: Request) -> str:
    """Return the client whose key a request has; without keys, everybody."""
    return str(raw_request.scope.get("client_id", ""))


def _not_blank(key: str) -> str:
    if not key.strip():
        raise ConfigError(
            "An API key is empty (an unset variable, a comma too many?). Give a key, or no --api-key at all."
        )
    return key.strip()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _read(file: Path) -> list[bytes]:
    try:
        text = file.read_text(encoding="utf-8-sig")  # editors may begin a file with a mark of its encoding
    except UnicodeError as error:
        raise ConfigError(f"The API key file {file} is not UTF-8 text.") from error
    lines = (line.strip() for line in text.splitlines())
    return [_digest(line) for line in lines if line and not line.startswith("#")]


def _stamp_of(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


class KeyCheck:
    """ASGI middleware: lets in who has a key, and notes whose it is (`scope["client_id"]`).

    Probes need none, nor do the routes `also_open`. An administrator's key is one too, and noted (`scope["is_admin"]`).
    """

    def __init__(self, app: ASGIApp, ring: KeyRing, admins: KeyRing, also_open: Iterable[str] = ()) -> None:
        self._app = app
        self._ring = ring
        self._admins = admins
        self._open = {*_OPEN, *also_open}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        admin_id = self._admins.authenticate(Headers(scope=scope)) if scope["type"] == "http" else None
        scope["is_admin"] = admin_id is not None
        if scope["type"] == "http" and self._ring.is_needed and route_of(scope) not in self._open:
            client_id = self._ring.authenticate(Headers(scope=scope)) or admin_id
            if client_id is None:
                advice = _ADVICE.get(route_of(scope), "")
                refusal = to_api_error(Unauthorized(advice)).response(scope)
                refusal.headers["WWW-Authenticate"] = "Bearer"
                await refusal(scope, receive, send)
                return
            scope["client_id"] = client_id
        await self._app(scope, receive, send)
