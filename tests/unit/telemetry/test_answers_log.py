"""The answers log: whole lines in a file that its owner alone can read, and no answer that waits for it."""

import json
import logging
import os
import stat
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from dualfocus_engine import ConfigError
from dualfocus_server.telemetry import answers_log
from dualfocus_server.telemetry.answers_log import AnswersLog, check_file
from dualfocus_server.telemetry.metrics import ANSWERS_LOG_FAILURES


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def failures() -> float:
    return float(ANSWERS_LOG_FAILURES._value.get())


def test_each_record_is_a_line_with_its_time(tmp_path: Path) -> None:
    log = AnswersLog(tmp_path / "answers")
    log.add({"id": "1", "text": "two\nlines \u2028 é"})
    log.add({"id": "2"})
    log.close()
    first, second = lines(tmp_path / "answers")
    assert (first["text"], second["id"]) == ("two\nlines \u2028 é", "2")
    assert first["time"].endswith("+00:00")


def test_what_is_there_stays_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    file = tmp_path / "answers"
    file.write_text('{"id": "0"}\n')
    file.chmod(0o644)
    log = AnswersLog(file)
    log.add({"id": "1"})
    log.close()
    assert [line["id"] for line in lines(file)] == ["0", "1"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_it_goes_on_in_a_new_file_once_the_old_one_was_moved(tmp_path: Path) -> None:
    file = tmp_path / "answers"
    log = AnswersLog(file)
    log.add({"id": "1"})
    file.rename(tmp_path / "old")
    log.add({"id": "2"})
    log.reopen()
    log.add({"id": "3"})
    log.close()
    assert [line["id"] for line in lines(tmp_path / "old")] == ["1", "2"]
    assert [line["id"] for line in lines(file)] == ["3"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("where", ["no/such/folder/answers", ".", "pipe"])
def test_a_file_that_can_not_be_written_is_refused_at_once(where: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"--answers-log .*: "):
        check_file(tmp_path / where)


def test_a_line_that_can_not_be_written_costs_a_count_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log, before = AnswersLog(tmp_path / "answers"), failures()
    write = os.write

    def full(file: int, data: bytes) -> int:
        if b"lost" in data:
            raise OSError(28, "No space left on device")
        return write(file, data[: len(data) // 2] if b"torn" in data else data)

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(answers_log.os, "write", full)
        for name in ("1", "lost", "torn", "2"):
            log.add({"id": name})
        log.close()
    assert failures() - before == 2
    assert "No space left on device" in caplog.text
    kept = (tmp_path / "answers").read_text().splitlines()
    assert [json.loads(line)["id"] for line in (kept[0], kept[-1])] == ["1", "2"], "a torn line spoils no other"


def test_where_the_disk_hangs_lines_are_lost_and_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, before = Event(), failures()
    monkeypatch.setattr(answers_log, "_MOST_WAITING", 3)
    with monkeypatch.context() as patch:
        patch.setattr(answers_log.os, "write", lambda file, data: held.wait() and len(data))
        log = AnswersLog(tmp_path / "answers")
        for number in range(10):
            log.add({"id": number})
        assert failures() - before >= 6, "three wait, and one at most is being written"
        held.set()
        log.close()
