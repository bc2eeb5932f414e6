"""The file of answers that a batch writes: in the order they come while it runs, in that of the questions at its end.

So what is answered is in the file at once, and however a run ends, the next one knows what is left.
"""

import fcntl
import json
import os
import shutil
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from dualfocus_client.line_formats.line_format import Question
from dualfocus_client.questions import BatchError, Faults, QuestionFile

_NONE, _FAILED = -1, 0


class Answers:
    """Answers by the line of their question. Sixteen bytes a question are held in memory.

    Raises BatchError where the file is not one of answers, can't be written, or another batch is writing it.
    """

    def __init__(self, path: Path, questions: QuestionFile) -> None:
        self._path, self._questions = path, questions
        self.was_torn = False
        lines = questions.count_lines()
        # By line number: where in the file its newest answer begins, and the fingerprint of what was answered.
        self._places = array("q", [_NONE]) * (lines + 1)
        self._prints = array("Q", [_FAILED]) * (lines + 1)
        self._met = 0
        self._last = 0
        self._in_order = True
        self._is_new = not path.exists()
        self._file = self._open()
        try:
            self._end = self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Answers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        """Leave no empty file behind where none was."""
        self._file.close()
        if self._is_new and not self._path.stat().st_size:
            self._path.unlink()

    @property
    def answered(self) -> int:
        """How many questions have an answer."""
        return len(self._prints) - self._prints.count(_FAILED)

    def has(self, line: int) -> bool:
        """Whether a line's question is answered; one that failed is not."""
        return self._prints[line] != _FAILED

    def check(self, question: Question) -> None:
        """Raise BatchError where the answer of a question's line is to another question."""
        if not self.has(question.line):
            return
        self._met += 1
        if self._prints[question.line] != int(question.fingerprint, 16):
            raise self._changed(f"line {question.line}", "as it was before")

    def check_all_met(self) -> None:
        """Raise BatchError where a line that was answered holds no question any more."""
        if self._met < self.answered:
            raise self._changed(f"{self.answered - self._met} lines", "that are blank now")

    def _changed(self, what: str, how: str) -> BatchError:
        return BatchError(
            f"{self._path} answers {what} of {self._questions.path}, {how}: the line, the mode or the model has "
            "changed. Give those it was begun with, or name another --output."
        )

    def add(self, question: Question, found: dict[str, Any]) -> None:
        """Write a question's answer, or its `error`. Raises OSError."""
        text = json.dumps(question.told(found), ensure_ascii=False) + "\n"
        data = text.encode("utf-8", "replace")
        if self._file.write(data) != len(data):
            self._file.truncate(self._end)  # others may still write: behind a part of a line none would be read
            raise OSError(f"{self._path}: no space left")
        self._note(question.line, self._end, question.fingerprint, found.get("error") is not None)
        self._end += len(data)

    def failures(self) -> Faults:
        """Return the questions whose newest answer is an error."""
        faults = Faults()
        for line, text in self._newest():
            if not self.has(line):
                faults.add(line, self._questions.format.kept(text).error)
        return faults

    def put_in_order(self) -> None:
        """Rewrite the file in the order of the questions, the newest answer of each. Raises OSError."""
        if self._in_order:
            return
        # A link is followed, so that the file it names is the one replaced.
        target = self._path.resolve()
        ordered = target.with_name(f"{target.name}.ordering")
        with ordered.open("wb") as file:
            file.writelines(text for _, text in self._newest())
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(target, ordered)
        ordered.replace(target)

    def _newest(self) -> Iterator[tuple[int, bytes]]:
        with self._path.open("rb") as file:
            for line, place in enumerate(self._places):
                if place != _NONE:
                    file.seek(place)
                    yield line, file.readline()

    def _open(self) -> BinaryIO:
        try:
            if self._path.exists() and (not self._path.is_file() or self._path.samefile(self._questions.path)):
                raise BatchError(f"{self._path}: answers need a file of their own")
            # Unbuffered: an answer is in the file, whole, once it is written.
            file = self._path.open("ab", buffering=0)
        except (OSError, ValueError) as error:
            raise BatchError(f"{self._path}: can't be written: {getattr(error, 'strerror', error)}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise BatchError(f"{self._path}: another batch is writing it") from error
        return file

    def _read(self) -> int:
        """Note the answers that are there, mend a torn last line, and return where the next answer begins."""
        end = 0
        with self._path.open("rb") as lines:
            for number, text in enumerate(lines, 1):
                is_whole = text.endswith(b"\n")
                if not is_whole and not self._mended(text, end):
                    return end
                self._note_kept(number, text, end)
                end += len(text)
                if not is_whole:  # its new line feed would be read as one more line
                    break
        return self._file.seek(0, os.SEEK_END)

    def _mended(self, text: bytes, place: int) -> bool:
        """Drop a last line that its writer did not finish; one that lacks its line feed alone is given it."""
        try:
            self._questions.format.kept(text)
        except ValueError:
            self.was_torn = True
            self._file.truncate(place)
            return False
        self._file.write(b"\n")
        return True

    def _note_kept(self, number: int, text: bytes, place: int) -> None:
        try:
            kept = self._questions.format.kept(text)
        except ValueError as error:
            raise BatchError(
                f"{self._path}: line {number} is not an answer of a batch: name another --output"
            ) from error
        if kept.line >= len(self._places):
            raise self._changed(f"line {kept.line}", "which is not there")
        self._note(kept.line, place, kept.fingerprint, kept.error is not None)

    def _note(self, line: int, place: int, fingerprint: str, failed: bool) -> None:
        self._in_order = self._in_order and line > self._last
        self._last = line
        self._places[line] = place
        self._prints[line] = _FAILED if failed else int(fingerprint, 16)
