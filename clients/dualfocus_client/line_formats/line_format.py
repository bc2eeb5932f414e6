"""What a format of a batch's lines has to say: how questions are read and sent, how their answers are kept."""

import json
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar, NamedTuple, Protocol

import httpx

from dualfocus_client.client import AskError


@dataclass(frozen=True)
class Question(ABC):
    """A line of the file of questions; `url` is the route that it goes to.

    `fingerprint` is eight bytes of what is asked, as hexadecimal digits: it changes when the question does.
    """

    line: int
    url: str
    fingerprint: str
    # Statuses of refusals that are not about this question: all others would get the same.
    refusals_of_all: ClassVar[Collection[int]]

    @abstractmethod
    def fault(self) -> str | None:
        """Say what keeps the question from being asked; None where nothing does."""

    @abstractmethod
    def body(self) -> dict[str, Any]:
        """Return the request. Raises AskError where its image can't be read."""

    @abstractmethod
    def answer(self, response: httpx.Response) -> dict[str, Any]:
        """Return what is kept of a response. Raises AskError where it is no answer."""

    @abstractmethod
    def failure(self, error: AskError) -> dict[str, Any]:
        """Return what is kept where there is no answer; its `error` is not null."""

    @abstractmethod
    def told(self, found: dict[str, Any]) -> dict[str, Any]:
        """Return what is kept as a line of the file of answers."""


class Kept(NamedTuple):
    """What a line of the file of answers says of its question: where it stands, what it was, why it failed."""

    line: int
    fingerprint: str
    error: str | None


class LineFormat(Protocol):
    """A format of lines; `accepted` says what a question is."""

    accepted: ClassVar[str]

    def question(self, number: int, text: bytes) -> Question:
        """Read a line of the file of questions. Raises ValueError where it is none."""

    def kept(self, text: bytes) -> Kept:
        """Read a line of the file of answers. Raises ValueError where it is none."""


def fingerprint_of(*asked: Any) -> str:
    """Return the fingerprint of what is asked. Raises ValueError for numbers that JSON has not."""
    return blake2b(json.dumps(asked, sort_keys=True, allow_nan=False).encode(), digest_size=8).hexdigest()
