"""The process that starts the engine and those that answer requests, and has what there can be only one of."""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop
from dualfocus_engine.backend.launch import EngineClient, SharedEngine

from dualfocus_server.guards.places import OwnPlaces
from dualfocus_server.startup.prepared import Prepared, configure_logs, ready_text_of
from dualfocus_server.startup.progress import say, step
from dualfocus_server.startup.several.channel import Channel, ChannelClosed
from dualfocus_server.startup.several.child import COMPLAINT, TITLE, Task, run_child
from dualfocus_server.startup.several.metrics import Families, live_families
from dualfocus_server.startup.several.places import LentPlaces
from dualfocus_server.telemetry.metrics import watch_places

logger = logging.getLogger(__name__)

# Where Prometheus's client looks for the folder of its multiprocess mode.
_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_NOT_ACCEPTING = 2**31 - 1  # connections of a process that does not listen yet: vLLM's word for it
# What processes get to end once they were told that the engine has failed, and the engine once nobody asks it.
_GRACE_S = 10.0
_ENGINE_GRACE_S = 2.0


def serve_by_several(prepared: Prepared, listener: socket.socket) -> int:
    """Start the engine and the processes, and serve until told to stop; returns the exit status."""
    with TemporaryDirectory(prefix="dualfocus-") as folder:
        children = _Children(prepared, listener, Path(folder))
        try:
            engine = _start(prepared, children)
            try:
                configure_logs(prepared.args)  # vLLM has set up its own
                return uvloop.run(_Parent(prepared, listener, engine, children).serve())
            finally:
                engine.stop(_ENGINE_GRACE_S)
        finally:
            children.kill()


def _start(prepared: Prepared, children: "_Children") -> SharedEngine:
    """Start the engine and the processes. Raises SystemExit where one of them has said why it can't be."""
    try:
        with step(f"Loading {prepared.args.served_model_name[0]}"):
            return prepared.focus.start_shared(prepared.args.api_server_count, children.start)
    except RuntimeError:
        if children.have_complained:
            raise SystemExit(1) from None
        raise


class _Children:
    """The processes that answer requests, and this end of each one's channel."""

    def __init__(self, prepared: Prepared, listener: socket.socket, folder: Path) -> None:
        self._prepared, self._listener = prepared, listener
        self._folder = folder
        self._context = multiprocessing.get_context("spawn")
        self._loads = self._context.RawArray("i", [_NOT_ACCEPTING] * prepared.args.api_server_count)
        self.processes: list[BaseProcess] = []
        self.ends: list[socket.socket] = []

    def start(self, client: EngineClient) -> BaseProcess:
        """Start the next one."""
        os.environ[_METRICS_FOLDER] = str(self._folder)  # theirs alone: neither the engine nor this one counts
        own, other = socket.socketpair()
        prepared = self._prepared
        task = Task(prepared.args, prepared.chosen, client, self._listener, other, self._loads, self._folder)
        process = self._context.Process(target=run_child, args=(task,), name=f"{TITLE}_{client.index}")
        process.start()
        other.close()
        self.processes.append(process)
        self.ends.append(own)
        return process

    @property
    def have_complained(self) -> bool:
        """Whether one has said why it can't start."""
        return (self._folder / COMPLAINT).exists()

    def kill(self) -> None:
        """End those that still run."""
        for process in self.processes:
            process.kill()
            process.join()


