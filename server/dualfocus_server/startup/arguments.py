"""The command line of `dualfocus serve`: vLLM's flags, those of the method, and the server's own (`settings.py`).

Any of them may stand in a YAML file.

Leans on vLLM 0.32's `FlexibleArgumentParser` (`load_config_file`, underscores for dashes, options of JSON in parts) and
on the flags that `FrontendArgs` and `AsyncEngineArgs` add.
"""

import argparse
import ssl
from argparse import Namespace
from collections.abc import Sequence

import yaml
from dualfocus_engine.machine.platform import engine_defaults
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.utils.argparse_utils import FlexibleArgumentParser

from dualfocus_server.answering.protocol import MODES
from dualfocus_server.guards.http_protocol import HEAD_BYTES
from dualfocus_server.settings import add_flags, at_least
from dualfocus_server.startup.adapters import adapter_profile

# Flags of vLLM's server that this one uses, itself or through vLLM's servings.
_TAKEN = {
    *("host", "port", "uds", "root_path", "uvicorn_log_level", "disable_uvicorn_access_log", "api_key"),
    "sse_keep_alive_interval",
    "enable_tokenizer_info_endpoint",
    *("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_cert_reqs", "ssl_ciphers", "enable_ssl_refresh"),
    *("middleware", "disable_access_log_for_endpoints", "h11_max_incomplete_event_size", "enable_offline_docs"),
    *("tool_parser_plugin", "anthropic_disabled_thinking_effort"),
    *("allow_credentials", "allowed_origins", "allowed_methods", "allowed_headers"),
    *("chat_template", "chat_template_content_format", "default_chat_template_kwargs", "cohere_format"),
    *("trust_request_chat_template", "trust_request_mm_kwargs", "response_role", "lora_modules"),
    *("enable_auto_tool_choice", "exclude_tools_when_tool_choice_none", "tool_call_parser", "tool_strict_level"),
    *("return_tokens_as_token_ids", "enable_force_include_usage", "enable_per_request_metrics"),
    *("max_log_len", "enable_log_outputs", "enable_log_deltas"),
    *("fingerprint_mode", "fingerprint_value", "disable_fastapi_docs"),
    # Done in any case.
    *("enable_prompt_tokens_details", "enable_request_id_headers", "enable_server_load_tracking"),
}
_ONE_SERVER = "one server answers for all ranks"
_TOKENS_ONLY = "prompts as tokens and pictures as tensors would go round all rules about pictures"
_TURNS_QUEUED = "it would refuse single turns of questions that were admitted; --max-queued counts whole questions"
_NO_GRPC = "there is no gRPC"
# The others, and why (docs/operations.md has them too).
_REFUSED = {
    "allowed_local_media_path": "pictures come with the request or from --allowed-media-domains, never from a disk",
    "data_parallel_multi_port_external_lb": _ONE_SERVER,
    "log_error_stack": "an error that is the server's is logged with its stack in any case",
    "cohere_is_reasoning_model": "there is no route of Cohere's",
    "data_parallel_supervisor_port": _ONE_SERVER,
    "dp_supervisor_probe_failure_threshold": _ONE_SERVER,
    "dp_supervisor_probe_interval_s": _ONE_SERVER,
    "dp_supervisor_probe_timeout_s": _ONE_SERVER,
    "enable_flash_late_interaction": "it is for models that score, not for those that answer",
    "enable_scale_out": _TOKENS_ONLY,
    "grpc": _NO_GRPC,
    "grpc_port": _NO_GRPC,
    "headless": _ONE_SERVER,
    "h11_max_header_count": "uvicorn has no such limit; --h11-max-incomplete-event-size bounds all headers together",
    "max_num_queued_reqs": _TURNS_QUEUED,
    "max_num_queued_tokens": _TURNS_QUEUED,
    "tokens_only": _TOKENS_ONLY,
    "tool_server": "vLLM would call those tools itself, outside the limits that questions have here",
}

_DESCRIPTION = """Serve a vision-language model that looks twice, behind OpenAI's chat completions API.
Takes the flags of `vllm serve` beside its own; --help=all shows them, --help=PART those of a part."""


class _Parser(FlexibleArgumentParser):
    """vLLM's parser, with more ways to write what a YAML file may hold."""

    def parse_args(self, args: Sequence[str], namespace: Namespace | None = None) -> Namespace:
        """Read a command line. vLLM's own way takes `--config=FILE` and reads no file."""
        split = [part for arg in args for part in (arg.split("=", 1) if arg.startswith("--config=") else [arg])]
        if split.count("--config") > 1 or split[-1:] == ["--config"]:
            self.error("argument --config: expected one file")
        parsed: Namespace = super().parse_args(split, namespace)
        return parsed

    def load_config_file(self, file_path: str) -> list[str]:
        """Return a file's options as arguments, so that both are judged alike."""
        try:
            given = super().load_config_file(file_path)
        except AttributeError:
            self.error(f"--config {file_path}: expected lines of the form `option: value`")
        except (OSError, ValueError, yaml.YAMLError) as error:
            self.error(f"--config {file_path}: {error}")
        # At the end, so that an option with several values takes none of the command line's.
        return [*given, "--config", file_path]


