"""The answers log: whole lines in order, whatever becomes of the file, and no answer that waits for it."""

import json
import logging
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from dualfocus_engine import ConfigError
from dualfocus_server.telemetry import answers_log
from dualfocus_server.telemetry.answers_log import AnswersLog, check_file
from prometheus_client import REGISTRY

WAIT = 300


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers"


def written(path: Path) -> list[Any]:
    """The numbers of the records in a file; None for a line that holds none."""
    return [_number(line) for line in path.read_text().splitlines()]


def _number(line: str) -> Any:
    try:
        return json.loads(line)["number"]
    except ValueError:
        return None


def finish(log: AnswersLog) -> None:
    log.close()
    log._writer.join(WAIT)
    assert not log._writer.is_alive()


def failures() -> float:
    return REGISTRY.get_sample_value("dualfocus_answers_log_failures_total") or 0.0


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow past a size: a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def until_written(log: AnswersLog) -> None:
    """Wait until everything that was added is done."""
    done = Event()
    log._put(done.set)
    assert done.wait(WAIT)


def test_each_record_is_a_line_behind_those_of_before(path: Path) -> None:
    path.write_text('{"number": 0}\n')
    log = AnswersLog(path)
    for number in range(1, 50):
        log.add({"number": number, "text": "two\nlines\u2028\u0085 and \ud800"})
    finish(log)
    assert written(path) == list(range(50))
    last = json.loads(path.read_text().splitlines()[-1])
    assert last["text"] == "two\nlines\u2028\u0085 and \ud800"
    assert last["time"].endswith("+00:00")


@pytest.mark.parametrize("there", [False, True])
def test_the_file_is_its_owners_alone(path: Path, there: bool) -> None:
    if there:
        path.touch()
        path.chmod(0o644)
    finish(AnswersLog(path))
    assert path.stat().st_mode & 0o7777 == 0o600


def test_a_file_that_was_moved_is_left_at_the_line_it_was_moved_at(path: Path) -> None:
    log, old = AnswersLog(path), path.with_name("old")
    log.add({"number": 1})
    until_written(log)
    path.rename(old)
    log.add({"number": 2})
    log.reopen()
    log.add({"number": 3})
    finish(log)
    assert (written(old), written(path)) == ([1, 2], [3])
    assert path.stat().st_mode & 0o7777 == 0o600


def test_where_it_can_not_be_opened_anew_the_old_file_is_written_on(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, old, before = AnswersLog(path), path.with_name("old"), failures()
    path.rename(old)
    path.mkdir()
    log.reopen()
    log.add({"number": 1})
    finish(log)
    assert written(old) == [1]
    assert failures() - before == 1
    assert "directory" in caplog.text


def test_lines_that_can_not_be_written_are_counted_and_spoil_no_other(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, before = AnswersLog(path), failures()
    log.add({"number": 1})
    until_written(log)
    with largest_file(path.stat().st_size + 10), caplog.at_level(logging.WARNING):
        log.add({"number": 2, "text": "xyzzy"})
        log.add({"number": 3, "text": "xyzzy"})
        until_written(log)
    log.add({"number": 4})
    finish(log)
    assert written(path) == [1, None, 4]
    assert failures() - before == 2
    assert len(caplog.records) == 2
    assert "xyzzy" not in caplog.text


def test_a_disk_that_does_not_answer_holds_nobody(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers, entered = Event(), Event()

    def stuck(file: int, line: bytes) -> int:
        entered.set()
        assert answers.wait(WAIT)
        return os.write(file, line)

    monkeypatch.setattr(answers_log, "os", _Os(stuck))
    log, before, most = AnswersLog(path), failures(), answers_log._MAX_WAITING_LINES
    log.add({"number": 0})
    assert entered.wait(WAIT)
    for number in range(1, most + 11):  # each returns, though nothing is written
        log.add({"number": number})
    assert failures() - before == 10
    assert len(caplog.records) == 10
    assert written(path) == []
    answers.set()
    finish_when_empty(log)
    assert written(path) == list(range(most + 1))


class _Os:
    """The module `os` with another `write`."""

    def __init__(self, write: Any) -> None:
        self.write = write

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def finish_when_empty(log: AnswersLog) -> None:
    """Close once there is room for it among what waits."""
    log._steps.put(log._close, timeout=WAIT)
    log._writer.join(WAIT)
    assert not log._writer.is_alive()


@pytest.mark.parametrize(
    ("name", "why"),
    [("nothing/answers", "No such file"), ("", "directory"), ("pipe", "No such device"), ("/dev/null", "Not a plain")],
)
def test_what_can_not_be_written_to_is_said_at_start(tmp_path: Path, name: str, why: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    for opened in (check_file, AnswersLog):
        with pytest.raises(ConfigError, match=f"--answers-log .*{why}"):
            opened(tmp_path / name)


def test_the_check_makes_the_file(path: Path) -> None:
    check_file(path)
    assert path.read_text() == ""
    assert path.stat().st_mode & 0o7777 == 0o600
