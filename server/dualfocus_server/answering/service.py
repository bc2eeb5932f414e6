"""What the routes work with, and how long what they do may take."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from dualfocus_engine import DualFocus

from dualfocus_server.answering.vllm_serving.chat import VllmChat
from dualfocus_server.guards.admission import Admission
from dualfocus_server.guards.http_errors import HttpError, TimedOut
from dualfocus_server.guards.watchdog import Watchdog
from dualfocus_server.images.request_images import RequestImages
from dualfocus_server.telemetry.answers_log import AnswersLog
from dualfocus_server.telemetry.metrics import own_metrics

# What is left of a question's time to write its answer.
_WRITING_S = 0.5


@dataclass(frozen=True, slots=True)
class Service:
    """What the routes work with; in seconds, 0 for none: `timeout`, and a stream's `keep_alive`.

    `timeout` is for a question by two looks, and for the next token of a stream that vLLM writes; `mode` is that of
    questions that name none, `list_modes` whether the list of models has the names that choose one. `adapters` are
    asked in words of their own. `trusts_processor_kwargs` is vLLM's flag (`--trust-request-mm-kwargs`). `grounder` is
    the kind of what says where to look in the model's place, `most_questions` how many of one client may run and wait.
    Where other processes answer beside this one, `metrics`
    are those of all, and `reset_mm_caches` is for all.
    """

    focus: DualFocus
    chat: VllmChat
    images: RequestImages
    admission: Admission
    watchdog: Watchdog
    timeout: float
    keep_alive: float = 0
    mode: str = "dual"
    answers_log: AnswersLog | None = None
    list_modes: bool = False
    adapters: Mapping[str, DualFocus] = field(default_factory=dict)
    trusts_processor_kwargs: bool = False
    grounder: str | None = None
    most_questions: int = sys.maxsize
    metrics: Callable[[], Awaitable[bytes]] = own_metrics
    reset_mm_caches: Callable[[], Awaitable[None]] | None = None

    def focus_of(self, model: str | None) -> DualFocus:
        """The method as a request's model is asked by it: in the words of its own profile, where an adapter has one."""
        return self.adapters.get(model or "", self.focus)

    def takes(self, model: str | None) -> tuple[str, ...]:
        """The fields that two looks take where a flag trusts clients with them, and the model's profile allows it.

        Views reckon with the processor's limits: one that is told others would show pictures at other sizes.
        """
        is_free = self.trusts_processor_kwargs and self.focus_of(model).engine.views is None
        return ("mm_processor_kwargs",) if is_free else ()

    def deadline(self) -> float | None:
        """The event loop's time at which a question that comes now has taken too long."""
        return asyncio.get_running_loop().time() + self.timeout if self.timeout else None

    def macro_deadline(self, deadline: float | None) -> float | None:
        """The time from which a macro answer is returned without its second look: a little before `deadline`."""
        return None if deadline is None else deadline - min(_WRITING_S, self.timeout / 10)

    @asynccontextmanager
    async def until(
        self, deadline: float | None, error_of: Callable[[float], HttpError] = TimedOut
    ) -> AsyncIterator[asyncio.Timeout]:
        """Cancel what is done within at the deadline, which can be moved.

        Raises what `error_of` makes of the timeout, also where vLLM makes something else of it.
        """
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                yield limit
        except Exception as error:
            if not limit.expired():
                raise
            raise error_of(self.timeout) from error
        if limit.expired():
            raise error_of(self.timeout)
