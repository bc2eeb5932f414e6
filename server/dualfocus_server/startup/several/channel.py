"""Messages between the server's processes: each end of a socket pair asks the other's functions by their names."""

import asyncio
import inspect
import logging
import pickle
import socket
import struct
from collections.abc import Callable
from itertools import count
from typing import Any, Self

logger = logging.getLogger(__name__)

_LENGTH = struct.Struct("!Q")
_ANSWER = ""  # the name of a message that answers one


class ChannelClosed(Exception):
    """The process at the other end is gone."""

    def __init__(self) -> None:
        super().__init__("The process at the other end has ended.")


class Channel:
    """One end. `answers` are what the other end may ask: functions of what it gives, coroutines or not.

    What was sent first is begun first. Both ends are the server's own: messages are pickled.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.answers: dict[str, Callable[..., Any]] = {}
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    @classmethod
    async def on(cls, end: socket.socket) -> Self:
        """Return the channel of one end of a socket pair."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    async def ask(self, name: str, *given: Any) -> Any:
        """Return what the other end answers. Raises ChannelClosed, and RuntimeError with what the other end raised."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(number, name, given)
            return await answer
        finally:
            del self._asked[number]

    def tell(self, name: str, *given: Any) -> None:
        """Have the other end do something, without waiting for it; nothing where it is gone."""
        if not self._writer.is_closing():
            self._send(0, name, given)

    def close(self) -> None:
        """Let the other end know that this one is gone."""
        self._writer.close()

    async def until_closed(self) -> None:
        """Read messages until the other end is gone."""
        try:
            while True:
                (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
                self._take(*pickle.loads(await self._reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            self._writer.close()
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(ChannelClosed())

    def _take(self, number: int, name: str, given: tuple[Any, ...]) -> None:
        if name == _ANSWER:
            self._take_answer(number, *given)
            return
        task = asyncio.create_task(self._answer(number, name, given))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def _take_answer(self, number: int, value: Any, failure: str | None) -> None:
        answer = self._asked.get(number)
        if answer is None or answer.done():  # who asked has left
            return
        if failure is None:
            answer.set_result(value)
        else:
            answer.set_exception(RuntimeError(failure))

    async def _answer(self, number: int, name: str, given: tuple[Any, ...]) -> None:
        value, failure = None, None
        try:
            answer = self.answers[name](*given)
            value = await answer if inspect.isawaitable(answer) else answer
        except Exception as error:
            logger.exception("What another process asked (%s) failed.", name)
            failure = f"{name}: {type(error).__name__}: {error}"
        if number and not self._writer.is_closing():
            self._send(number, _ANSWER, (value, failure))

    def _send(self, *message: Any) -> None:
        if self._writer.is_closing():
            raise ChannelClosed
        written = pickle.dumps(message)
        self._writer.write(_LENGTH.pack(len(written)))
        self._writer.write(written)
