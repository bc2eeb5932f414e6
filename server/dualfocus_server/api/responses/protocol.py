"""What goes over the wire of the Responses API: vLLM's request and response, with the `dualfocus` field.

Leans on vLLM 0.32's `ResponsesRequest` and `ResponsesResponse`.
"""

from typing import Any, Self

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, ValidationInfo, field_validator, model_validator
from vllm.config import ModelConfig
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest, ResponsesResponse
from vllm.renderers.params import ChatParams, TokenizeParams
from vllm.sampling_params import SamplingParams

from dualfocus_server.answering.protocol import Counting, FocusFields, FocusReport, FocusRequest, as_field_errors
from dualfocus_server.api.responses.items import canonical_items, check_input
from dualfocus_server.api.responses.tools import has_functions_alone
from dualfocus_server.guards.json_limits import FieldError, validate_json

# Each is tried as one of every make.
_MAX_TOOLS = 1_000


class ResponseRequest(FocusFields, ResponsesRequest):
    """A request for a response as vLLM takes it, with the `dualfocus` field; its input's items are read here."""

    input: str | list[Any] = Field(description="a text, or the items of a conversation: messages, calls of tools, …")

    @model_validator(mode="before")
    @classmethod
    def _has_input(cls, body: Any) -> Any:
        """Judge the shape first: vLLM's own validators take it for granted."""
        if not isinstance(body, dict):
            raise FieldError("the body must be a JSON object, sent with Content-Type: application/json", None)
        validate_json(body)
        check_input(body.get("input"))
        if isinstance(tools := body.get("tools"), list) and len(tools) > _MAX_TOOLS:
            raise FieldError(f"tools has {len(tools):,} tools; {_MAX_TOOLS:,} are the most", "tools")
        return {name: value for name, value in body.items() if name != "request_id"}  # the answer's id is ours

    @model_validator(mode="wrap")
    @classmethod
    def _is_readable(cls, body: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        with as_field_errors(body, "input"):
            return read(body)

    @field_validator("background", "store", "truncation", mode="before")
    @classmethod
    def _null_is_default(cls, value: Any, info: ValidationInfo) -> Any:
        """Take null as OpenAI does: vLLM's response can't hold it."""
        return cls.model_fields[str(info.field_name)].default if value is None else value

    @model_validator(mode="after")
    def _is_canonical(self) -> Self:
        self.input = canonical_items(self.input)
        return self

    def build_tok_params(self, model_config: ModelConfig) -> TokenizeParams:
        """Return how vLLM's own serving tokenizes the prompt."""
        return Counting(**vars(super().build_tok_params(model_config)))


class ResponseQuestion(FocusRequest):
    """The same request in the form of a chat completion; what it is sampled with is read from the request itself."""

    _asked: ResponseRequest = PrivateAttr()

    @classmethod
    def of(cls, asked: ResponseRequest, fields: dict[str, Any]) -> Self:
        """Return the question of a request. Raises pydantic's ValidationError."""
        question: Self = cls.model_validate(fields)
        question._asked = asked
        return question

    @property
    def asked(self) -> ResponseRequest:
        """The request as it was sent."""
        return self._asked

    @property
    def tools_are_vllms(self) -> bool:
        """Whether some of its tools are of another make than a chat completion's, or so is what is chosen of them."""
        return super().tools_are_vllms or not has_functions_alone(self._asked)

    @property
    def may_call(self) -> bool:
        """Whether the model may answer by a call of a tool, of whatever make."""
        return bool(self._asked.tools) and self._asked.tool_choice != "none"

    @property
    def answer_id(self) -> str:
        """The id of the answer to it."""
        return str(self._asked.request_id)

    def build_chat_params(self, default_template: str | None, default_template_content_format: Any) -> ChatParams:
        """Return what vLLM's own serving of responses tells the chat template."""
        return self._asked.build_chat_params(default_template, default_template_content_format)

    def to_sampling_params(self, max_tokens: int, default_sampling_params: dict[str, Any]) -> SamplingParams:
        """Return how vLLM's own serving of responses samples, with what this form of the request says of grammars."""
        sampling: SamplingParams = self._asked.to_sampling_params(max_tokens, default_sampling_params)
        sampling.structured_outputs = self.structured_outputs or sampling.structured_outputs
        sampling.skip_special_tokens = sampling.skip_special_tokens and self.skip_special_tokens
        return sampling


class FocusedResponse(ResponsesResponse):
    """A response with the `dualfocus` field."""

    dualfocus: FocusReport | None = Field(default=None, exclude_if=lambda report: report is None)
