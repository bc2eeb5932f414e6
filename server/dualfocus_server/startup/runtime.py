"""What `dualfocus serve` does once vLLM is imported: engine, server.

Leans on vLLM 0.32's `create_server_socket`, `create_server_unix_socket`, `load_chat_template`, `import_plugin` and
`SSLCertRefresher`, and on the fields of `AsyncEngineArgs`.
"""

import asyncio
import errno
import logging
import signal
import socket
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from dualfocus_engine import ConfigError, DualFocus, DualFocusError, EngineDead, Grounder, Profile, load_profile
from dualfocus_engine.families.choosing import ChosenProfile, choose_profile, is_folder
from dualfocus_engine.families.views import View, Views
from dualfocus_engine.machine.memory_budget import MemoryBudget
from dualfocus_engine.machine.platform import engine_defaults
from dualfocus_engine.pictures.pictures import ImageLimits
from dualfocus_engine.shipped import SHIPPED_MODEL, SHIPPED_NAME
from starlette.types import ASGIApp
from vllm.config.logging import LoggingConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.launcher import create_server_socket, create_server_unix_socket
from vllm.entrypoints.launchers.utils.ssl import SSLCertRefresher
from vllm.exceptions import VLLMValidationError
from vllm.renderers.chat_utils import load_chat_template
from vllm.utils.import_utils import import_plugin

from dualfocus_server.answering.service import Service
from dualfocus_server.answering.vllm_serving.chat import VllmChat
from dualfocus_server.api.admin import offered_routers
from dualfocus_server.app import Admin, create_app, with_outer_middleware
from dualfocus_server.grounders.choosing import make_grounder
from dualfocus_server.guards.admission import Admission
from dualfocus_server.guards.http_protocol import Connection, allow_many
from dualfocus_server.guards.keys import KeyRing
from dualfocus_server.guards.watchdog import Watchdog
from dualfocus_server.images.hosts import HostRules
from dualfocus_server.images.image_fetcher import ImageFetcher
from dualfocus_server.images.request_images import RequestImages
from dualfocus_server.settings import Settings, settings_of
from dualfocus_server.startup.adapters import adapter_profiles, warm_adapters
from dualfocus_server.startup.draining import Server
from dualfocus_server.startup.progress import say, step
from dualfocus_server.startup.startup_message import ready_text
from dualfocus_server.telemetry.answers_log import AnswersLog, check_file
from dualfocus_server.telemetry.logs import configure
from dualfocus_server.telemetry.metrics import IMAGE_CACHE, watch

logger = logging.getLogger(__name__)

# What open connections get once no question is left.
_SHUTDOWN_GRACE_S = 2


def run(args: Namespace) -> int:
    """Serve until told to stop; returns the process's exit status."""
    try:
        return uvloop.run(_serve(args))
    except DualFocusError as error:
        say(f"error: {error}")
        return 1


def _configure_logs(args: Namespace) -> None:
    access = not args.disable_uvicorn_access_log
    configure(args.log_format, args.uvicorn_log_level, access=access, texts=args.enable_log_requests)


async def _serve(args: Namespace) -> int:
    _configure_logs(args)
    allow_many()
    settings = settings_of(args)
    # What is wrong with a flag is said before a model is loaded.
    images, keys, admins = _make_image_fetcher(settings), _make_key_ring(settings), _make_admin(settings, args)
    _check_answers_log(settings)
    _import_plugins(args)
    model = args.model or str(SHIPPED_MODEL)
    chosen = _choose_profile(model, args)
    grounder = _make_grounder(args, chosen.profile)
    focus = DualFocus(
        model,
        _with_flags(chosen.profile, args),
        grounder=grounder,
        grounder_timeout=args.grounder_timeout or None,
        draft_boxes=args.draft_boxes,
        **_engine_flags(args),
    )
    profiles = adapter_profiles(args, focus.profile, partial(_with_flags, args=args))
    _set_vllm_args(args, focus)
    say(f"profile: {focus.profile.name} ({chosen.why})")
    for name, profile in profiles.items():
        say(f"profile: {profile.name} for the adapter {name} (--lora-profiles)")
    if args.grounder is not None:
        say(f"grounder: {args.grounder}")
    for note in _notes(focus.profile, args):
        say(f"note: {note}")
    listener = _bind(args)  # before the model is loaded: a port in use is said at once
    async with _running(grounder):
        with step(f"Loading {args.served_model_name[0]}"):
            focus.start()
        try:
            _configure_logs(args)  # vLLM has set up its own
            with step("Warming up"):
                await focus.warm_up()
                adapters = await warm_adapters(focus, profiles)
            return await _answer_requests(focus, adapters, args, settings, images, keys, admins, listener)
        finally:
            focus.stop()


