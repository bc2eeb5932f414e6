"""Requests are answered until the server is told to stop, or its engine fails.

Leans on vLLM 0.32's `AsyncLLM.do_log_stats`.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableSequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualfocus_engine import DualFocus, EngineDead
from dualfocus_engine.machine.memory_budget import MemoryBudget
from dualfocus_engine.pictures.pictures import ImageLimits
from vllm import envs

from dualfocus_server.answering.service import Service
from dualfocus_server.answering.vllm_serving.chat import VllmChat
from dualfocus_server.app import create_app
from dualfocus_server.guards.admission import Admission, Places
from dualfocus_server.guards.places import OwnPlaces
from dualfocus_server.guards.watchdog import Watchdog
from dualfocus_server.images.memory_budget import AsyncMemoryBudget
from dualfocus_server.images.named_images import ImageNames, NamedImages
from dualfocus_server.images.request_images import RequestImages
from dualfocus_server.startup.draining import Server
from dualfocus_server.startup.listening import renewing_certificates, uvicorn_config
from dualfocus_server.startup.memory import freeze_gc_heap
from dualfocus_server.startup.prepared import Prepared
from dualfocus_server.telemetry.answers_log import AnswersLog
from dualfocus_server.telemetry.metrics import own_metrics, watch_engine, watch_places

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Peers:
    """What processes that answer requests side by side have in common; one alone has it for itself (`alone`).

    `loads` are the connections of each, and this one's place among them. `on_server` is given the server, which is told
    to stop; `on_ready` is called once it listens, and `on_failure` is told why the engine failed.
    """

    places: Places
    named: ImageNames
    metrics: Callable[[], Awaitable[bytes]]
    reset_mm_caches: Callable[[], Awaitable[None]]
    on_ready: Callable[[], None]
    on_failure: Callable[[str], None]
    loads: tuple[MutableSequence[int], int] | None = None
    on_server: Callable[[Server], None] = lambda _: None


def alone(prepared: Prepared, on_ready: Callable[[], None]) -> Peers:
    """Return what a process has that answers all requests."""
    settings = prepared.settings
    places = OwnPlaces(settings.max_questions, settings.max_queued, settings.max_questions_per_key)
    watch_places(lambda: places.counts)
    reset_mm_caches = prepared.focus.engine.llm.reset_mm_cache
    return Peers(places, NamedImages(), own_metrics, reset_mm_caches, on_ready, _log_failure)


async def answer_requests(
    prepared: Prepared, adapters: Mapping[str, DualFocus], listener: socket.socket, peers: Peers
) -> int:
    """Answer requests with a running engine; returns the exit status: 0 where it was told to stop."""
    args, settings, focus = prepared.args, prepared.settings, prepared.focus
    watch_engine(lambda: focus.engine.unfinished, focus.engine.pictures.counts)
    focus.engine.pictures.memory = MemoryBudget(settings.max_decoding_bytes)
    with _writing_answers(settings.answers_log) as log:
        service = await _service(prepared, adapters, peers, log)
        config = uvicorn_config(create_app(service, settings, prepared.keys, prepared.admins), args, settings)
        server = Server(config, service.admission, settings.drain_timeout, peers.on_ready, peers.loads)
        peers.on_server(server)
        freeze_gc_heap()
        telling = asyncio.create_task(_tell_statistics(focus.engine.llm))
        try:
            failing = asyncio.create_task(service.watchdog.until_failure())
            with renewing_certificates(config, args):
                return await _serve_until(failing, server, service, listener, peers.on_failure)
        finally:
            telling.cancel()
            await prepared.images.close()


async def _tell_statistics(llm: Any) -> None:
    """Have vLLM log its throughput as its own server does: by that alone it lets go of what it has counted."""
    while True:
        await asyncio.sleep(envs.VLLM_LOG_STATS_INTERVAL)
        await llm.do_log_stats()


async def _service(
    prepared: Prepared, adapters: Mapping[str, DualFocus], peers: Peers, log: AnswersLog | None
) -> Service:
    """Return what routes answer with."""
    args, settings, focus = prepared.args, prepared.settings, prepared.focus
    limits = ImageLimits(settings.max_image_pixels, settings.image_formats, settings.max_decoding_bytes)
    memory = AsyncMemoryBudget(settings.max_decoding_bytes)
    return Service(
        focus,
        await VllmChat.on(focus.engine, args),
        RequestImages(prepared.images, settings.max_images, limits, peers.named, settings.max_body_bytes, memory),
        Admission(peers.places),
        Watchdog(focus.engine, settings.engine_timeout),
        timeout=settings.timeout,
        keep_alive=settings.sse_keep_alive_interval,
        mode=args.mode,
        answers_log=log,
        list_modes=settings.list_modes,
        adapters=adapters,
        trusts_processor_kwargs=args.trust_request_mm_kwargs,
        grounder=args.grounder and args.grounder.partition(":")[0],  # what follows may hold a password
        metrics=peers.metrics,
        reset_mm_caches=peers.reset_mm_caches,
        most_questions=settings.most_of_a_client,
    )


def _log_failure(why: str) -> None:
    logger.critical("%s The server stops, to be started again by its supervisor.", why)


async def _serve_until(
    failing: asyncio.Task[str],
    server: Server,
    service: Service,
    listener: socket.socket,
    on_failure: Callable[[str], None],
) -> int:
    """Serve until told to stop (0), or until the engine fails (1): then every question in flight is told so."""
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.wait({serving, failing}, return_when=asyncio.FIRST_COMPLETED)
    if not failing.done():
        failing.cancel()
        await serving
        return 0
    on_failure(failing.result())
    service.admission.end(EngineDead())
    service.focus.engine.fail_all_requests()
    server.should_exit = True
    await serving
    return 1


@contextmanager
def _writing_answers(file: Path | None) -> Iterator[AnswersLog | None]:
    """Keep the answers log while the server runs; SIGHUP opens its file anew. Raises ConfigError."""
    if file is None:
        yield None
        return
    log = AnswersLog(file)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, log.reopen)
    try:
        yield log
    finally:
        log.close()
