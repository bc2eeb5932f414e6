"""From a request for a response to the same in the form of a chat completion, or to one that vLLM may answer.

Leans on vLLM 0.32's `construct_input_messages` and `should_continue_final_message`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

from dualfocus_engine import DualFocus
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from vllm.entrypoints.openai.responses.utils import construct_input_messages, should_continue_final_message

from dualfocus_server.answering.intake import image_parts, in_words, inlined_images
from dualfocus_server.answering.protocol import FocusRequest
from dualfocus_server.answering.service import Service
from dualfocus_server.api.responses.protocol import ResponseQuestion, ResponseRequest
from dualfocus_server.api.responses.tools import chat_tools
from dualfocus_server.guards.api_errors import as_client_errors

# What both forms of request have, besides what the template and the sampling are told.
_SAME = (
    "chat_template_kwargs",
    "media_io_kwargs",
    "mm_processor_kwargs",
    "cache_salt",
    "priority",
    "kv_transfer_params",
    "ec_transfer_params",
)
# What the chat template is told besides messages, in which what stands for a picture is made words.
_WORDED = ("tools", "chat_template_kwargs")


def question_of_response(asked: ResponseRequest) -> ResponseQuestion:
    """Return the request as a chat completion's. Raises RequestValidationError and vLLM's errors."""
    with as_client_errors():
        messages = construct_input_messages(request_instructions=asked.instructions, request_input=asked.input)
    fields: dict[str, Any] = {
        "messages": messages,
        "model": asked.model,
        "stream": asked.stream,
        "store": asked.store,
        "max_completion_tokens": asked.max_output_tokens,
        "continue_final_message": should_continue_final_message(asked.input),
        "add_generation_prompt": not should_continue_final_message(asked.input),
        "dualfocus": asked.dualfocus,
        "include_reasoning": asked.include_reasoning,
        "parallel_tool_calls": asked.parallel_tool_calls,
        **chat_tools(asked),
    }
    if asked.is_include_output_logprobs():
        fields |= {"logprobs": True, "top_logprobs": asked.top_logprobs}
    try:
        question = ResponseQuestion.of(asked, fields)
    except ValidationError as error:
        errors = [found | {"loc": ("body", *found["loc"])} for found in error.errors()]
        raise RequestValidationError(errors, body=fields) from error
    for name in _SAME:
        setattr(question, name, getattr(asked, name))
    return question


@asynccontextmanager
async def opened_for_vllm(
    asked: ResponseRequest, service: Service, client: str
) -> AsyncIterator[tuple[ResponseRequest, list[Any]]]:
    """Yield the request as vLLM may answer it, and its messages, in which its images are open for as long.

    Images named by a `uuid` are those of `client`. vLLM keeps nothing of it: the conversation before is in its input
    already. Raises BadPicture.
    """
    request = asked.model_copy(
        update={"input": deepcopy(asked.input), "store": False, "background": False, "previous_response_id": None}
    )
    items = [item for item in request.input if isinstance(item, dict) and ("content" in item or "output" in item)]
    contents = ["content" if "content" in item else "output" for item in items]
    messages = [{"role": "", "content": item[name]} for item, name in zip(items, contents, strict=True)]
    if request.instructions is not None:
        messages.append({"role": "", "content": request.instructions})
    told = {name: getattr(asked, name) for name in ("cache_salt", "kv_transfer_params", *_WORDED)}
    conversation = FocusRequest.model_construct(messages=messages, **told)
    if any(image_parts(conversation)):
        request.truncation = "disabled"  # a prompt that is cut may lose an image's place
    async with inlined_images(conversation, service.focus, service.images.of(client)):
        for item, name, message in zip(items, contents, messages, strict=False):
            item[name] = message["content"]
        if request.instructions is not None:
            request.instructions = messages[-1]["content"]
        for name in _WORDED:
            setattr(request, name, getattr(conversation, name))
        if not isinstance(request.input, str):
            request.input = [_in_words(item, service.focus) for item in request.input]
        yield request, messages


def _in_words(item: Any, focus: DualFocus) -> Any:
    """Return an item with what stands for a picture in it made words, which a message's content is already."""
    if not isinstance(item, dict):
        return in_words(item, focus)
    return item if "content" in item or "output" in item else focus.engine.in_words(item)