def _make_grounder(args: Namespace, profile: Profile) -> Grounder | None:
    """Return what says where to look in the place of the model; None where that does. Raises ConfigError."""
    if args.grounder is None:
        return None
    asked_in = load_profile(args.grounder_profile) if args.grounder_profile else profile
    return make_grounder(args.grounder, args.grounder_device, asked_in)


@asynccontextmanager
async def _running(grounder: Grounder | None) -> AsyncIterator[None]:
    """Start a grounder before the model is loaded, which takes what memory is left. Raises ConfigError."""
    async with AsyncExitStack() as held:
        if isinstance(grounder, AbstractAsyncContextManager):
            with step("Starting the grounder"):
                await held.enter_async_context(grounder)
        yield


def _choose_profile(model: str, args: Namespace) -> ChosenProfile:
    """Return the model's profile; a model on the hub is asked for its files first. Raises ConfigError."""
    if args.profile or is_folder(model):
        return choose_profile(model, args.profile)
    with step(f"Reading the configuration of {model}"):
        return choose_profile(model, revision=args.revision)


def _with_flags(profile: Profile, args: Namespace) -> Profile:
    """Return the profile with what the flags say in its place. Raises ConfigError."""
    try:
        template = load_chat_template(args.chat_template)
    except VLLMValidationError as error:
        raise ConfigError(f"--chat-template can't be used: {error}") from error
    given: dict[str, Any] = {
        "chat_template": template,
        "chat_template_content_format": args.chat_template_content_format.replace("auto", ""),
        "chat_template_kwargs": profile.chat_template_kwargs | (args.default_chat_template_kwargs or {}),
    }
    update = {name: value for name, value in given.items() if value}
    if args.skip_below is not None:
        update["skip_below_perplexity"] = args.skip_below
    update |= {name: getattr(args, name) for name in ("max_regions", "max_looks") if getattr(args, name) is not None}
    if args.whole_tokens or args.crop_tokens:
        update["views"] = _views(profile, args)
    return profile.model_copy(update=update)


def _views(profile: Profile, args: Namespace) -> Views:
    """Return the profile's views with the most image tokens that the flags say. Raises ConfigError."""
    if profile.views is None:
        raise ConfigError(
            f"--whole-tokens and --crop-tokens can't be used with the profile {profile.name!r}: without views, "
            "pictures are shown at the size that the model's own processor makes them."
        )
    whole, crop = profile.views.whole, profile.views.crop
    return profile.views.model_copy(
        update={"whole": _at_most(whole, args.whole_tokens), "crop": _at_most(crop, args.crop_tokens)}
    )


def _at_most(view: View, most: int | None) -> View:
    if most is None:
        return view
    return View(least=min(view.least, most) if view.least else None, most=most)


