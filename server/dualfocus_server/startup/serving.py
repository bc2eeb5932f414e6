"""Requests are answered until the server is told to stop, or its engine fails."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dualfocus_engine import DualFocus, EngineDead
from dualfocus_engine.machine.memory_budget import MemoryBudget
from dualfocus_engine.pictures.pictures import ImageLimits

from dualfocus_server.answering.service import Service
from dualfocus_server.answering.vllm_serving.chat import VllmChat
from dualfocus_server.app import create_app
from dualfocus_server.guards.admission import Admission
from dualfocus_server.guards.places import OwnPlaces
from dualfocus_server.guards.watchdog import Watchdog
from dualfocus_server.images.request_images import RequestImages
from dualfocus_server.startup.draining import Server
from dualfocus_server.startup.listening import renewing_certificates, uvicorn_config
from dualfocus_server.startup.prepared import Prepared
from dualfocus_server.telemetry.answers_log import AnswersLog
from dualfocus_server.telemetry.metrics import IMAGE_CACHE, watch

logger = logging.getLogger(__name__)


async def answer_requests(
    prepared: Prepared, adapters: Mapping[str, DualFocus], listener: socket.socket, on_ready: Callable[[], None]
) -> int:
    """Answer requests with a running engine; returns the exit status: 0 where it was told to stop."""
    args, settings, focus = prepared.args, prepared.settings, prepared.focus
    places = OwnPlaces(settings.max_questions, settings.max_queued, settings.max_questions_per_key)
    admission = Admission(places)
    watch(
        running=lambda: places.counts[0],
        waiting=lambda: places.counts[1],
        unfinished_turns=lambda: focus.engine.unfinished,
    )
    IMAGE_CACHE.counts = focus.engine.pictures.counts
    focus.engine.pictures.memory = MemoryBudget(settings.max_decoding_bytes)
    limits = ImageLimits(settings.max_image_pixels, settings.image_formats, settings.max_decoding_bytes)
    watchdog = Watchdog(focus.engine, settings.engine_timeout)
    with _writing_answers(settings.answers_log) as log:
        service = Service(
            focus,
            await VllmChat.on(focus.engine, args),
            RequestImages(prepared.images, settings.max_images, limits),
            admission,
            watchdog,
            timeout=settings.timeout,
            keep_alive=settings.sse_keep_alive_interval,
            mode=args.mode,
            answers_log=log,
            list_modes=settings.list_modes,
            adapters=adapters,
            trusts_processor_kwargs=args.trust_request_mm_kwargs,
            grounder=args.grounder and args.grounder.partition(":")[0],  # what follows may hold a password
        )
        app = create_app(service, settings, prepared.keys, prepared.admins)
        config = uvicorn_config(app, args, settings)
        server = Server(config, admission, settings.drain_timeout, on_ready)
        try:
            failing = asyncio.create_task(watchdog.until_failure())
            with renewing_certificates(config, args):
                return await _serve_until(failing, server, focus, admission, listener)
        finally:
            await prepared.images.close()


async def _serve_until(
    failing: asyncio.Task[str], server: Server, focus: DualFocus, admission: Admission, listener: socket.socket
) -> int:
    """Serve until told to stop (0), or until the engine fails (1): then every question in flight is told so."""
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.wait({serving, failing}, return_when=asyncio.FIRST_COMPLETED)
    if not failing.done():
        failing.cancel()
        await serving
        return 0
    logger.critical("%s The server stops, to be started again by its supervisor.", failing.result())
    admission.end(EngineDead())
    focus.engine.fail_all_requests()
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
