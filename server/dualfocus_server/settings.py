"""The server's own flags: keys, page, limits, times. The engine's and the method's are in `startup/arguments.py`."""

import argparse
import importlib
import inspect
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualfocus_engine import ConfigError
from dualfocus_engine.pictures.formats import FORMATS, MAX_DECODING_BYTES, MAX_PIXELS

_KEYS_VARIABLE = "DUALFOCUS_API_KEY"
_ADMIN_KEYS_VARIABLE = "DUALFOCUS_ADMIN_API_KEY"
# Whoever guarded `vllm serve` with it stays guarded.
_VLLM_KEY_VARIABLE = "VLLM_API_KEY"
_IDLE_VARIABLE = "VLLM_HTTP_TIMEOUT_KEEP_ALIVE"
_STORE_VARIABLE = "VLLM_ENABLE_RESPONSES_API_STORE"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the HTTP side of `dualfocus serve` was told; times in seconds. `_LIMITS` says what 0 means for each.

    `root_path` is the prefix that a proxy shows the server under: `/llm`, or nothing. `cors` are the arguments of
    Starlette's CORSMiddleware, None where no other origin is answered.
    """

    api_keys: tuple[str, ...] = ()
    api_key_file: Path | None = None
    admin_api_keys: tuple[str, ...] = ()
    admin_api_key_file: Path | None = None
    metrics_open: bool = False
    playground: bool = True
    docs: bool = True
    offline_docs: bool = False
    middleware: tuple[Any, ...] = ()
    unlogged_paths: frozenset[str] = frozenset()
    tokenizer_info: bool = False
    store_responses: bool = False
    root_path: str = ""
    allowed_media_domains: tuple[str, ...] = ()
    allowed_media_networks: tuple[str, ...] = ()
    image_timeout: float = 10.0
    max_images: int = 16
    max_image_bytes: int = 32 << 20
    max_image_pixels: int = MAX_PIXELS
    max_decoding_bytes: int = MAX_DECODING_BYTES
    image_formats: tuple[str, ...] = FORMATS
    max_body_bytes: int = 64 << 20
    body_timeout: float = 60.0
    # Longer than load balancers keep one (60 s in nginx and at AWS): what they take from their pools is open.
    idle_timeout: int = 120
    max_questions: int = 64
    max_queued: int = 256
    max_questions_per_key: int = 0
    timeout: float = 120.0
    sse_keep_alive_interval: int = 0
    list_modes: bool = False
    answers_log: Path | None = None
    drain_timeout: float = 30.0
    engine_timeout: float = 60.0
    cors: dict[str, Any] | None = None

    @property
    def most_of_a_client(self) -> int:
        """Questions that one client may have, running and waiting."""
        most = self.max_questions + self.max_queued
        return min(most, self.max_questions_per_key or most)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the server's flags to a parser; a flag of the same name goes to this one."""
    known = Settings()
    parser.add_argument_group("Processes").add_argument(
        *("--api-server-count", "-asc"),
        type=at_least(1, int),
        default=1,
        metavar="N",
        help="processes that answer requests, before one engine",
    )
    _add_key_flags(parser.add_argument_group("Keys"))
    page = parser.add_argument_group("Page")
    page.add_argument("--no-playground", dest="playground", action="store_false", help="serve no page at /playground")
    models = parser.add_argument_group("Models")
    models.add_argument(
        "--list-modes", action="store_true", help="list the names that choose a mode (NAME:macro, …) at /v1/models too"
    )
    answers = parser.add_argument_group("Answers log")
    answers.add_argument(
        "--answers-log",
        type=Path,
        metavar="FILE",
        help="append a JSON line for each question, with both answers, their perplexities and the box, to a file that "
        "only its owner can read; opened anew on SIGHUP",
    )
    hosts = parser.add_argument_group("Images from URLs")
    hosts.add_argument(
        "--allowed-media-networks",
        nargs="+",
        default=[],
        metavar="CIDR",
        help="networks of one's own (10.0.0.0/8) that images are fetched from, for hosts that --allowed-media-domains "
        "names exactly",
    )
    limits = parser.add_argument_group("Limits")
    limits.add_argument(
        "--image-formats",
        nargs="+",
        type=str.upper,
        choices=FORMATS,
        default=FORMATS,
        metavar="FORMAT",
        help=f"formats of images that are read: {', '.join(FORMATS)}",
    )
    for name, (least, text) in _LIMITS.items():
        default = getattr(known, name)
        flags = [f"--{name.replace('_', '-')}", *_VLLMS_NAMES.get(name, ())]
        limits.add_argument(*flags, type=at_least(least, type(default)), default=default, help=text)


def _add_key_flags(keys: argparse._ArgumentGroup) -> None:
    keys.add_argument(
        "--api-key", action="extend", nargs="+", help=f"valid API keys; also {_KEYS_VARIABLE}, {_VLLM_KEY_VARIABLE}"
    )
    keys.add_argument("--api-key-file", type=Path, help="a file of valid keys, one a line, read again when it changes")
    keys.add_argument(
        "--admin-api-key",
        action="extend",
        nargs="+",
        help="keys of administrators: to load adapters, to profile, and for vLLM's development mode, where those "
        f"are turned on; also {_ADMIN_KEYS_VARIABLE}",
    )
    keys.add_argument("--admin-api-key-file", type=Path, help="a file of such keys, as --api-key-file")
    keys.add_argument("--metrics-open", action="store_true", help="let /metrics be read without a key")


