"""What `dualfocus serve` does once vLLM is imported: flags, engine, server."""

import asyncio
import base64
import io
import json
import signal
import socket
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import uvicorn
import uvloop
from dualfocus_engine import DualFocus, DualFocusError
from dualfocus_engine.platform import engine_defaults
from dualfocus_engine.starter import STARTER_NAME
from PIL import Image, ImageDraw
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.entrypoints.launchers.launcher import create_server_socket
from vllm.entrypoints.serve.middleware.register import init_entrypoints_middleware
from vllm.utils.argparse_utils import FlexibleArgumentParser

from dualfocus_server.app import Service, create_app
from dualfocus_server.media import ImageSource
from dualfocus_server.metrics import watch_unfinished_turns
from dualfocus_server.progress import say, step
from dualfocus_server.vllm_chat import VllmChat

_DESCRIPTION = """Serve a vision-language model that looks twice, behind OpenAI's chat completions API.
Takes every flag of `vllm serve` beside its own; --help=all shows them, --help=PART those of a part."""


def parse_arguments(argv: Sequence[str]) -> Namespace:
    """Read the command line (and the YAML file of --config); exits with a message on a bad one."""
    parser = FlexibleArgumentParser(prog="dualfocus serve", description=_DESCRIPTION)
    parser.add_argument("model_tag", nargs="?", help="a folder or hub name; the model to start with if left out")
    parser.add_argument("--config", help="a YAML file of options; the command line goes before it")
    ours = parser.add_argument_group("DualFocus")
    ours.add_argument("--profile", help="a profile's name or YAML file (default: the model's own)")
    FrontendArgs.add_cli_args(parser)
    AsyncEngineArgs.add_cli_args(parser)
    parser.set_defaults(**engine_defaults())
    args: Namespace = parser.parse_args(list(argv))
    return args


def run(args: Namespace) -> int:
    """Serve until told to stop; returns the process's exit status."""
    try:
        return uvloop.run(_serve(args))
    except DualFocusError as error:
        say(f"error: {error}")
        return 1


async def _serve(args: Namespace) -> int:
    focus = DualFocus(args.model_tag, args.profile, **_engine_flags(args))
    _complete(args, focus)
    if focus.profile.notice:
        say(f"note: {focus.profile.notice}")
    listener = _bind(args)  # before the model is loaded: a port in use is said at once
    with step(f"Loading {args.served_model_name[0]}"):
        focus.start()
    try:
        with step("Warming up"):
            await focus.warm_up()
        return await _answer_requests(focus, args, listener)
    finally:
        focus.engine.stop()


async def _answer_requests(focus: DualFocus, args: Namespace, listener: socket.socket) -> int:
    llm = focus.engine.llm
    watch_unfinished_turns(lambda: focus.engine.unfinished)
    images = ImageSource(args.allowed_media_domains or ())
    app = create_app(Service(focus, await VllmChat.on(llm, args), images))
    init_entrypoints_middleware(args, app, await llm.get_supported_tasks())
    try:
        await _Server(_uvicorn_config(app, args), listener).serve(sockets=[listener])
    finally:
        await images.close()
    return 0


class _Server(uvicorn.Server):
    """Uvicorn, saying that it is ready once it is, and leaving the process's end to `run`."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config)
        host, port = listener.getsockname()[:2]
        self._address = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM; uvicorn's own handling ends the process before the engine is stopped."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            say(f"\nDualFocus is ready on {self._address}. Ask it something:\n")
            say(f"{example_curl(self._address)}\n")


def _engine_flags(args: Namespace) -> dict[str, Any]:
    """Return vLLM's engine arguments among the flags."""
    names = {field.name for field in fields(AsyncEngineArgs)} - {"model"}
    flags = {name: value for name, value in vars(args).items() if name in names}
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
        app,
        log_level=args.uvicorn_log_level,
        access_log=not args.disable_uvicorn_access_log,
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
