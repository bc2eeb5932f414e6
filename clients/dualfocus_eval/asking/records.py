"""A run's records: what was asked and what the server said of it, a JSON object a line."""

import fcntl
import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

RECORDS_FILE = "records.jsonl"

# `variant` says how a question was asked: "" the first time, then "scoring shared", "shift 10".
Record = dict[str, Any]


class RunError(Exception):
    """A run's folder can't be used as it is meant to be; the message says why, and what helps."""


class Records:
    """Records that are added to. Those of a question that failed are replaced by its next ones.

    All are held in memory, without pictures. Raises RunError where they are none, or another run is writing them.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / RECORDS_FILE
        # Unbuffered: a record is in the file, whole, once it is written.
        self._file = path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise RunError(f"{path}: another run is writing it") from error
        self._newest, self._end = _load(path)
        self._file.truncate(self._end)

    def __enter__(self) -> "Records":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, record: Record) -> None:
        """Write a record. Raises OSError."""
        data = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "replace")
        if self._file.write(data) != len(data):
            self._file.truncate(self._end)  # others may still write: behind a part of a line none would be read
            raise OSError(f"{self._file.name}: no space left")
        self._end += len(data)
        self._newest[record["variant"], record["id"]] = record

    def answered(self, variant: str, sample: str) -> Record | None:
        """Return the record of a question that was answered; None where there is none, or it failed."""
        record = self._newest.get((variant, sample))
        return None if record is None or "error" in record else record

    def all(self) -> Iterable[Record]:
        """Return the newest record of each question and variant."""
        return self._newest.values()


def read_records(folder: Path) -> list[Record]:
    """Return the newest record of each question and variant of a run. Raises RunError."""
    path = folder / RECORDS_FILE
    try:
        return list(_load(path)[0].values())
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}: a folder that `dualfocus eval` wrote is expected") from error


def _load(path: Path) -> tuple[dict[tuple[str, str], Record], int]:
    """Return the newest records, and how many bytes of the file are whole lines."""
    newest: dict[tuple[str, str], Record] = {}
    whole = 0
    with path.open("rb") as lines:
        for number, text in enumerate(lines, 1):
            if not text.endswith(b"\n"):  # its writer was killed, or the disk was full
                break
            record = _read(path, number, text)
            newest[record["variant"], record["id"]] = record
            whole += len(text)
    return newest, whole


def _read(path: Path, number: int, text: bytes) -> Record:
    try:
        record: Record = json.loads(text)
        record["variant"], record["id"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}, line {number}: is no record of a run") from error
    return record
