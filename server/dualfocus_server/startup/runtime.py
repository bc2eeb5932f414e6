"""What `dualfocus serve` does once vLLM is imported: engine, server."""

import socket
from argparse import Namespace

import uvloop
from dualfocus_engine import DualFocusError

from dualfocus_server.guards.http_protocol import allow_many
from dualfocus_server.startup.adapters import warm_adapters
from dualfocus_server.startup.listening import bind
from dualfocus_server.startup.prepared import Prepared, introduce, prepare, running
from dualfocus_server.startup.progress import say, step
from dualfocus_server.startup.serving import answer_requests
from dualfocus_server.startup.startup_message import ready_text
from dualfocus_server.telemetry.logs import configure


def run(args: Namespace) -> int:
    """Serve until told to stop; returns the process's exit status."""
    configure_logs(args)
    allow_many()
    try:
        prepared = prepare(args)  # what is wrong with a flag is said before a model is loaded
        introduce(prepared)
        listener = bind(args)  # and so is a port in use
        return uvloop.run(_serve(prepared, listener))
    except DualFocusError as error:
        say(f"error: {error}")
        return 1


def configure_logs(args: Namespace) -> None:
    """Set up the process's logging, as the flags say."""
    access = not args.disable_uvicorn_access_log
    configure(args.log_format, args.uvicorn_log_level, access=access, texts=args.enable_log_requests)


async def _serve(prepared: Prepared, listener: socket.socket) -> int:
    args, focus = prepared.args, prepared.focus
    async with running(prepared.grounder):
        with step(f"Loading {args.served_model_name[0]}"):
            focus.start()
        try:
            configure_logs(args)  # vLLM has set up its own
            with step("Warming up"):
                await focus.warm_up()
                adapters = await warm_adapters(focus, prepared.adapters)
            return await answer_requests(prepared, adapters, listener, lambda: say(_ready_text(prepared, listener)))
        finally:
            focus.stop()


def _ready_text(prepared: Prepared, listener: socket.socket) -> str:
    return ready_text(
        listener.getsockname(),
        tls=bool(prepared.args.ssl_certfile),
        keys=prepared.keys.is_needed,
        playground=prepared.settings.playground,
    )
