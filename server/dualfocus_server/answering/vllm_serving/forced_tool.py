"""One tool that must be called is a JSON schema: how libraries ask for structured output. It needs no parser."""

from vllm.entrypoints.generate.base.protocol import FunctionDefinition
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionNamedToolChoiceParam
from vllm.sampling_params import StructuredOutputsParams

from dualfocus_server.answering.protocol import FocusRequest

_ANYTHING = {"type": "object"}


def forced_tool(request: FocusRequest) -> FunctionDefinition | None:
    """Return the one tool that an answer has to call; None where the model may choose."""
    functions = [tool.function for tool in request.tools or ()]
    if isinstance(request.tool_choice, ChatCompletionNamedToolChoiceParam):
        name = request.tool_choice.function.name
        return next((function for function in functions if function.name == name), None)
    return functions[0] if request.tool_choice == "required" and len(functions) == 1 else None


def under_its_schema(request: FocusRequest, tool: FunctionDefinition) -> FocusRequest:
    """Return the request for an answer that is the tool's arguments, whatever format was asked for beside it."""
    schema = StructuredOutputsParams(json=tool.parameters or _ANYTHING)
    return request.model_copy(update={"tool_choice": "none", "structured_outputs": schema, "response_format": None})
