"""How one of the APIs writes what is answered: the method knows none of them."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, Protocol

from dualfocus_engine.method.results import TurnDelta
from vllm.entrypoints.generate.base.protocol import DeltaMessage

from dualfocus_server.answering.protocol import FocusResponse
from dualfocus_server.answering.streaming import Events
from dualfocus_server.answering.vllm_serving.answer_reader import DeltaParser
from dualfocus_server.guards.api_errors import ApiError


class AnswerWriter(ABC):
    """Writes what a question's turns do (it is their listener), and then its answer, as an API's events."""

    def __init__(self, events: Events, parse_delta: DeltaParser) -> None:
        """`parse_delta` reads the answer while it is written."""
        self._events = events
        self._parse_delta = parse_delta

    def on_turn_start(self, turn: str) -> None:
        """Name the turn."""
        self._tell(turn)

    def on_turn_accepted(self, turn: str) -> None:
        """Let the answer begin: from here on the engine may fail, but not refuse."""
        self._events.begin()

    def on_text(self, written: TurnDelta) -> None:
        """Write what can be read of some more of the answer; parsers also return deltas with nothing in them."""
        delta = self._parse_delta(written)
        if delta is not None and (delta.content or delta.reasoning or delta.tool_calls):
            self.write(delta)

    @abstractmethod
    def write(self, delta: DeltaMessage) -> None:
        """Write some more of the answer."""

    @abstractmethod
    def write_end(self, response: FocusResponse) -> None:
        """Write what is left to be said once the answer is chosen."""

    @abstractmethod
    def _tell(self, doing: str) -> None:
        """Write what is being done, where that is asked for."""


class VllmWire(Protocol):
    """One request as its API has it: how vLLM's own serving answers it, and what is written around that."""

    async def vllm_body(self) -> dict[str, Any]:
        """Have vLLM answer, once the request's images are opened.

        Raises BadPicture, VllmResponseError and vLLM's errors.
        """

    def vllm_events(self) -> AsyncGenerator[str, None]:
        """Have vLLM answer as events. Reading them raises the same."""

    def begins_answer(self, event: str) -> bool:
        """Whether an event of vLLM's says that the engine has taken the request."""

    def silence(self) -> str:
        """Return an event that breaks a silence, and adds nothing to the answer."""

    def failure(self, problem: ApiError) -> Iterable[str]:
        """Return the events that end a stream in which something went wrong."""


class Wire(VllmWire, Protocol):
    """One request that may be a question for two looks."""

    @property
    def model(self) -> str:
        """The name that an answer of two looks is signed with."""

    def body(self, response: FocusResponse) -> Mapping[str, Any]:
        """Return a whole answer of two looks."""

    def writer(self, events: Events, parse_delta: DeltaParser) -> AnswerWriter:
        """Return what writes an answer of two looks as events; its first ones are written with it."""

    def with_field(self, event: str, field: Mapping[str, str]) -> str:
        """Return an event of vLLM's with the answer's `dualfocus` field, where it is the one that tells the end."""

    def progress(self, doing: str) -> str:
        """Return an event that tells what is being done, and adds nothing to the answer."""
