"""What the flags come to, before a model is loaded: whatever is wrong with one of them is said here.

Leans on vLLM 0.32's `load_chat_template` and `import_plugin`, on the fields of `AsyncEngineArgs`, and on the
`list_registered` of its managers of parsers.
"""

import signal
import socket
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from dualfocus_engine import ConfigError, DualFocus, Grounder, Profile, load_profile
from dualfocus_engine.families.choosing import ChosenProfile, choose_profile, is_folder
from dualfocus_engine.families.views import View, Views
from dualfocus_engine.machine.platform import engine_defaults
from dualfocus_engine.shipped import SHIPPED_MODEL, SHIPPED_NAME
from vllm.config.logging import LoggingConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMValidationError
from vllm.reasoning import ReasoningParserManager
from vllm.renderers.chat_utils import load_chat_template
from vllm.tool_parsers import ToolParserManager
from vllm.utils.import_utils import import_plugin

from dualfocus_server.api.admin import offered_routers
from dualfocus_server.app import Admin
from dualfocus_server.grounders.bounded_http import shown
from dualfocus_server.grounders.choosing import make_grounder
from dualfocus_server.guards.keys import KeyRing
from dualfocus_server.images.hosts import HostRules
from dualfocus_server.images.image_fetcher import ImageFetcher
from dualfocus_server.settings import Settings, settings_of
from dualfocus_server.startup.adapters import adapter_profiles
from dualfocus_server.startup.progress import say, step
from dualfocus_server.startup.startup_message import ready_text
from dualfocus_server.telemetry.answers_log import check_file
from dualfocus_server.telemetry.logs import configure


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is to be served, and the parts that flags ask for; `adapters`: the profiles of adapters with their own."""

    args: Namespace
    settings: Settings
    images: ImageFetcher
    keys: KeyRing
    admins: Admin
    chosen: ChosenProfile
    grounder: Grounder | None
    focus: DualFocus
    adapters: Mapping[str, Profile]


def prepare(args: Namespace, chosen: ChosenProfile | None = None) -> Prepared:
    """Make what the flags ask for; `chosen` is the model's profile where it is known already.

    Fills in what vLLM's servings read from `args`. Raises ConfigError, SystemExit with a message.
    """
    settings = settings_of(args)
    images, keys, admins = _make_image_fetcher(settings), _make_key_ring(settings), _make_admin(settings, args)
    _check_answers_log(settings)
    _import_plugins(args)
    _check_parsers(args)
    model = args.model or str(SHIPPED_MODEL)
    chosen = chosen or _choose_profile(model, args)
    grounder = _make_grounder(args, chosen.profile)
    focus = DualFocus(
        model,
        _with_flags(chosen.profile, args),
        grounder=grounder,
        grounder_timeout=args.grounder_timeout or None,
        draft_boxes=args.draft_boxes,
        **_engine_flags(args),
    )
    adapters = adapter_profiles(args, focus.profile, partial(_with_flags, args=args))
    _set_vllm_args(args, focus)
    return Prepared(args, settings, images, keys, admins, chosen, grounder, focus, adapters)


def introduce(prepared: Prepared) -> None:
    """Tell the operator what is served, and how."""
    args, profile = prepared.args, prepared.focus.profile
    say(f"profile: {profile.name} ({prepared.chosen.why})")
    for name, own in prepared.adapters.items():
        say(f"profile: {own.name} for the adapter {name} (--lora-profiles)")
    if args.grounder is not None:
        say(f"grounder: {shown(args.grounder)}")
    for note in (*_notes(profile, args), *_notes_on_parts(prepared)):
        say(f"note: {note}")


def configure_logs(args: Namespace) -> None:
    """Set up the process's logging, as the flags say."""
    access = not args.disable_uvicorn_access_log
    configure(args.log_format, args.uvicorn_log_level, access=access, texts=args.enable_log_requests)


def ready_text_of(prepared: Prepared, listener: socket.socket) -> str:
    """Return what is said once the server listens."""
    return ready_text(
        listener.getsockname(),
        tls=bool(prepared.args.ssl_certfile),
        keys=prepared.keys.is_needed,
        playground=prepared.settings.playground,
    )


