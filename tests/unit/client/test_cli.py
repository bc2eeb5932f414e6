"""The command line that the commands hang on."""

import sys
from importlib.metadata import version
from unittest.mock import Mock

import pytest
from dualfocus_client import cli


def _command_line(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dualfocus", *arguments])
    return cli.main()


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    assert _command_line(monkeypatch, flag) == 0
    assert capsys.readouterr().out == f"dualfocus {version('dualfocus')}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_the_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert _command_line(monkeypatch, *arguments) == 0
    out = capsys.readouterr().out
    assert "dualfocus ask" in out
    assert "dualfocus serve" in out


@pytest.mark.parametrize("name", ["asks", "--verbose", ""])
def test_unknown_command_is_status_2_and_names_those_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert _command_line(monkeypatch, name, "x") == 2
    err = capsys.readouterr().err
    assert f"no command {name!r}" in err
    assert "dualfocus ask" in err


def test_command_gets_the_rest_of_the_line_and_gives_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _command_line(monkeypatch, "ask", "/no/such/file.png", "What?") == 1
    assert "/no/such/file.png" in capsys.readouterr().err


def test_an_interruption_is_said_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dualfocus_client.ask.main", Mock(side_effect=KeyboardInterrupt))
    assert _command_line(monkeypatch, "ask", "photo.jpg", "What?") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "dualfocus_eval.calibrate", None)
    assert _command_line(monkeypatch, "calibrate", "questions.jsonl") == 1
    err = capsys.readouterr().err
    assert "error: dualfocus calibrate: " in err
    assert "the extras of dualfocus bring it: cpu or gpu to serve, eval for plots, training for all else" in err
