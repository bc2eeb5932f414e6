"""An answer as server-sent events: role, what the turns are doing, the chosen answer, usage, `[DONE]`."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from dualfocus_engine import Focused
from dualfocus_engine.looks import Watcher
from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionResponseStreamChoice,
    ChatCompletionStreamResponse,
)

from dualfocus_server.errors import problem_of
from dualfocus_server.protocol import FocusResponse

# Proxies cut connections on which nothing comes; a comment line is nothing to a client.
_COMMENT_EVERY = 5.0
_DONE = "data: [DONE]\n\n"

Run = Callable[[Watcher], Awaitable[tuple[Focused, FocusResponse]]]


class _Events:
    """Collects what the turns say; an entry is a comment (turn) or a piece of the answer's text."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue()

    def begins(self, turn: str) -> None:
        self.queue.put_nowait(("turn", turn))

    def writes(self, text: str) -> None:
        self.queue.put_nowait(("text", text))

    def ends(self, _: object) -> None:
        self.queue.put_nowait(None)


async def focus_events(run: Run, request_id: str, model: str, include_usage: bool) -> AsyncIterator[str]:
    """Yield the events of one question; leaving the iterator aborts its turns."""
    events = _Events()
    yield _data(_chunk(request_id, model, DeltaMessage(role="assistant", content="")))
    running = asyncio.ensure_future(run(events))
    running.add_done_callback(events.ends)
    try:
        held = ""  # the last piece waits: it carries the `dualfocus` field
        async for kind, text in _until_end(events):
            if kind == "turn":
                yield f": {text}\n\n"
                continue
            if held:
                yield _data(_chunk(request_id, model, DeltaMessage(content=held)))
            held = text
        result, whole = await running
        for line in _ending(result, whole, held, include_usage):
            yield line
    except asyncio.CancelledError:
        raise
    except Exception as error:
        yield _data(problem_of(error).body())
        yield _DONE
    finally:
        running.cancel()


async def _until_end(events: _Events) -> AsyncIterator[tuple[str, str]]:
    """Yield entries as they come, and the last turn's name again whenever nothing came for a while."""
    turn = "waiting"
    while True:
        try:
            entry = await asyncio.wait_for(events.queue.get(), _COMMENT_EVERY)
        except TimeoutError:
            entry = ("turn", turn)
        if entry is None:
            return
        turn = entry[1] if entry[0] == "turn" else turn
        yield entry


def _ending(result: Focused, whole: FocusResponse, held: str, include_usage: bool) -> list[str]:
    """Return the last events: the rest of the answer with its `dualfocus` field, the finish, usage, `[DONE]`."""
    choice = whole.choices[0]
    text = held if held else result.text
    content = _chunk(whole.id, whole.model, DeltaMessage(content=text), logprobs=choice.logprobs)
    content["dualfocus"] = whole.dualfocus.model_dump(exclude_none=False)
    finish = _chunk(whole.id, whole.model, DeltaMessage(), finish_reason=choice.finish_reason)
    lines = [_data(content), _data(finish)]
    if include_usage:
        usage = _chunk(whole.id, whole.model, None)
        lines.append(_data(usage | {"usage": whole.usage.model_dump()}))
    return [*lines, _DONE]


def _chunk(request_id: str, model: str, delta: DeltaMessage | None, **choice: Any) -> dict[str, Any]:
    choices = [] if delta is None else [ChatCompletionResponseStreamChoice(index=0, delta=delta, **choice)]
    chunk = ChatCompletionStreamResponse(id=request_id, model=model, choices=choices)
    body: dict[str, Any] = chunk.model_dump(exclude_unset=True)
    return {"id": chunk.id, "object": chunk.object, "created": chunk.created} | body


def _data(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
