"""The command line of `dualfocus serve`."""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from dualfocus_client import ask
from dualfocus_engine import ConfigError
from dualfocus_server.settings import settings_of
from dualfocus_server.startup import arguments
from dualfocus_server.startup.arguments import parse_arguments
from starlette.middleware.gzip import GZipMiddleware
from vllm.entrypoints.launchers.cli_args import FrontendArgs, make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


def _file(folder: Path, text: str) -> str:
    path = folder / "serve.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("argv", "model"),
    [([], None), (["ours"], "ours"), (["--model", "ours"], "ours"), (["--model=ours"], "ours")],
)
def test_model_is_the_one_given_either_way(argv: list[str], model: str | None) -> None:
    assert parse_arguments(argv).model == model


@pytest.mark.parametrize("before", [[], ["theirs"]])
def test_model_may_stand_in_the_file_and_the_command_line_goes_before_it(tmp_path: Path, before: list[str]) -> None:
    config = ["--config", _file(tmp_path, "model: ours\nport: 1234\n")]
    args = parse_arguments([*before, *config, "--port", "4321"])
    assert (args.model, args.port) == (before[0] if before else "ours", 4321)


@pytest.mark.parametrize("written", [["--config", "{}"], ["--config={}"]])
def test_file_is_read_however_it_is_written(tmp_path: Path, written: list[str]) -> None:
    config = _file(tmp_path, "port: 1234\n")
    args = parse_arguments([part.format(config) for part in written])
    assert (args.port, args.config) == (1234, config)


def test_list_in_the_file_takes_nothing_from_the_command_line(tmp_path: Path) -> None:
    config = _file(tmp_path, "api_key: [a, b]\nserved-model-name: [one, other]\n")
    args = parse_arguments(["--config", config, "ours"])
    assert (args.api_key, args.served_model_name, args.model) == (["a", "b"], ["one", "other"], "ours")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected lines of the form `option: value`"),
        ("- a\n", "expected lines of the form `option: value`"),
        ("port: [1\n", "while parsing"),
        ("no-such-flag: 1\n", "unrecognized arguments: --no-such-flag"),
    ],
)
def test_bad_file_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--config", _file(tmp_path, text)])
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--config"], "argument --config: expected one file"),
        (["--config", "a.yaml", "--config=b.yaml"], "argument --config: expected one file"),
        (["--config", "/nothing.yaml"], "No such file or directory: '/nothing.yaml'"),
        (["--ssl-ciphers", "x"], "--ssl-ciphers x names no cipher"),
        (["--enable-ssl-refresh"], "--enable-ssl-refresh needs --ssl-certfile"),
        (["--allowed-local-media-path", "/pictures"], "--allowed-local-media-path is not taken: pictures come with"),
        (["--tool-server", "demo"], "--tool-server is not taken: vLLM would call those tools itself"),
        (["--h11-max-header-count", "9"], "--h11-max-header-count is not taken: uvicorn has no such limit"),
        (["--grpc-port", "9"], "--grpc-port is not taken: there is no gRPC"),
        (["--grpc"], "--grpc is not taken: there is no gRPC"),
        (["--headless"], "--headless is not taken: one server answers for all ranks"),
        (["--shutdown-timeout", "-1"], "--shutdown-timeout: -1 is less than 0"),
        (["--enable-log-outputs"], "--enable-log-outputs needs --enable-log-requests"),
        (["--enable-per-request-metrics", "--disable-log-stats"], "can't be used with --disable-log-stats"),
        (["--mode", "both"], "argument --mode: invalid choice: 'both'"),
        (["--whole-tokens", "0"], "argument --whole-tokens: 0 is less than 1"),
        (["--sse-keep-alive-interval", "-1"], "argument --sse-keep-alive-interval: -1 is less than 0"),
    ],
)
def test_bad_flag_is_said_in_a_line(capsys: pytest.CaptureFixture[str], argv: list[str], complaint: str) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(argv)
    told = capsys.readouterr().err.splitlines()
    assert complaint in told[-1]
    assert len(told) == 2, "the usage takes one line"


@pytest.mark.parametrize(("argv", "seconds"), [([], 0), (["--sse-keep-alive-interval", "5"], 5)])
def test_streams_have_no_comments_but_where_vllms_flag_asks_for_them(argv: list[str], seconds: int) -> None:
    assert settings_of(parse_arguments(argv)).sse_keep_alive_interval == seconds