# The least value of each flag, and its help.
_LIMITS = {
    "image_timeout": (0, "seconds for fetching an image (0: no limit)"),
    "max_images": (1, "images of a request"),
    "max_image_bytes": (1, "bytes of an encoded image"),
    "max_image_pixels": (1, "pixels of a request's images together, judged before any is decoded"),
    "max_decoding_bytes": (
        1,
        "bytes that images being decoded take in memory together, and as many those that vLLM is handed; others wait",
    ),
    "max_body_bytes": (1, "bytes of a request's body"),
    "body_timeout": (0, "seconds for a request's body to arrive (0: no limit)"),
    "max_questions": (1, "questions worked on at once"),
    "max_queued": (0, "questions waiting for their turn; one more is refused with 429 (0: none waits)"),
    "max_questions_per_key": (0, "questions of one client, worked on or waiting (0: no limit)"),
    "timeout": (
        0,
        "seconds for a question by two looks, and for the next token of a stream of vLLM's own (0: no limit)",
    ),
    "sse_keep_alive_interval": (0, "seconds of silence after which a stream is sent a comment line (0: never)"),
    "drain_timeout": (0, "seconds that running questions get to finish after SIGTERM (0: none)"),
    "engine_timeout": (0, "seconds without a step, while there is work, until the engine counts as dead (0: never)"),
}
# Flags of `vllm serve` that mean the same.
_VLLMS_NAMES = {"drain_timeout": ("--shutdown-timeout",)}


def at_least(least: int, kind: type[int] | type[float]) -> Any:
    def convert(text: str) -> int | float:
        number = kind(text)
        if math.isnan(number):
            raise argparse.ArgumentTypeError(f"{text} is not a number")
        if number < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return number

    convert.__name__ = kind.__name__
    return convert


def settings_of(args: argparse.Namespace) -> Settings:
    """Return the settings among parsed flags; keys also come from the environment. Raises ConfigError."""
    return Settings(
        api_keys=tuple(args.api_key or _keys_of_environment()),
        api_key_file=args.api_key_file,
        admin_api_keys=tuple(args.admin_api_key or _split(_ADMIN_KEYS_VARIABLE)),
        admin_api_key_file=args.admin_api_key_file,
        metrics_open=args.metrics_open,
        playground=args.playground,
        docs=not args.disable_fastapi_docs,
        offline_docs=args.enable_offline_docs,
        middleware=tuple(map(_import_middleware, args.middleware)),
        unlogged_paths=frozenset(re.findall(r"[^,\s]+", args.disable_access_log_for_endpoints or "")),
        tokenizer_info=args.enable_tokenizer_info_endpoint,
        root_path=_prefix_of(args.root_path),
        allowed_media_domains=tuple(args.allowed_media_domains or ()),
        allowed_media_networks=tuple(args.allowed_media_networks),
        image_formats=tuple(args.image_formats),
        cors=_cors_of(args),
        list_modes=args.list_modes,
        answers_log=args.answers_log,
        idle_timeout=_idle_timeout_of_environment(),
        store_responses=_stores_responses(),
        **{name: getattr(args, name) for name in _LIMITS},
    )


def _import_middleware(name: str) -> Any:
    """Return the ASGI middleware of a name: a class, or a coroutine function. Raises ConfigError."""
    module, _, member = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), member)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"--middleware {name} can't be imported: {error}") from error
    if not (inspect.isclass(found) or inspect.iscoroutinefunction(found)):
        raise ConfigError(f"--middleware {name} is neither a class nor a coroutine function.")
    return found


def _prefix_of(root_path: str | None) -> str:
    """Return a prefix as paths begin with it, however its slashes were written."""
    bare = (root_path or "").strip("/")
    return f"/{bare}" if bare else ""


def _cors_of(args: argparse.Namespace) -> dict[str, Any] | None:
    """Return who else's pages are answered, and how: vLLM's flags of these names."""
    if not args.allowed_origins:
        return None
    return {
        "allow_origins": args.allowed_origins,
        "allow_credentials": args.allow_credentials,
        "allow_methods": args.allowed_methods,
        "allow_headers": args.allowed_headers,
    }


def _keys_of_environment() -> Sequence[str]:
    """Return our variable's keys, separated by commas, or vLLM's one key, which may have commas in it."""
    if ours := _split(_KEYS_VARIABLE):
        return ours
    theirs = os.environ.get(_VLLM_KEY_VARIABLE)
    return [theirs] if theirs else []


def _split(variable: str) -> list[str]:
    written = os.environ.get(variable)
    return written.split(",") if written else []


def _idle_timeout_of_environment() -> int:
    """Return vLLM's variable, in seconds. Raises ConfigError."""
    text = os.environ.get(_IDLE_VARIABLE, str(Settings().idle_timeout))
    try:
        seconds: int = at_least(0, int)(text)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise ConfigError(f"{_IDLE_VARIABLE}={text} can't be used: expected whole seconds, 0 or more.") from error
    return seconds


def _stores_responses() -> bool:
    """Return vLLM's variable, which is 0 or 1. Raises ConfigError."""
    text = os.environ.get(_STORE_VARIABLE, "0")
    try:
        return bool(int(text))
    except ValueError as error:
        raise ConfigError(f"{_STORE_VARIABLE}={text} can't be used: expected 0 or 1.") from error