def _notes(profile: Profile, args: Namespace) -> Iterator[str]:
    """What an operator is told before the model is loaded: the profile's own notes, and what is not as in vLLM."""
    yield from (note for note in (profile.notice, profile.verified) if note)
    if args.grounder is not None:
        yield "Where to look, the grounder says (--grounder), not the model: no grounding turn is run."
    elif not profile.grounds:
        yield "This model can't say where something is: questions without `dualfocus.box` are answered by one look."
    if profile.crop_alone:
        yield "This model takes one picture a prompt: the crop is asked about in a conversation of its own."
    if not args.enable_prefix_caching:
        yield "Without prefix caching turns share nothing: each computes its whole prompt (--enable-prefix-caching)."
    limit = (args.limit_mm_per_prompt or {}).get("image")
    images = limit.get("count") if isinstance(limit, dict) else limit
    if images and not profile.crop_alone:
        yield f"A prompt holds {images} images, the crop among them: a conversation of as many gets no second look."
    if args.ec_transfer_config is not None:
        yield "With --ec-transfer-config encoder runs are not counted, and turns at once may compute a picture twice."
    kept = engine_defaults().get("mm_processor_cache_gb")
    if kept is not None and args.mm_processor_cache_gb == kept:
        yield f"Up to {kept} GiB of processed pictures are kept; --mm-processor-cache-gb sets another size."


def _make_image_fetcher(settings: Settings) -> ImageFetcher:
    return ImageFetcher(
        HostRules(settings.allowed_media_domains, settings.allowed_media_networks),
        max_bytes=settings.max_image_bytes,
        timeout=settings.image_timeout or None,
    )


def _make_key_ring(settings: Settings) -> KeyRing:
    return _key_ring(settings.api_keys, settings.api_key_file, "--api-key-file")


def _key_ring(keys: tuple[str, ...], file: Path | None, flag: str) -> KeyRing:
    try:
        return KeyRing(keys, file)
    except OSError as error:
        raise SystemExit(f"error: {flag} {file}: {error.strerror}") from error


def _make_admin(settings: Settings, args: Namespace) -> Admin:
    """Return the administrators' routes; where they are asked for and nobody has a key to them, say so."""
    keys = _key_ring(settings.admin_api_keys, settings.admin_api_key_file, "--admin-api-key-file")
    routers = offered_routers(args.profiler_config)
    for asked in routers if not keys.is_needed else ():
        say(f"note: {asked} is set, but its routes are not offered: they need --admin-api-key")
    return Admin(keys, routers.values())


def _check_answers_log(settings: Settings) -> None:
    """Say what is wrong with the file before a model is loaded. Raises ConfigError."""
    if settings.answers_log is not None:
        check_file(settings.answers_log)
        # Who rotates it while the model is loaded would end the server: the file is opened once it is loaded.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


@contextmanager
def _writing_answers(file: Path | None) -> Iterator[AnswersLog | None]:
    """Keep the answers log while the server runs; SIGHUP opens its file anew. Raises ConfigError."""
    if file is None:
        yield None
        return
    say(f"note: the answers to each question are written to {file} (--answers-log)")
    log = AnswersLog(file)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, log.reopen)
    try:
        yield log
    finally:
        log.close()


async def _answer_requests(
    focus: DualFocus,
    adapters: Mapping[str, DualFocus],
    args: Namespace,
    settings: Settings,
    images: ImageFetcher,
    keys: KeyRing,
    admins: Admin,
    listener: socket.socket,
) -> int:
    admission = Admission(settings.max_questions, settings.max_queued, settings.max_questions_per_key)
    watch(
        running=lambda: admission.active,
        waiting=lambda: admission.admitted - admission.active,
        unfinished_turns=lambda: focus.engine.unfinished,
    )
    IMAGE_CACHE.counts = focus.engine.pictures.counts
    focus.engine.pictures.memory = MemoryBudget(settings.max_decoding_bytes)
    chat = await VllmChat.on(focus.engine, args)
    limits = ImageLimits(settings.max_image_pixels, settings.image_formats, settings.max_decoding_bytes)
    opened = RequestImages(images, settings.max_images, limits)
    watchdog = Watchdog(focus.engine, settings.engine_timeout)
    name, tls = listener.getsockname(), bool(args.ssl_certfile)
    ready = ready_text(name, tls=tls, keys=keys.is_needed, playground=settings.playground)
    with _writing_answers(settings.answers_log) as log:
        service = Service(
            *(focus, chat, opened, admission, watchdog),
            timeout=settings.timeout,
            keep_alive=settings.sse_keep_alive_interval,
            mode=args.mode,
            answers_log=log,
            list_modes=settings.list_modes,
            adapters=adapters,
            trusts_processor_kwargs=args.trust_request_mm_kwargs,
        )
        app = create_app(service, settings, keys, admins)
        config = _uvicorn_config(app, args, settings)
        server = Server(config, admission, settings.drain_timeout, lambda: say(ready))
        try:
            failing = asyncio.create_task(watchdog.until_failure())
            with _renewing_certificates(config, args):
                return await _serve_until(failing, server, focus, admission, listener)
        finally:
            await images.close()


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


