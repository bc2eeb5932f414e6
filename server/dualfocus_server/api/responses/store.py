"""The responses that are kept: each for the key that made it, the oldest given up where they become too many.

Pictures are kept as the client sent them, in its items: encoded, or by their URL.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json

from dualfocus_server.api.responses.items import canonical_output
from dualfocus_server.guards.api_errors import ApiError, VllmResponseError

MAX_RESPONSES, MAX_BYTES = 1_000, 256 << 20


@dataclass(eq=False)
class Stored:
    """What is kept of one response: the conversation's items, its answer's among them, and the response as JSON.

    `events` are those of a response that is made in the background by `task`: each stands at its number.
    """

    store: "ResponseStore"
    id: str
    owner: str
    items: list[Any]
    response: dict[str, Any] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    size: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_ended(self) -> bool:
        """Whether it has come to its end, whichever that is."""
        return self.response["status"] not in ("queued", "in_progress")

    def end(self, response: dict[str, Any], output: list[Any]) -> None:
        """Keep the whole response."""
        self.response = response
        self.items = [*self.items, *canonical_output(output)]
        self.store.add(self)

    def set_status(self, status: str, **fields: Any) -> None:
        """Say how far it is."""
        self.response = self.response | {"status": status} | fields

    def add_event(self, event: str) -> None:
        """Add what is streamed; comments are for those who listen at the time."""
        if not event.startswith(":"):
            self.events.append(event)
            self.wake()

    def wake(self) -> None:
        """Let those who read the events see what is new."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def read(self, number: int) -> AsyncIterator[str]:
        """Yield the events from a number on, those that are still to come too."""
        while True:
            changed = self._changed
            for event in self.events[number:]:
                yield event
                number += 1
            if number >= len(self.events) and (self.task is None or self.task.done()):
                return
            await changed.wait()


class ResponseStore:
    """Keeps so many responses, and so many bytes of them."""

    def __init__(self, most: int = MAX_RESPONSES, most_bytes: int = MAX_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: dict[str, Stored] = {}  # the oldest first
        self._bytes = 0

    def add(self, stored: Stored) -> None:
        """Keep a response, or as much as it is by now; the oldest that have ended make room."""
        self._drop(stored.id)
        events = sum(map(len, stored.events))
        stored.size = len(to_json(stored.items)) + len(to_json(stored.response)) + events
        self._kept[stored.id] = stored
        self._bytes += stored.size
        for old in list(self._kept.values()):
            if len(self._kept) <= self._most and self._bytes <= self._most_bytes:
                break
            if old.is_ended:
                self._drop(old.id)

    def get(self, response_id: str, owner: str, param: str = "response_id") -> Stored:
        """Return a response of this owner's; `param` is where the client named it. Raises VllmResponseError."""
        stored = self._kept.get(response_id)
        if stored is None or stored.owner != owner:
            raise not_found(response_id, param)
        return stored

    def _drop(self, response_id: str) -> None:
        if (dropped := self._kept.pop(response_id, None)) is not None:
            self._bytes -= dropped.size


def not_found(response_id: str, param: str = "response_id") -> VllmResponseError:
    """Return the error of a response that is not kept, for this client or for any."""
    message = f"There is no response with the id {response_id!r}."
    return VllmResponseError(ApiError(HTTPStatus.NOT_FOUND, message, param))
