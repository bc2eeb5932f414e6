"""Logging: one line an event with its request's id, as text or JSON; images never, and texts only where asked for."""

import json
import logging
import sys
import time
import warnings
from collections.abc import Set
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dualfocus_server.telemetry.request_ids import request_id

_ACCESS = logging.getLogger("dualfocus.access")
# vLLM's, of prompts and answers (--enable-log-requests, --enable-log-outputs); all else of vLLM's is from WARNING on.
_TEXTS = logging.getLogger("vllm.entrypoints.serve.utils.request_logger")


class _WithRequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get() or "-"
        return True


class JsonLines(logging.Formatter):
    """Each record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": getattr(record, "request_id", "-"),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)  # in ASCII: nothing in it can end a line


def configure(form: str, level: str, access: bool = True, texts: bool = False) -> None:
    """Set up the process's logging: `form` is text or json, `level` one of uvicorn's, `access` logs requests.

    `texts` logs what vLLM does of prompts and answers.

    vLLM sets up its own when its engine starts; called again after that, its lines are the server's once more.
    """
    _ACCESS.disabled = not access
    _TEXTS.setLevel(logging.NOTSET)
    if texts and not _TEXTS.isEnabledFor(logging.INFO):
        _TEXTS.setLevel(logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_WithRequestId())
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else text)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel("DEBUG" if level == "trace" else level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "vllm"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # Their every step is not an operator's business; where clients' images are and what they are like is theirs.
    for name in ("httpx", "httpcore", "PIL", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="PIL")


class AccessLog:
    """ASGI middleware: one log line for each request that was answered, but those of some paths."""

    def __init__(self, app: ASGIApp, unlogged: Set[str] = frozenset()) -> None:
        self._app = app
        self._unlogged = unlogged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 0

        async def note_status(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            if scope["type"] == "http" and scope["path"] not in self._unlogged:
                log_access(scope["method"], scope["path"], status, time.perf_counter() - started)


def log_access(method: str, path: str, status: int, seconds: float) -> None:
    """Log one request that was answered; a status of 0 says that nothing was sent."""
    path = quote(path)  # a path can hold line breaks
    fields = {"method": method, "path": path, "status": status, "seconds": round(seconds, 4)}
    _ACCESS.info("%s %s %d in %.3f s", method, path, status, seconds, extra={"fields": fields})