class _Parent:
    def __init__(self, prepared: Prepared, listener: socket.socket, engine: SharedEngine, children: _Children) -> None:
        self._prepared, self._listener, self._engine, self._children = prepared, listener, engine, children
        settings = prepared.settings
        self._places = OwnPlaces(settings.max_questions, settings.max_queued, settings.max_questions_per_key)
        watch_places(lambda: self._places.counts)
        self._channels: list[Channel] = []
        self._warm = self._listening = 0
        self._all_warm, self._all_listen = asyncio.Event(), asyncio.Event()
        self._failure: str | None = None
        self._is_stopping = False
        self._over = asyncio.Event()

    async def serve(self) -> int:
        """Serve until told to stop (0), or until the engine or a process fails (1)."""
        self._channels = [await Channel.on(end) for end in self._children.ends]
        reading = [asyncio.create_task(self._read(channel)) for channel in self._channels]
        self._watch()
        with step("Warming up"):
            await self._first_of(self._all_listen, self._over)
        if self._all_listen.is_set():
            self._take_signals()
            say(ready_text_of(self._prepared, self._listener))
            self._listener.close()  # theirs alone: once they have ended, nobody is kept waiting
        await self._over.wait()
        if self._failure is not None and self._all_listen.is_set():
            await self._end_all()
        for channel in self._channels:
            channel.close()
        await asyncio.gather(*reading)
        return 0 if self._failure is None else 1

    async def _read(self, channel: Channel) -> None:
        LentPlaces(self._places, channel, self._tell_all)
        channel.answers |= {
            "warm": self._until_all_are_warm,
            "listening": self._note_listening,
            "failed": self._fail,
            "pass_on": self._pass_on,
            "everywhere": self._everywhere,
            "live": self._live,
        }
        await channel.until_closed()

    async def _until_all_are_warm(self) -> None:
        self._warm += 1
        if self._warm == len(self._channels):
            self._all_warm.set()
        await self._all_warm.wait()

    def _note_listening(self) -> None:
        self._listening += 1
        if self._listening == len(self._channels):
            self._all_listen.set()

    async def _pass_on(self, index: int, name: str, *given: Any) -> Any:
        """Ask one of the processes; None where it has ended already, since the server stops."""
        with suppress(ChannelClosed):
            return await self._channels[index].ask(name, *given)

    async def _everywhere(self, name: str) -> dict[str, Any]:
        """Ask each process that has not ended, and return what they answer."""
        answers = {}
        for index, channel in enumerate(self._channels):
            with suppress(ChannelClosed):
                answers[str(index)] = await channel.ask(name)
        return answers

    async def _live(self) -> Mapping[str, Families]:
        """Return what each process reads at a scrape, this one among them."""
        return {"parent": live_families()} | await self._everywhere("live")

    def _watch(self) -> None:
        """Take note of the end of the engine's processes, and of those that answer requests."""
        loop = asyncio.get_running_loop()
        for process in self._engine.processes:
            loop.add_reader(process.sentinel, self._note_engine_end, process)
        for process in self._children.processes:
            loop.add_reader(process.sentinel, self._note_end, process)

    def _note_engine_end(self, process: BaseProcess) -> None:
        asyncio.get_running_loop().remove_reader(process.sentinel)
        self._fail("The engine's process has ended.")

    def _note_end(self, process: BaseProcess) -> None:
        asyncio.get_running_loop().remove_reader(process.sentinel)
        process.join()
        if not self._is_stopping or process.exitcode:
            self._fail(f"A process that answers requests ({process.name}) has ended (exit code {process.exitcode}).")
        elif not any(other.is_alive() for other in self._children.processes):
            self._over.set()

    def _fail(self, why: str) -> None:
        if self._failure is None and not self._over.is_set():
            self._failure = why
            logger.critical("%s The server stops, to be started again by its supervisor.", why)
            self._over.set()

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        if self._prepared.settings.answers_log is not None:
            loop.add_signal_handler(signal.SIGHUP, self._reopen_logs)

    def _stop(self) -> None:
        self._is_stopping = True
        self._tell_all("stop")

    def _reopen_logs(self) -> None:
        for process in self._children.processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGHUP)

    async def _end_all(self) -> None:
        """Let every question in flight be told that the engine is lost, and wait for the processes a while."""
        self._tell_all("fail")
        joined = (asyncio.to_thread(process.join, _GRACE_S) for process in self._children.processes)
        await asyncio.gather(*joined)

    def _tell_all(self, name: str, *given: Any) -> None:
        for channel in self._channels:
            channel.tell(name, *given)

    async def _first_of(self, *events: asyncio.Event) -> None:
        waiting = [asyncio.create_task(event.wait()) for event in events]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
