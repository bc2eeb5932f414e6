"""What `dualfocus serve` does once vLLM is imported: flags, engine, server."""

import asyncio
import base64
import io
import json
import logging
import socket
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import uvicorn
import uvloop
from dualfocus_engine import DualFocus, DualFocusError, EngineDead
from dualfocus_engine.platform import engine_defaults
from dualfocus_engine.starter import STARTER_NAME
from fastapi import FastAPI
from PIL import Image, ImageDraw
from starlette.middleware.cors import CORSMiddleware
from vllm.config.logging import LoggingConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.entrypoints.launchers.launcher import create_server_socket
from vllm.utils.argparse_utils import FlexibleArgumentParser

from dualfocus_server.admission import Admission
from dualfocus_server.app import create_app, traced
from dualfocus_server.chat import Service
from dualfocus_server.connections import HEAD_BYTES, Connection, allow_many
from dualfocus_server.keys import KeyRing
from dualfocus_server.lifecycle import Server, engine_failure
from dualfocus_server.logs import configure
from dualfocus_server.media import ImageSource
from dualfocus_server.metrics import watch_unfinished_turns
from dualfocus_server.progress import say, step
from dualfocus_server.request_ids import HEADER
from dualfocus_server.settings import Settings, add_flags, settings_of
from dualfocus_server.vllm_chat import VllmChat

logger = logging.getLogger(__name__)

# Seconds that open connections get once no question is left.
_GRACE = 2

# Flags of vLLM's server that would be taken in silence and do nothing.
_NOT_TAKEN = ("uds", "middleware", "grpc_port", "enable_ssl_refresh", "disable_access_log_for_endpoints")

_DESCRIPTION = """Serve a vision-language model that looks twice, behind OpenAI's chat completions API.
Takes every flag of `vllm serve` beside its own; --help=all shows them, --help=PART those of a part."""


def parse_arguments(argv: Sequence[str]) -> Namespace:
    """Read the command line (and the YAML file of --config); exits with a message on a bad one."""
    # A flag of vLLM's that the server defines anew (--api-key) is the server's.
    parser = FlexibleArgumentParser(prog="dualfocus serve", description=_DESCRIPTION, conflict_handler="resolve")
    parser.add_argument("model_tag", nargs="?", help="a folder or hub name; the model to start with if left out")
    parser.add_argument("--config", help="a YAML file of options; the command line goes before it")
    ours = parser.add_argument_group("DualFocus")
    ours.add_argument("--profile", help="a profile's name or YAML file (default: the model's own)")
    ours.add_argument("--log-format", choices=["text", "json"], default="text", help="log lines as text or as JSON")
    FrontendArgs.add_cli_args(parser)
    AsyncEngineArgs.add_cli_args(parser)
    add_flags(parser)
    parser.set_defaults(**engine_defaults())
    args: Namespace = parser.parse_args(list(argv))
    for name in _NOT_TAKEN:
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} is a flag of vLLM's own server that this one does not take")
    return args


def run(args: Namespace) -> int:
    """Serve until told to stop; returns the process's exit status."""
    try:
        return uvloop.run(_serve(args))
    except DualFocusError as error:
        say(f"error: {error}")
        return 1


def _configure_logs(args: Namespace) -> None:
    configure(args.log_format, args.uvicorn_log_level, access=not args.disable_uvicorn_access_log)


async def _serve(args: Namespace) -> int:
    _configure_logs(args)
    allow_many()
    settings = settings_of(args)
    # What is wrong with a flag is said before a model is loaded.
    images, keys = _image_source(settings), _key_ring(settings)
    focus = DualFocus(args.model_tag, args.profile, **_engine_flags(args))
    _complete(args, focus)
    if focus.profile.notice:
        say(f"note: {focus.profile.notice}")
    listener = _bind(args)  # before the model is loaded: a port in use is said at once
    with step(f"Loading {args.served_model_name[0]}"):
        focus.start()
    try:
        _configure_logs(args)  # vLLM has set up its own
        with step("Warming up"):
            await focus.warm_up()
        return await _answer_requests(focus, args, settings, images, keys, listener)
    finally:
        focus.stop()


def _image_source(settings: Settings) -> ImageSource:
    return ImageSource(
        settings.allowed_media_domains,
        max_bytes=settings.max_image_bytes,
        max_pixels=settings.max_image_pixels,
        timeout=settings.image_timeout or None,
    )


def _key_ring(settings: Settings) -> KeyRing:
    try:
        return KeyRing(settings.api_keys, settings.api_key_file)
    except OSError as error:
        raise SystemExit(f"error: --api-key-file {settings.api_key_file}: {error.strerror}") from error