def make_parser() -> FlexibleArgumentParser:
    """Return the parser of `dualfocus serve`."""
    # A flag of vLLM's that the server defines anew (--api-key) is the server's.
    parser = _Parser(
        prog="dualfocus serve",
        usage="%(prog)s [MODEL] [flags]",
        description=_DESCRIPTION,
        conflict_handler="resolve",
    )
    parser.add_argument("model_tag", nargs="?", help="a folder or hub name; the model to start with if left out")
    parser.add_argument("--config", help="a YAML file of options; the command line goes before it")
    _add_method_flags(parser)
    FrontendArgs.add_cli_args(parser)
    AsyncEngineArgs.add_cli_args(parser)
    for name in ("--headless", "--grpc"):  # those that `vllm serve` adds to them by itself
        parser.add_argument(name, action="store_true")
    add_flags(parser)
    # vLLM's own default is a model of its choice; and 4 MiB of headers.
    parser.set_defaults(model=None, h11_max_incomplete_event_size=HEAD_BYTES, **engine_defaults())
    for action in parser._actions:
        if action.dest in _REFUSED:
            action.help = f"not taken: {_REFUSED[action.dest]}"
        elif action.dest == "allowed_media_domains":  # vLLM's default, and what its own help tells, is any
            action.help = "where pictures are fetched from: example.org, *.example.org, * for any; none if left out"
    return parser


def _add_method_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the method, and those that say what is logged and traced."""
    ours = parser.add_argument_group("DualFocus")
    ours.add_argument("--profile", help="a profile's name or YAML file; the model's own if left out")
    ours.add_argument(
        "--lora-profiles",
        nargs="+",
        type=adapter_profile,
        default=[],
        metavar="NAME=PROFILE",
        help="profiles of adapters that were trained in other words than the model; the model's if left out",
    )
    ours.add_argument(
        "--mode",
        choices=MODES,
        default="dual",
        help="what a request means that names no mode: dual, regions, search, adaptive, macro, …",
    )
    _add_look_flags(ours)
    ours.add_argument(
        "--draft-boxes",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="propose the tokens that every box holds, so that it takes fewer steps; requests with logit_bias or min_p "
        "are refused then",
    )
    _add_grounder_flags(ours)
    ours.add_argument("--log-format", choices=["text", "json"], default="text", help="log lines as text or as JSON")
    ours.add_argument(
        "--otlp-endpoint",
        dest="otlp_traces_endpoint",
        help="where traces go (vLLM's --otlp-traces-endpoint): a span for each question, its stages and turns below it",
    )


def _add_look_flags(ours: argparse._ArgumentGroup) -> None:
    for part, text in (("whole", "a picture"), ("crop", "the crop")):
        ours.add_argument(
            f"--{part}-tokens",
            type=at_least(1, int),
            metavar="N",
            help=f"image tokens that {text} is shown in at most; the profile's if left out",
        )
    ours.add_argument(
        "--max-regions",
        type=at_least(1, int),
        metavar="N",
        help="mode regions: crops that are shown at most; the profile's (4) if left out",
    )
    ours.add_argument(
        "--max-looks",
        type=at_least(2, int),
        metavar="N",
        help="mode search: looks that it takes at most, the first one counted; the profile's (4) if left out",
    )
    ours.add_argument(
        "--skip-below",
        type=at_least(0, float),
        metavar="PPL",
        help="mode adaptive: a macro answer of less perplexity stands without a second look (0: none does); the "
        "profile's if left out",
    )


def _add_grounder_flags(ours: argparse._ArgumentGroup) -> None:
    ours.add_argument(
        "--grounder",
        metavar="NAME",
        help="what says where to look in the place of the model: grounding-dino[:MODEL], http:URL, model:URL, or a "
        "name that a package registers",
    )
    ours.add_argument(
        "--grounder-timeout",
        type=at_least(0, float),
        default=30.0,
        help="seconds that it has; a question that it is late for is answered by macro (0: no limit)",
    )
    ours.add_argument("--grounder-device", default="cpu", help="where grounding-dino runs: cpu, cuda:1, …")
    ours.add_argument(
        "--grounder-profile",
        metavar="PROFILE",
        help="the profile in whose words model:URL is asked; the served model's if left out",
    )


def _are_ciphers(names: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(names)
    except ssl.SSLError:
        return False
    return True


def parse_arguments(argv: Sequence[str]) -> Namespace:
    """Read the command line (and the YAML file of --config); exits with a message on a bad one.

    `model` is the one given either way, or None.
    """
    parser = make_parser()
    args: Namespace = parser.parse_args(argv)
    for name, why in _REFUSED.items():
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} is not taken: {why}")
    if args.enable_ssl_refresh and not args.ssl_certfile:
        parser.error("--enable-ssl-refresh needs --ssl-certfile")
    if args.ssl_ciphers and not _are_ciphers(args.ssl_ciphers):
        parser.error(f"--ssl-ciphers {args.ssl_ciphers} names no cipher that OpenSSL knows")
    if args.enable_log_outputs and not args.enable_log_requests:
        parser.error("--enable-log-outputs needs --enable-log-requests")
    if args.enable_per_request_metrics and args.disable_log_stats:
        parser.error("--enable-per-request-metrics can't be used with --disable-log-stats")
    args.model = args.model_tag or args.model
    return args
