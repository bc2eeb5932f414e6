"""Asks a server many questions, so many at a time, and again where that may help."""

import asyncio
import random
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from tqdm import tqdm

from dualfocus_client.client import AskError, Unanswered, authorization, raise_unanswered, server_address
from dualfocus_client.line_formats.line_format import Question

Keep = Callable[[Question, dict[str, Any]], None]
# Seconds before the second attempt, doubled before each further one up to the most.
FIRST_WAIT, MOST_WAIT = 1.0, 30.0
# The reason of a run that a signal ended.
INTERRUPTION = "interrupted"


@dataclass(frozen=True)
class Server:
    """Where questions go and how: `retries` is for each of them."""

    base_url: str
    api_key: str | None = None
    timeout: float = 120.0
    concurrency: int = 8
    retries: int = 5


class Halt:
    """Ends a run early: questions that are being asked are still answered, no other is begun."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._called = asyncio.Event()

    def call(self, reason: str) -> None:
        """End the run; the first reason is kept."""
        self.reason = self.reason or reason
        self._called.set()

    async def comes_within(self, seconds: float) -> bool:
        """Wait, and return whether the run was ended meanwhile."""
        try:
            await asyncio.wait_for(self._called.wait(), seconds)
        except TimeoutError:
            return False
        return True


def heed_signals(halt: Halt) -> None:
    """Let a first Ctrl-C wait for the questions that are being asked, and a second one end them."""
    loop = asyncio.get_running_loop()

    def heed() -> None:
        tqdm.write("Waiting for the questions that are being asked; again to leave them.", file=sys.stderr)
        halt.call(INTERRUPTION)
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, heed)


async def ask_all(server: Server, questions: Iterator[Question], keep: Keep, halt: Halt) -> None:
    """Ask all questions; `keep` is given each with what is to be written of its answer, or of its error.

    Ends early, with `halt.reason` saying why, where nothing more can be asked or kept.
    """
    limits = httpx.Limits(max_connections=server.concurrency, max_keepalive_connections=server.concurrency)
    headers = authorization(server.api_key)
    async with httpx.AsyncClient(headers=headers, timeout=server.timeout, limits=limits) as http:
        asker = _Asker(http, server, keep, halt)
        # They share the one iterator: each takes the next question when it is done with its last.
        await asyncio.gather(*(asker.work(questions) for _ in range(server.concurrency)))


class _Asker:
    def __init__(self, http: httpx.AsyncClient, server: Server, keep: Keep, halt: Halt) -> None:
        self._http, self._server, self._keep, self._halt = http, server, keep, halt

    async def work(self, questions: Iterator[Question]) -> None:
        try:
            while self._halt.reason is None and (question := next(questions, None)):
                if found := await self._found(question):
                    self._keep(question, found)
        except (OSError, ValueError) as error:  # answers that can't be written, questions that changed meanwhile
            self._halt.call(str(error))

    async def _found(self, question: Question) -> dict[str, Any] | None:
        """Return what is to be written of a question; None where it is left for the next run."""
        try:
            body = await asyncio.to_thread(question.body)
            return await self._asked(question, body)
        except AskError as error:
            if not _is_for_all(error, question):
                return question.failure(error)
            self._halt.call(str(error))
            return None

    async def _asked(self, question: Question, body: dict[str, Any]) -> dict[str, Any] | None:
        for attempt in range(self._server.retries):
            try:
                return await self._post(question, body)
            except AskError as error:
                if not may_pass(error):
                    raise
                if await self._halt.comes_within(seconds_before(attempt, error)):
                    return None
        return await self._post(question, body)

    async def _post(self, question: Question, body: dict[str, Any]) -> dict[str, Any]:
        with raise_unanswered(self._server.base_url):
            response = await self._http.post(f"{server_address(self._server.base_url)}{question.url}", json=body)
        return question.answer(response)


def _is_for_all(error: AskError, question: Question) -> bool:
    return error.status in question.refusals_of_all or (isinstance(error, Unanswered) and not error.reached)


def may_pass(error: AskError) -> bool:
    """Whether the same may be answered a little later."""
    return isinstance(error, Unanswered) or (error.status or 0) in (408, 429) or (error.status or 0) >= 500


def seconds_before(attempt: int, error: AskError) -> float:
    """Return the seconds to wait: no less than the server asked for, and not the same for all that were refused."""
    backoff = min(FIRST_WAIT * 2.0**attempt, MOST_WAIT)
    return max(error.retry_after or 0.0, backoff * random.uniform(0.5, 1.0))