def test_several_keys_after_one_flag_take_nothing_for_the_model() -> None:
    args = parse_arguments(["ours", "--api-key", "a", "b", "--port", "1"])
    assert (args.api_key, args.model) == (["a", "b"], "ours")


def test_the_drain_is_the_servers_and_not_the_engines() -> None:
    args = parse_arguments(["--shutdown-timeout", "5"])
    assert settings_of(args).drain_timeout == 5
    assert not hasattr(args, "shutdown_timeout")


@pytest.mark.parametrize(("argv", "docs"), [([], True), (["--disable-fastapi-docs"], False)])
def test_docs_can_be_turned_off(argv: list[str], docs: bool) -> None:
    assert settings_of(parse_arguments(argv)).docs is docs


def test_pages_of_other_origins_are_answered_where_the_operator_names_them() -> None:
    """vLLM's default is none."""
    assert settings_of(parse_arguments([])).cors is None
    named = settings_of(parse_arguments(["--allowed-origins", '["https://app.example"]'])).cors
    assert named is not None
    assert named["allow_origins"] == ["https://app.example"]


@pytest.mark.parametrize("written", ["/llm", "llm", "/llm/"])
def test_a_prefix_is_read_however_its_slashes_are_written(written: str) -> None:
    assert settings_of(parse_arguments(["--root-path", written])).root_path == "/llm"


def test_every_flag_of_vllms_server_is_taken_or_refused_with_a_reason() -> None:
    """A flag that a new vLLM brings makes this fail."""
    engines = {"allowed_local_media_path", "data_parallel_multi_port_external_lb", "max_num_queued_reqs"}
    engines |= {"max_num_queued_tokens", "headless", "grpc"}
    theirs = {field.name for field in fields(FrontendArgs)} | engines
    assert arguments._TAKEN | set(arguments._REFUSED) == theirs
    assert not arguments._TAKEN & set(arguments._REFUSED)


def test_every_flag_of_vllm_serve_is_known_or_stands_in_the_documents() -> None:
    ours = {name for action in arguments.make_parser()._actions for name in action.option_strings}
    theirs = {name for action in make_arg_parser(FlexibleArgumentParser())._actions for name in action.option_strings}
    refused = {f"--{name.replace('_', '-')}" for name in arguments._REFUSED}
    table = OPERATIONS.read_text(encoding="utf-8").partition("| not taken |")[2].partition("\n\n")[0]
    listed = set(re.findall(r"`(-[\w-]+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:])))
    assert listed == refused | (theirs - ours)


def test_what_a_flag_brings_in_is_found_before_a_model_is_loaded() -> None:
    settings = settings_of(parse_arguments(["--middleware", "starlette.middleware.gzip.GZipMiddleware"]))
    assert settings.middleware == (GZipMiddleware,)
    for name in ("nothing", "no.such.module", "json.nothing", "json.dumps", ".a"):
        with pytest.raises(ConfigError, match=f"--middleware {re.escape(name)} "):
            settings_of(parse_arguments(["--middleware", name]))


def test_paths_without_log_lines_are_a_list() -> None:
    args = parse_arguments(["--disable-access-log-for-endpoints", "/health, /ping"])
    assert settings_of(args).unlogged_paths == {"/health", "/ping"}


# vLLM reads the help of its flags only where the process was asked for it.
_UNHELPFUL = """
import argparse, json, sys
from dualfocus_server.startup.arguments import make_parser
parser = make_parser()
written = {a.dest: parser._get_formatter()._get_help_string(a) or "" for a in parser._actions}
print(json.dumps([a.dest for a in parser._actions if not written[a.dest].strip() or (
    "%(default)" not in written[a.dest] and a.default is not argparse.SUPPRESS)]))
"""


def test_every_option_of_serve_has_help_and_its_default() -> None:
    asked = [sys.executable, "-c", _UNHELPFUL, "serve", "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_every_option_of_ask_has_help_and_its_default() -> None:
    parser = ask.make_parser()
    formatter = parser._get_formatter()
    for action in parser._actions:
        assert action.help, action.dest
        written = formatter._get_help_string(action)
        is_needed = not action.option_strings
        assert is_needed or action.default is argparse.SUPPRESS or "%(default)s" in str(written), action.dest