def _choose_profile(model: str, args: Namespace) -> ChosenProfile:
    """Return the model's profile; a model on the hub is asked for its files first. Raises ConfigError."""
    if args.profile or is_folder(model):
        return choose_profile(model, args.profile)
    with step(f"Reading the configuration of {model}"):
        return choose_profile(model, revision=args.revision, token=args.hf_token)


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
    if profile.views is None or profile.views.are_fixed:
        raise ConfigError(
            f"--whole-tokens and --crop-tokens can't be used with the profile {profile.name!r}: "
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
    if images and profile.micro_images > 1:
        yield f"A prompt holds {images} images, the crop among them: a conversation of as many gets no second look."
    if args.ec_transfer_config is not None:
        yield "With --ec-transfer-config encoder runs are not counted, and turns at once may compute a picture twice."
    kept = engine_defaults().get("mm_processor_cache_gb")
    if kept is not None and args.mm_processor_cache_gb == kept:
        by_each = " by each process" if args.api_server_count > 1 else ""
        yield f"Up to {kept} GiB of processed pictures are kept{by_each}; --mm-processor-cache-gb sets another size."


def _notes_on_parts(prepared: Prepared) -> Iterator[str]:
    """What an operator is told of routes that are not offered, of who is answered, and of files that are written."""
    for asked in offered_routers(prepared.args.profiler_config) if not prepared.admins.keys.is_needed else ():
        yield f"{asked} is set, but its routes are not offered: they need --admin-api-key"
    if not (prepared.args.uds or prepared.args.host or prepared.keys.is_needed):
        yield "whoever reaches this machine is answered, without a key; --host 127.0.0.1 or --api-key changes that"
    if prepared.settings.answers_log is not None:
        yield f"the answers to each question are written to {prepared.settings.answers_log} (--answers-log)"


def _make_grounder(args: Namespace, profile: Profile) -> Grounder | None:
    """Return what says where to look in the place of the model; None where that does. Raises ConfigError."""
    if args.grounder is None:
        return None
    asked_in = load_profile(args.grounder_profile) if args.grounder_profile else profile
    return make_grounder(args.grounder, args.grounder_device, asked_in)


@asynccontextmanager
async def running(grounder: Grounder | None) -> AsyncIterator[None]:
    """Start a grounder before the model is loaded, which takes what memory is left. Raises ConfigError."""
    async with AsyncExitStack() as held:
        if isinstance(grounder, AbstractAsyncContextManager):
            with step("Starting the grounder"):
                await held.enter_async_context(grounder)
        yield


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
    """Return the administrators' routes, which are there where somebody has a key to them."""
    keys = _key_ring(settings.admin_api_keys, settings.admin_api_key_file, "--admin-api-key-file")
    return Admin(keys, offered_routers(args.profiler_config).values())


def _check_answers_log(settings: Settings) -> None:
    """Say what is wrong with the file before a model is loaded. Raises ConfigError."""
    if settings.answers_log is not None:
        check_file(settings.answers_log)
        # Who rotates it while the model is loaded would end the server: the file is opened once it is loaded.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _import_plugins(args: Namespace) -> None:
    """Let parsers of the operator's own register themselves. Raises ConfigError."""
    for flag in ("tool_parser_plugin", "reasoning_parser_plugin"):
        file = getattr(args, flag)
        if file and import_plugin(file) is None:
            raise ConfigError(f"--{flag.replace('_', '-')} {file} can't be imported; the log says why.")


def _check_parsers(args: Namespace) -> None:
    """Judge the names of parsers, the plugins' among them, before a model is loaded. Raises ConfigError."""
    known = {"tool_call_parser": ToolParserManager, "reasoning_parser": ReasoningParserManager}
    for flag, parsers in known.items():
        name, names = getattr(args, flag), parsers.list_registered()
        if name and name not in names:
            there = ", ".join(sorted(names))
            raise ConfigError(f"--{flag.replace('_', '-')} {name}: there is none of that name, but {there}.")
    if args.enable_auto_tool_choice and not args.tool_call_parser:
        raise ConfigError("--enable-auto-tool-choice needs --tool-call-parser: nothing else reads the calls.")


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
