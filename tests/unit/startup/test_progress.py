"""What start-up prints."""

import re
import threading

import pytest
from dualfocus_server.startup import progress


def _lines(captured: pytest.CaptureFixture[str]) -> list[str]:
    out, err = captured.readouterr()
    assert out == "", "standard output is for answers"
    return err.splitlines()


def test_step_is_named_before_and_timed_after(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.step("Loading"):
        assert _lines(capsys) == ["Loading …"]
    (line,) = _lines(capsys)
    assert re.fullmatch(r"Loading: \d+\.\d s", line)


def test_long_step_says_that_it_still_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_EVERY", 0.001)
    said: list[str] = []
    before = set(threading.enumerate())
    with progress.step("Loading"):
        while len(said) < 3:  # held, as a model that is loaded holds it
            said += _lines(capsys)
    assert said[0] == "Loading …"
    assert all(re.fullmatch(r"Loading … \d+ s", line) for line in said[1:])
    assert set(threading.enumerate()) <= before, "it goes on after the step has ended"


def test_step_that_fails_ends_without_a_duration(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), progress.step("Loading"):
        raise RuntimeError
    assert _lines(capsys) == ["Loading …"]
