"""From a request of the Messages API to the same as a chat completion: the conversion is vLLM's.

Leans on vLLM 0.32's `AnthropicServingMessages`: `to_chat_completion_request`, `_merge_inline_system`,
`_get_disabled_thinking_effort`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages

from dualfocus_server.answering.contents import normalize_message
from dualfocus_server.answering.protocol import FocusRequest
from dualfocus_server.api.messages.protocol import CountTokensRequest, MessagesRequest
from dualfocus_server.api.tokens import TokenizeConversation
from dualfocus_server.guards.api_errors import as_client_errors


async def chat_request(asked: MessagesRequest, vllm: AnthropicServingMessages) -> FocusRequest:
    """Return the request as a chat completion's. Raises RequestValidationError and vLLM's errors."""
    fields = await _chat_fields(asked, vllm)
    with _validation_errors():
        request: FocusRequest = FocusRequest.model_validate(fields | {"dualfocus": asked.dualfocus})
    return request


async def tokenize_request(asked: CountTokensRequest, vllm: AnthropicServingMessages) -> TokenizeConversation:
    """Return the request as a conversation to be tokenized. Raises the same."""
    fields = await _chat_fields(asked, vllm)
    effort = fields.get("reasoning_effort")
    # As vLLM's chat completions give it to the template.
    thinking = {} if effort is None else {"reasoning_effort": effort, "enable_thinking": effort != "none"}
    taken = {name: fields[name] for name in ("model", "messages", "tools") if name in fields}
    with _validation_errors():
        conversation: TokenizeConversation = TokenizeConversation.model_validate(
            taken | {"chat_template_kwargs": thinking | (asked.chat_template_kwargs or {})}
        )
    return conversation


async def _chat_fields(asked: MessagesRequest | CountTokensRequest, vllm: AnthropicServingMessages) -> dict[str, Any]:
    with as_client_errors(), _validation_errors():
        is_disabled = asked.thinking is not None and asked.thinking.type == "disabled"
        effort = await vllm._get_disabled_thinking_effort() if is_disabled else "none"
        chat = vllm.to_chat_completion_request(
            asked, merge_inline_system=vllm._merge_inline_system, disabled_thinking_effort=effort
        )
        messages = [normalize_message(message) for message in chat.messages]
        return {**chat.model_dump(exclude={"messages"}, exclude_unset=True, by_alias=True), "messages": messages}


@contextmanager
def _validation_errors() -> Iterator[None]:
    """Let what vLLM's conversion can't make a chat completion of be the client's error."""
    try:
        yield
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