async def _answer_requests(
    focus: DualFocus,
    args: Namespace,
    settings: Settings,
    images: ImageSource,
    keys: KeyRing,
    listener: socket.socket,
) -> int:
    watch_unfinished_turns(lambda: focus.engine.unfinished)
    admission = Admission(settings.max_questions, settings.max_queued, settings.max_questions_per_key)
    chat = await VllmChat.on(focus.engine.llm, args)
    app = create_app(Service(focus, chat, images, admission, settings.timeout), settings, keys)
    _let_browsers_in(app, args)
    server = Server(_uvicorn_config(app, args), admission, settings.drain_timeout, lambda: _say_ready(listener))
    try:
        failing = asyncio.create_task(engine_failure(focus.engine, settings.engine_timeout))
        return await _serve_until(failing, server, focus, admission, listener)
    finally:
        await images.close()


def _let_browsers_in(app: FastAPI, args: Namespace) -> None:
    """Answer pages of other origins, where the operator names some."""
    if args.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=args.allowed_origins,
            allow_credentials=args.allow_credentials,
            allow_methods=args.allowed_methods,
            allow_headers=args.allowed_headers,
            expose_headers=[HEADER],
        )


async def _serve_until(
    failing: asyncio.Task[str], server: Server, focus: DualFocus, admission: Admission, listener: socket.socket
) -> int:
    """Serve until told to stop (0), or until the engine fails (1): then every question in flight is told so."""
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.wait({serving, failing}, return_when=asyncio.FIRST_COMPLETED)
    if not failing.done():
        failing.cancel()
        return 0
    logger.critical("%s The server stops, to be started again by its supervisor.", failing.result())
    admission.end(EngineDead())
    focus.engine.give_up()
    server.should_exit = True
    await serving
    return 1


def _say_ready(listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
    say(f"\nDualFocus is ready on {address}. Ask it something:\n\n{example_curl(address)}\n")


def _engine_flags(args: Namespace) -> dict[str, Any]:
    """Return vLLM's engine arguments among the flags."""
    names = {field.name for field in fields(AsyncEngineArgs)} - {"model"}
    flags = {name: value for name, value in vars(args).items() if name in names}
    # Images are fetched by the server alone, by its own rules.
    flags["allowed_media_domains"] = ["nothing.invalid"]
    if args.log_format == "json":
        flags.setdefault("logging_config", LoggingConfig(formatter="json"))  # for the engine's processes
    # DualFocus brings its own connector, which counts encoder runs; a given one goes before it.
    return {name: value for name, value in flags.items() if name != "ec_transfer_config" or value}


def _complete(args: Namespace, focus: DualFocus) -> None:
    """Fill in what vLLM's servings read from the flags."""
    args.model = focus.model
    args.chat_template = args.chat_template or focus.profile.chat_template
    args.served_model_name = args.served_model_name or [args.model_tag or STARTER_NAME]
    # The answers of both paths count cached tokens.
    args.enable_prompt_tokens_details = True


def _bind(args: Namespace) -> socket.socket:
    """Take the port without listening on it yet: whoever probes it is refused until there are answers."""
    try:
        listener: socket.socket = create_server_socket((args.host or "", args.port), reuse_port=False)
    except OSError as error:
        raise SystemExit(f"error: {args.host or 'any address'}, port {args.port}: {error.strerror}") from error
    return listener


def _uvicorn_config(app: Any, args: Namespace) -> uvicorn.Config:
    return uvicorn.Config(
        traced(app),
        http=Connection,
        h11_max_incomplete_event_size=HEAD_BYTES,
        ws="none",
        log_config=None,  # `logs.configure` set up the process's
        access_log=False,  # the server's own has the request's id
        timeout_graceful_shutdown=_GRACE,
        root_path=args.root_path or "",
        ssl_keyfile=args.ssl_keyfile,
        ssl_certfile=args.ssl_certfile,
        ssl_ca_certs=args.ssl_ca_certs,
        ssl_cert_reqs=args.ssl_cert_reqs,
    )


def example_curl(address: str) -> str:
    """Return a request that works when pasted into a shell: a small picture and a question."""
    picture = Image.new("P", (96, 64), 0)
    picture.putpalette([255, 255, 255, 200, 30, 30])
    ImageDraw.Draw(picture).ellipse((20, 12, 60, 52), fill=1)
    png = io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    url = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "What shape is red?"},
    ]
    body = json.dumps({"messages": [{"role": "user", "content": content}]})
    return f"curl -s {address}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"
