"""`POST /v1/chat/completions/batch`: several conversations, each answered as `/v1/chat/completions` answers it.

Leans on vLLM 0.32's `BatchChatCompletionRequest`.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Self, cast

from dualfocus_engine.errors import BadQuestion
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field, ValidationError, model_validator
from pydantic_core import from_json
from starlette.datastructures import MutableHeaders
from vllm.entrypoints.openai.chat_completion.protocol import BatchChatCompletionRequest, ChatCompletionResponse
from vllm.utils import random_uuid

from dualfocus_server.answering.answer import unless_left
from dualfocus_server.answering.protocol import FocusOptions, FocusRequest, Readable
from dualfocus_server.answering.service import Service
from dualfocus_server.api.chat import answer_chat
from dualfocus_server.guards.json_body import JsonRoute
from dualfocus_server.guards.json_limits import MAX_VALUES, FieldError, count_values
from dualfocus_server.telemetry.request_ids import HEADER, request_id

router = APIRouter(route_class=JsonRoute)
_MAX_CONVERSATIONS = 128
# What conversations have in common is read and kept for each: as many values as ten bodies may hold.
_MAX_SHARED_VALUES = 10 * MAX_VALUES
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
# What is of one conversation and would stand as if it were of all.
_OF_ONE = ("dualfocus", "metrics", "prompt_token_ids", "prompt_text", "prompt_logprobs")
# What is of the batch, and the tools, which vLLM's batch takes and does not tell the model.
_OF_BATCH = {"messages", "request_id", "tools", "tool_choice"}


class ChatBatch(Readable, BatchChatCompletionRequest):
    """Conversations to be answered alike, with the `dualfocus` field for all of them."""

    messages: list[Annotated[list[dict[str, Any]], Field(min_length=1)]] = Field(
        min_length=1, max_length=_MAX_CONVERSATIONS
    )
    dualfocus: FocusOptions | None = None

    @model_validator(mode="after")
    def _is_not_streamed(self) -> Self:
        if getattr(self, "stream", None):
            raise FieldError("stream must be false: the answers of a batch come as one", "stream")
        return self

    @model_validator(mode="after")
    def _has_no_crops(self) -> Self:
        """Keep crops out: each may be megabytes, and all answers are held until the last is there."""
        if self.dualfocus is not None and self.dualfocus.return_crop:
            raise FieldError("return_crop is for one conversation at a time", "dualfocus.return_crop")
        return self

    @model_validator(mode="after")
    def _shares_few_values(self) -> Self:
        conversations, shared = len(self.messages), count_values(self._shared)
        if conversations * shared > _MAX_SHARED_VALUES:
            held = f"{shared:,} values beside messages, for each of {conversations} conversations"
            raise FieldError(f"{held}, are more than {_MAX_SHARED_VALUES:,} together", None)
        return self

    @property
    def _shared(self) -> dict[str, Any]:
        return self.model_dump(exclude=_OF_BATCH, exclude_unset=True)

    def requests(self, batch_id: str) -> Iterator[FocusRequest]:
        """Yield each conversation as a request of its own. Raises RequestValidationError."""
        fields = self._shared
        for number, messages in enumerate(self.messages):
            body = fields | {"messages": messages}
            with _errors_of(number, body):
                request: FocusRequest = FocusRequest.model_validate(body)
            request.request_id = f"{batch_id}_{number}"  # longer than a client's may be
            yield request


@contextmanager
def _errors_of(number: int, body: dict[str, Any]) -> Iterator[None]:
    """Name the place of what is wrong with a conversation as the batch has it."""
    try:
        yield
    except ValidationError as error:
        errors: list[dict[str, Any]] = [{**found, "loc": ("body", *found["loc"])} for found in error.errors()]
        for found in errors:
            cause = found.get("ctx", {}).get("error")
            if isinstance(cause, FieldError) and cause.field:
                placed = [re.sub(r"^messages\b", f"messages.{number}", text) for text in (str(cause), cause.field)]
                found["ctx"] = {"error": FieldError(*placed)}
        raise RequestValidationError(errors, body=body) from error


@router.post("/v1/chat/completions/batch", responses={200: {"model": ChatCompletionResponse}})
async def chat_batch(request: ChatBatch, raw_request: Request) -> Response:
    """Answer several conversations; `choices` has an answer for each, with its own `dualfocus` field."""
    return await unless_left(raw_request, answer_batch(request, raw_request))


async def answer_batch(batch: ChatBatch, raw_request: Request) -> Response:
    """Answer each conversation in a place of its own. Raises what the first of them that fails does."""
    service = cast("Service", raw_request.app.state.service)
    if (conversations := len(batch.messages)) > service.most_questions:
        most = f"{service.most_questions} (--max-questions and --max-queued, or --max-questions-per-key)"
        raise BadQuestion(f"The {conversations} conversations are asked at once, and may be {most}.", "messages")
    # The client's id is the batch's; in the engine each conversation has its own.
    given = request_id.get() if HEADER in raw_request.headers else batch.request_id
    batch_id = given or random_uuid()
    requests, alone = [], _without_id(raw_request)
    for request in batch.requests(batch_id):
        requests.append(request)
        await asyncio.sleep(0)  # to read one may take tens of milliseconds
    tasks = [asyncio.ensure_future(answer_chat(service, request, alone)) for request in requests]
    try:
        answers = [from_json(bytes(response.body)) for response in await asyncio.gather(*tasks)]
    finally:
        for task in tasks:
            task.cancel()
    return JSONResponse(_joined(f"chatcmpl-{batch_id}", answers))


def _joined(answer_id: str, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return answers as one: the fields of the first, a choice of each, and what they used together."""
    choices = [_choice(number, answer) for number, answer in enumerate(answers)]
    usage = {name: sum(answer["usage"][name] for answer in answers) for name in _COUNTS}
    shared = {name: value for name, value in answers[0].items() if name not in _OF_ONE}
    return shared | {"id": answer_id, "choices": choices, "usage": usage}


def _choice(number: int, answer: dict[str, Any]) -> dict[str, Any]:
    report = {"dualfocus": answer["dualfocus"]} if "dualfocus" in answer else {}
    return {**answer["choices"][0], "index": number, **report}


def _without_id(raw_request: Request) -> Request:
    headers = MutableHeaders(raw=list(raw_request.scope["headers"]))
    del headers[HEADER]
    return Request({**raw_request.scope, "headers": headers.raw}, raw_request.receive)
