"""The tools of a request for a response, as a chat completion's.

Leans on vLLM 0.32's `construct_tool_dicts`.
"""

from typing import Any

from openai.types.responses import ToolChoiceFunction
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.utils import construct_tool_dicts


def has_functions_alone(asked: ResponsesRequest) -> bool:
    """Whether all tools are functions, and one, any or none of them is chosen: what a chat completion can have."""
    is_plain = isinstance(asked.tool_choice, str | ToolChoiceFunction)
    return not asked.tools or (is_plain and all(tool.type == "function" for tool in asked.tools))


def chat_tools(asked: ResponsesRequest) -> dict[str, Any]:
    """Return the request's tools, and what is chosen of them, as fields of a chat completion's."""
    if not asked.tools:
        return {"tools": None, "tool_choice": "none"}
    made = construct_tool_dicts(asked.tools, asked.tool_choice) or []
    choice = asked.tool_choice if isinstance(asked.tool_choice, str) else "auto"
    if isinstance(asked.tool_choice, ToolChoiceFunction):
        named = {"type": "function", "function": {"name": asked.tool_choice.name}}
        return {"tools": made, "tool_choice": named}
    return {"tools": made, "tool_choice": choice}
