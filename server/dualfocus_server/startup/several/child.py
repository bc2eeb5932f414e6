"""A process that answers requests beside others, before an engine that their parent started.

Leans on vLLM 0.32's `set_process_title`.
"""

import asyncio
import signal
import socket
import sys
from argparse import Namespace
from collections.abc import MutableSequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvloop
from dualfocus_engine import DualFocusError
from dualfocus_engine.backend.launch import EngineClient
from dualfocus_engine.backend.vllm_engine import VllmEngine
from dualfocus_engine.families.choosing import ChosenProfile
from vllm.utils.system_utils import set_process_title

from dualfocus_server.startup.adapters import warm_adapters
from dualfocus_server.startup.draining import Server
from dualfocus_server.startup.memory import return_freed_memory
from dualfocus_server.startup.prepared import Prepared, configure_logs, prepare, running
from dualfocus_server.startup.progress import say
from dualfocus_server.startup.serving import Peers, answer_requests
from dualfocus_server.startup.several.channel import Channel
from dualfocus_server.startup.several.metrics import live_families, shared_metrics
from dualfocus_server.startup.several.pictures import SharedNames
from dualfocus_server.startup.several.places import RemotePlaces

TITLE = "APIServer"
COMPLAINT = "complaint"  # a file


@dataclass(frozen=True, slots=True)
class Task:
    """What the parent hands over: flags, the shared address and engine, its channel; `loads` are connections of each.

    `folder` is of them all: the first that can't start leaves a file there, and says why for all.
    """

    args: Namespace
    chosen: ChosenProfile
    client: EngineClient
    listener: socket.socket
    channel: socket.socket
    loads: MutableSequence[int]
    folder: Path


def run_child(task: Task) -> None:
    """Answer requests until the parent says to stop, or is gone; ends the process."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends them to all: the parent is to say what they mean
        signal.signal(number, signal.SIG_IGN)
    return_freed_memory()
    set_process_title(TITLE, str(task.client.index))
    configure_logs(task.args)
    try:
        sys.exit(uvloop.run(_serve(task, prepare(task.args, task.chosen))))
    except DualFocusError as error:
        with suppress(FileExistsError):
            (task.folder / COMPLAINT).touch(exist_ok=False)
            say(f"error: {error}")
        sys.exit(1)


async def _serve(task: Task, prepared: Prepared) -> int:
    focus = prepared.focus
    async with running(prepared.grounder):
        focus.start(task.client)
        channel = await Channel.on(task.channel)
        places = RemotePlaces(channel)
        reading = asyncio.create_task(_read(channel, focus.engine, places))
        try:
            configure_logs(task.args)  # vLLM has set up its own
            await focus.warm_up()
            adapters = await warm_adapters(focus, prepared.adapters)
            peers = _peers(task, prepared, channel, places)
            await channel.ask("warm")  # none answers before all can
            return await answer_requests(prepared, adapters, task.listener, peers)
        finally:
            reading.cancel()
            focus.stop()


async def _read(channel: Channel, engine: VllmEngine, places: RemotePlaces) -> None:
    """Read what the parent says; where it is gone, so is the engine."""

    def fail() -> None:
        engine.fail_all_requests()
        places.give_up()

    channel.answers["fail"] = fail
    await channel.until_closed()
    fail()


def _peers(task: Task, prepared: Prepared, channel: Channel, places: RemotePlaces) -> Peers:
    engine, client = prepared.focus.engine, task.client

    def take_orders(server: Server) -> None:
        channel.answers["stop"] = server.stop

    channel.answers |= {"live": live_families, "reset_mm_cache": engine.llm.reset_mm_cache}
    return Peers(
        places=places,
        named=SharedNames(channel, client.index, client.count),
        metrics=partial(shared_metrics, channel),
        reset_mm_caches=partial(channel.ask, "everywhere", "reset_mm_cache"),
        on_ready=partial(channel.tell, "listening"),
        on_failure=partial(channel.tell, "failed"),
        loads=(task.loads, client.index),
        on_server=take_orders,
    )
