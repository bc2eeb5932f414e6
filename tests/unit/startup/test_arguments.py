"""The command line of `dualfocus serve`."""

import argparse
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from dualfocus_client import ask
from dualfocus_server.settings import settings_of
from dualfocus_server.startup import arguments
from dualfocus_server.startup.arguments import parse_arguments
from vllm.entrypoints.launchers.cli_args import FrontendArgs


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
        (["--middleware", "a.b"], "--middleware is a flag of vLLM's own server that this one does not take"),
        (["--ssl-ciphers", "x"], "--ssl-ciphers is a flag of vLLM's own server"),
        (["--enable-ssl-refresh"], "--enable-ssl-refresh is a flag of vLLM's own server"),
        (["--allowed-local-media-path", "/pictures"], "--allowed-local-media-path is a flag of vLLM's own server"),
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


@pytest.mark.parametrize("written", ["/llm", "llm", "/llm/"])
def test_a_prefix_is_read_however_its_slashes_are_written(written: str) -> None:
    assert settings_of(parse_arguments(["--root-path", written])).root_path == "/llm"


def test_flags_that_are_taken_are_flags_of_vllms() -> None:
    theirs = {field.name for field in fields(FrontendArgs)}
    assert theirs > arguments._TAKEN


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
