"""Which requests two looks can answer, and what makes the others vLLM's own."""

from collections.abc import Collection, Iterator
from typing import Any

from dualfocus_server.answering.contents import EMBEDDINGS, IMAGE, TEXT, parts_of
from dualfocus_server.answering.protocol import FocusRequest

# What only vLLM's own chat serving does; a request that uses one of these is not a DualFocus question.
VLLM_ONLY = (
    "use_beam_search",
    "echo",
    "add_generation_prompt",
    "add_special_tokens",
    "continue_final_message",
    "documents",
    "chat_template",
    "media_io_kwargs",
    "mm_processor_kwargs",
    "prompt_logprobs",
    "logprob_token_ids",
    "truncate_prompt_tokens",
    "return_prompt_text",
    "routed_experts_prompt_start",
    "kv_transfer_params",
    "ec_transfer_params",
)
NO_IMAGE, MODE = "no_image", "mode"
# The roles of a conversation of text and images.
_ROLES = ("system", "developer", "user", "assistant", "tool")


def reason_for_vllm(request: FocusRequest, taken: Collection[str] = ()) -> str | None:
    """Name what makes a request vLLM's to answer: a field, or what of its messages; None where two looks answer it.

    Nothing is lost by `NO_IMAGE`, nor by `MODE`: it was asked for. `taken` are fields of `VLLM_ONLY` that two looks
    take here after all.
    """
    return next(_reasons(request, taken), None)


def _reasons(request: FocusRequest, taken: Collection[str]) -> Iterator[str]:
    if not any(part["type"] in (IMAGE, EMBEDDINGS) for message in request.messages for part in parts_of(message)):
        yield NO_IMAGE
    if request.dualfocus.mode == "off":
        yield MODE
    if request.tools_are_vllms:
        yield "tools"
    yield from (name for name in VLLM_ONLY if name not in taken and _is_asked(request, name))
    if (request.chat_template_kwargs or {}).get("chat_template") is not None:
        yield "chat_template_kwargs.chat_template"
    if request.messages[-1]["role"] not in ("user", "tool"):
        yield "last_message"
    for message in request.messages:
        yield from _reasons_in(message)


def _reasons_in(message: dict[str, Any]) -> Iterator[str]:
    """Name what two looks can't show the model of a message."""
    if message["role"] not in _ROLES:
        yield "role"
    yield from (part["type"] for part in parts_of(message) if part["type"] not in (TEXT, IMAGE))


def _is_asked(request: FocusRequest, name: str) -> bool:
    """Whether a field asks for something: its default, an empty list or null does not, 0 may."""
    value, default = getattr(request, name), FocusRequest.model_fields[name].default
    if default is True:
        return value is False
    return value != default and value is not None and value is not False and value not in ([], {}, "")