def _engine_flags(args: Namespace) -> dict[str, Any]:
    """Return vLLM's engine arguments among the flags."""
    names = {field.name for field in fields(AsyncEngineArgs)} - {"model"}
    flags = {name: value for name, value in vars(args).items() if name in names}
    # Images are fetched by the server alone, by its own rules.
    flags["allowed_media_domains"] = ["nothing.invalid"]
    if args.log_format == "json":
        flags.setdefault("logging_config", LoggingConfig(formatter="json"))  # for the engine's processes
    return flags


def _set_vllm_args(args: Namespace, focus: DualFocus) -> None:
    """Fill in what vLLM's servings read from the flags: they are to render as the turns do."""
    args.served_model_name = args.served_model_name or [args.model or SHIPPED_NAME]
    args.model = focus.model
    args.default_chat_template_kwargs = focus.profile.chat_template_kwargs
    # The answers of both paths count cached tokens.
    args.enable_prompt_tokens_details = True


def _bind(args: Namespace) -> socket.socket:
    """Take the port or the path without listening on it yet: whoever probes it is refused until there are answers."""
    try:
        if args.uds:
            return _bind_path(Path(args.uds))
        listener: socket.socket = create_server_socket((args.host or "", args.port), reuse_port=False)
    except OSError as error:
        where = f"--uds {args.uds}" if args.uds else f"{args.host or 'any address'}, port {args.port}"
        raise SystemExit(f"error: {where}: {error.strerror or error}") from error
    return listener


def _bind_path(path: Path) -> socket.socket:
    """Take a path; a Unix socket that nobody listens on was left behind by a server that ended. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as probe:
        if path.is_socket() and probe.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()
    listener: socket.socket = create_server_unix_socket(str(path))
    return listener


def _uvicorn_config(app: ASGIApp, args: Namespace, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        with_outer_middleware(app, settings.unlogged_paths),
        http=Connection,
        h11_max_incomplete_event_size=args.h11_max_incomplete_event_size,
        ws="none",
        log_config=None,  # `logs.configure` set up the process's
        access_log=False,  # the server's own has the request's id
        timeout_keep_alive=settings.idle_timeout,
        timeout_graceful_shutdown=_SHUTDOWN_GRACE_S,
        ssl_keyfile=args.ssl_keyfile,
        ssl_certfile=args.ssl_certfile,
        ssl_ca_certs=args.ssl_ca_certs,
        ssl_cert_reqs=args.ssl_cert_reqs,
        ssl_ciphers=args.ssl_ciphers,
    )


@contextmanager
def _renewing_certificates(config: uvicorn.Config, args: Namespace) -> Iterator[None]:
    """Read certificates and keys again when their files change (--enable-ssl-refresh)."""
    if not args.enable_ssl_refresh:
        yield
        return
    config.load()
    refresher = SSLCertRefresher(config.ssl, args.ssl_keyfile, args.ssl_certfile, args.ssl_ca_certs)
    try:
        yield
    finally:
        refresher.stop()


def _import_plugins(args: Namespace) -> None:
    """Let parsers of the operator's own register themselves. Raises ConfigError."""
    for flag in ("tool_parser_plugin", "reasoning_parser_plugin"):
        file = getattr(args, flag)
        if file and import_plugin(file) is None:
            raise ConfigError(f"--{flag.replace('_', '-')} {file} can't be imported; the log says why.")
