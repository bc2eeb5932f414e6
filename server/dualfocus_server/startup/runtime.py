"""What `dualfocus serve` does once vLLM is imported: engine, server."""

import signal
import socket
import sys
from argparse import Namespace

import uvloop
from dualfocus_engine import DualFocusError

from dualfocus_server.guards.http_protocol import allow_many
from dualfocus_server.startup.adapters import warm_adapters
from dualfocus_server.startup.listening import bind
from dualfocus_server.startup.prepared import Prepared, configure_logs, introduce, prepare, ready_text_of, running
from dualfocus_server.startup.progress import say, step
from dualfocus_server.startup.serving import alone, answer_requests
from dualfocus_server.startup.several.parent import serve_by_several
from dualfocus_server.startup.several.refusals import check_several


def run(args: Namespace) -> int:
    """Serve until told to stop; returns the process's exit status."""
    # Until the server listens and drains: without a handler of its own, a container's first process is sent none.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, _: sys.exit(128 + number))
    configure_logs(args)
    allow_many()
    try:
        prepared = prepare(args)  # what is wrong with a flag is said before a model is loaded
        if args.api_server_count > 1:
            check_several(args, prepared.settings)
        introduce(prepared)
        listener = bind(args)  # and so is a port in use
        if args.api_server_count > 1:
            return serve_by_several(prepared, listener)
        return uvloop.run(_serve(prepared, listener))
    except DualFocusError as error:
        say(f"error: {error}")
        return 1


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
            peers = alone(prepared, lambda: say(ready_text_of(prepared, listener)))
            return await answer_requests(prepared, adapters, listener, peers)
        finally:
            focus.stop()
