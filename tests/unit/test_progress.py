"""What start-up prints."""

import time

import pytest
from dualfocus_server import progress


def _lines(captured: pytest.CaptureFixture[str]) -> list[str]:
    out, err = captured.readouterr()
    assert out == "", "standard output is for answers"
    return err.splitlines()


def test_step_is_named_before_and_timed_after(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.step("Loading"):
        assert _lines(capsys) == ["Loading …"]
    assert _lines(capsys) == ["Loading: 0.0 s"]


def test_long_step_says_that_it_still_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_EVERY", 0.02)
    with progress.step("Loading"):
        time.sleep(0.15)  # held, as a model that is loaded holds it
    lines = _lines(capsys)
    assert lines.count("Loading … 0 s") >= 2
    time.sleep(0.05)
    assert not _lines(capsys), "it goes on after the step has ended"


def test_step_that_fails_ends_without_a_duration(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), progress.step("Loading"):
        raise RuntimeError
    assert _lines(capsys) == ["Loading …"]
