"""`--answers-log`: a file with a JSON line for each question, for those whose client drops the `dualfocus` field.

A thread of its own writes it: no answer waits for a disk, and no two lines mix.
"""

import json
import logging
import os
import stat
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Any

from dualfocus_engine import ConfigError

from dualfocus_server.telemetry.metrics import ANSWERS_LOG_FAILURES

logger = logging.getLogger(__name__)

_MODE = 0o600
# Lines that wait for a disk which does not answer; more are lost, or they would fill the memory.
_MAX_WAITING_LINES = 1_000
# What the last lines get to be written when the server ends.
_CLOSING_S = 5.0


def check_file(path: Path) -> None:
    """Create the file where it is not there. Raises ConfigError where it can't be written to."""
    os.close(_open_first(path))


class AnswersLog:
    """Appends records to a file that only its owner can read. Raises ConfigError where it can't be opened.

    What can't be written later costs a log line and a count in `dualfocus_answers_log_failures_total`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _open_first(path)
        self._is_open = True
        self._is_torn = False
        self._steps: Queue[Callable[[], None]] = Queue(_MAX_WAITING_LINES)
        # A daemon: the server ends also where a disk never answers.
        self._writer = Thread(target=self._work, name="answers-log", daemon=True)
        self._writer.start()

    def add(self, record: Mapping[str, Any]) -> None:
        """Write a record, with the time, soon."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._put(partial(self._write, {"time": now, **record}))

    def reopen(self) -> None:
        """Go on in a file of the same name, once what was added before is written: the old one has been moved."""
        self._put(self._reopen)

    def close(self) -> None:
        """Write what is left and close the file."""
        self._put(self._close)
        self._writer.join(_CLOSING_S)

    def _put(self, step: Callable[[], None]) -> None:
        try:
            self._steps.put_nowait(step)
        except Full:
            self._fail(f"{_MAX_WAITING_LINES} lines wait already")

    def _work(self) -> None:
        while self._is_open:
            try:
                self._steps.get()()
            except Exception as error:
                self._fail(str(error))

    def _write(self, record: Mapping[str, Any]) -> None:
        # In ASCII, so that nothing in it ends a line; at once, so that whoever reads on sees whole lines.
        line = ("\n" * self._is_torn + json.dumps(record) + "\n").encode()
        self._is_torn = os.write(self._file, line) < len(line)
        if self._is_torn:
            raise OSError("only a part of the line could be written")

    def _reopen(self) -> None:
        file = _open(self._path)  # where that fails, the old one is written on
        os.close(self._file)
        self._file, self._is_torn = file, False

    def _close(self) -> None:
        os.close(self._file)
        self._is_open = False

    def _fail(self, why: str) -> None:
        ANSWERS_LOG_FAILURES.inc()
        logger.warning("The answers log %s could not be written: %s.", self._path, why)


def _open_first(path: Path) -> int:
    try:
        return _open(path)
    except OSError as error:
        raise ConfigError(f"--answers-log {path}: {error.strerror}") from error


def _open(path: Path) -> int:
    """Open a file to append to, which only its owner may read. Raises OSError, also where it is no plain file."""
    # Not to wait for whoever reads a pipe, which is refused.
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, _MODE)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(0, "Not a plain file")
        os.fchmod(file, _MODE)
    except OSError:
        os.close(file)
        raise
    return file
