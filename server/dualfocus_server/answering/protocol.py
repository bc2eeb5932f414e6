"""What goes over the wire besides OpenAI's own fields: the `dualfocus` field of requests and of answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    field_validator,
    model_validator,
)
from vllm.config import ModelConfig
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionStreamResponse,
)
from vllm.exceptions import VLLMValidationError
from vllm.renderers.params import TokenizeParams

from dualfocus_server.answering.contents import normalize_message
from dualfocus_server.answering.sampled import Sampled
from dualfocus_server.guards.json_limits import FieldError, validate_json
from dualfocus_server.telemetry.request_ids import is_id

Winner = Literal["macro", "micro"]
Corners = tuple[float, float, float, float]
# What vLLM's validators raise over values of types that they do not expect.
_STUMBLES = (
    *(AttributeError, LookupError, TypeError, AssertionError),
    *(OverflowError, RecursionError, NotImplementedError),
)
# What vLLM judges apart from the request, without the field's name.
_JUDGED_ALONE = ("structured_outputs", "repetition_detection")
# Each is a turn of the engine's, and most of a question's looks may be one.
_MAX_CANDIDATES = 8
# A body of a megabyte could otherwise hold the event loop for seconds.
MAX_MESSAGES, MAX_PARTS = 2_000, 1_000
# Of the calls in all messages together, which are JSON in a text: they are read, and written, value by value.
_MAX_ARGUMENTS = 500_000
MODES = ("dual", "regions", "search", "adaptive", "macro", "micro", "off")


class FocusOptions(BaseModel):
    """The request's `dualfocus` field."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["dual", "regions", "search", "adaptive", "macro", "micro", "off"] = Field(
        default="dual",  # or --mode
        description="dual: both looks; regions: the second one at several places (--max-regions); search: deeper into "
        "the crop until an answer is sure (--max-looks); adaptive: the second one where the first leaves doubt "
        "(--skip-below); "
        "macro or micro: that answer alone; off: vLLM's own chat",
    )
    scoring: Literal["own", "shared", "released"] = Field(
        default="own",
        validation_alias=AliasChoices("scoring", "selection"),  # its name until 0.1
        description="what the answers are compared by: each one's perplexity under the turn that wrote it; that of "
        "both under one prompt; or the released code's rule, in which the box's tokens count with each answer's",
    )
    question: str | None = Field(
        default=None, min_length=1, description="what to ground, where that is not the message's text"
    )
    box: Corners | None = Field(
        default=None, description="where to look: x1, y1, x2, y2 as shares of width and height; no grounding turn"
    )
    image: int | None = Field(
        default=None,
        description="which of the conversation's images is zoomed, from 0, or backwards from -1; left out: the last "
        "message's only one, or the last before it",
    )
    skip_below: float | None = Field(
        default=None, ge=0, description="mode adaptive: a macro answer of less perplexity stands (--skip-below)"
    )
    sure_below: float | None = Field(
        default=None, ge=0, description="mode search: an answer of less perplexity ends it; left out: the profile's"
    )
    max_looks: int | None = Field(
        default=None, ge=2, description="mode search: looks that it takes at most, the first one counted (--max-looks)"
    )
    enough: bool = Field(
        default=False,
        description="ask the model of each view whether it is enough to answer, and report p(yes) : (p(yes) + p(no))",
    )
    candidates: int = Field(
        default=1,
        ge=1,
        le=_MAX_CANDIDATES,
        description="modes dual, adaptive and search: for how many boxes a look may be taken where the second one "
        "leaves doubt (sure_below); the others are drawn",
    )
    whole_tokens: int | None = Field(
        default=None, ge=1, description="image tokens that a picture is shown in at most (--whole-tokens)"
    )
    crop_tokens: int | None = Field(
        default=None, ge=1, description="image tokens that the crop, or several, is shown in at most (--crop-tokens)"
    )
    return_crop: bool = Field(default=False, description="return the crop as a data: URL")
    progress: bool = Field(
        default=False,
        description="in a stream: tell what is being done, in pieces that add nothing to the answer "
        '(`"dualfocus": {"progress": "grounding"}`)',
    )

    @field_validator("box")
    @classmethod
    def _is_a_box(cls, box: Corners | None) -> Corners | None:
        if box is None:
            return None
        x1, y1, x2, y2 = box
        if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
            raise ValueError("a box is x1, y1, x2, y2 with 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1")
        return box


class Counting(TokenizeParams):
    """vLLM's way to tokenize, but a prompt is read to its end: its length is told where it is too long."""

    def get_encode_kwargs(self) -> dict[str, Any]:
        """Return the tokenizer's arguments; vLLM's stop it one token past the context's length."""
        arguments: dict[str, Any] = super().get_encode_kwargs()
        return arguments if self.truncate_prompt_tokens is not None else arguments | {"truncation": False}


@contextmanager
def as_field_errors(body: Any, field: str | None) -> Iterator[None]:
    """Turn what vLLM's validators raise over values of types that they do not expect into the client's error."""
    try:
        yield
    except VLLMValidationError as error:
        error.parameter = error.parameter or next((name for name in _JUDGED_ALONE if name in body), None)
        raise
    except _STUMBLES as error:
        raise FieldError(f"{field or 'the body'} can't be read: {error}", field) from error


def _check_request_id(body: Any) -> None:
    """Raise FieldError over a `request_id` that can't be told in each piece of an answer and in log lines."""
    given = body.get("request_id") if isinstance(body, dict) else None
    if given is not None and not is_id(given):
        raise FieldError("request_id must be 1 to 128 letters, digits or any of _.:/+=@-", "request_id")


class Conversation(BaseModel):
    """What every request with `messages` has in common: their shape is judged before vLLM's validators see them."""

    if TYPE_CHECKING:  # of what it is mixed into
        messages: list[Any]

    @model_validator(mode="before")
    @classmethod
    def _has_messages(cls, body: Any) -> Any:
        """Judge the shape first: vLLM's own validators take it for granted."""
        if isinstance(body, bytes | bytearray | str):
            raise FieldError("the body must be a JSON object, sent with Content-Type: application/json", None)
        validate_json(body)
        _check_request_id(body)
        messages = check_messages(body)
        _check_contents(messages)
        return body

    @model_validator(mode="wrap")
    @classmethod
    def _is_readable(cls, body: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Tell the client where vLLM's validators stumble over a value's type, which is deep in a message."""
        with as_field_errors(body, "messages"):
            return read(body)

    @model_validator(mode="after")
    def _is_canonical(self) -> Self:
        self.messages = [normalize_message(message) for message in self.messages]
        return self


class Readable(BaseModel):
    """What every other request has in common: a body that vLLM's validators and its engine can read."""

    @model_validator(mode="wrap")
    @classmethod
    def _is_readable(cls, body: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(body, dict):
            raise FieldError("the body must be a JSON object, sent with Content-Type: application/json", None)
        validate_json(body)
        _check_request_id(body)
        with as_field_errors(body, None):
            return read(body)


class FocusFields(Sampled):
    """What a request has that may be a question for two looks."""

    dualfocus: FocusOptions = Field(default_factory=FocusOptions)

    @field_validator("dualfocus", mode="before")
    @classmethod
    def _null_is_absent(cls, options: Any) -> Any:
        return FocusOptions() if options is None else options


class FocusRequest(Conversation, FocusFields, ChatCompletionRequest):
    """A chat completion request as vLLM takes it, with the `dualfocus` field."""

    @model_validator(mode="before")
    @classmethod
    def _has_tools_or_none(cls, body: Any) -> Any:
        """Leave out an empty list of tools, and a choice among none: clients send them, and vLLM refuses them."""
        if not isinstance(body, dict) or body.get("tools"):
            return body
        left_out = {"tools"} if body.get("tools") == [] else set()
        if body.get("tool_choice") in ("auto", "none"):
            left_out.add("tool_choice")
        return {name: value for name, value in body.items() if name not in left_out}

    @property
    def tools_are_vllms(self) -> bool:
        """Whether only vLLM has an answer that must call one of several tools."""
        return self.tool_choice == "required" and len(self.tools or ()) > 1

    @property
    def may_call(self) -> bool:
        """Whether the model may answer by a call of a tool."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def answer_id(self) -> str:
        """The id of the answer to it."""
        return f"chatcmpl-{self.request_id}"

    def build_tok_params(self, model_config: ModelConfig) -> TokenizeParams:
        """Return how vLLM's own serving tokenizes the prompt."""
        return Counting(**vars(super().build_tok_params(model_config)))


def check_messages(body: Any) -> list[dict[str, Any]]:
    """Return the messages of a body. Raises FieldError where they are no messages, or too much to validate."""
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        shape = "messages must be a list of at least one message, each an object with role and content"
        raise FieldError(shape, "messages")
    if len(messages) > MAX_MESSAGES:
        raise FieldError(f"messages has {len(messages):,} messages; {MAX_MESSAGES:,} are the most", "messages")
    for place, message in enumerate(messages):
        content, parts = f"messages.{place}.content", message.get("content")
        if isinstance(parts, list) and len(parts) > MAX_PARTS:
            raise FieldError(f"{content} has {len(parts):,} parts; {MAX_PARTS:,} are the most", content)
    return messages


def _check_contents(messages: list[dict[str, Any]]) -> None:
    """Raise FieldError over a role or a part that can't be read: vLLM would try them as those of every make."""
    written = sum(len(text) for message in messages for text in _arguments(message))
    if written > _MAX_ARGUMENTS:
        most = f"{_MAX_ARGUMENTS:,} are the most"
        raise FieldError(f"the arguments of tool_calls have {written:,} characters; {most}", "messages")
    for place, message in enumerate(messages):
        if not isinstance(message.get("role"), str):
            role = f"messages.{place}.role"
            raise FieldError(f"{role} must be system, developer, user, assistant or tool", role)
    for place, message in enumerate(messages):
        try:
            normalize_message(message)
        except ValueError as error:
            content = f"messages.{place}.content"
            raise FieldError(f"{content}: {error}", content) from error


def _arguments(message: dict[str, Any]) -> Iterator[str]:
    """Yield the texts that hold the arguments of a message's calls."""
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        text = function.get("arguments") if isinstance(function, dict) else None
        if isinstance(text, str):
            yield text


class AnswerReport(BaseModel):
    """One of the two answers."""

    text: str
    reasoning: str | None = Field(default=None, description="what a model that thinks thought before the answer")
    perplexity: float | None = Field(
        description="Eq. 7, from the model's own log-probabilities of the answer without its thoughts; null: infinite"
    )
    tokens: int = Field(description="tokens of the turn, thoughts and closing one included")
    shared_perplexity: float | None = Field(
        description="under the prompt that both were scored with, where they were; by released scoring, of box and "
        "answer together"
    )
    rescored: bool = Field(
        description="the answer was held to a grammar, so it was scored anew without: the perplexity is the model's own"
    )
    finish_reason: str
    enough: float | None = Field(
        default=None,
        description="whether what it saw is enough to answer, as the model said: 0 to 1, where it was asked",
    )


class RegionReport(BaseModel):
    """One of the places that were looked at."""

    box: Corners = Field(description="as shares of width and height")
    crop: tuple[int, int, int, int] = Field(description="left, top, right, bottom in pixels of the image")
    tokens: int = Field(description="image tokens that the crop was shown in")
    crop_image: str | None = Field(default=None, description="of several, the crop as a data: URL, on request")


class GroundingReport(BaseModel):
    """What the grounding turn wrote, which may read as no box."""

    text: str
    finish_reason: str


class LookReport(BaseModel):
    """One of more than two looks."""

    turn: str = Field(description="which turn answered from it: macro, micro, micro-2 …")
    answer: AnswerReport | None
    box: Corners | None = Field(description="where it was, as shares of the whole picture's width and height")
    crop: tuple[int, int, int, int] | None
    crop_image: str | None = Field(default=None, description="the crop as a data: URL, on request")
    failed: str | None = Field(description="what kept it from an answer, as `selection` names it")
    chosen: bool


class TurnReport(BaseModel):
    """What one turn cost."""

    prompt_tokens: int
    image_tokens: int = Field(description="of the prompt, standing for its pictures")
    cached_tokens: int = Field(description="of the prompt, taken from the prefix cache")
    computed_tokens: int = Field(description="of the prompt, computed for this turn")
    completion_tokens: int
    encoder_runs: int | None = Field(description="images the vision encoder ran on for this turn")
    engine_steps: int | None = Field(description="steps of the engine that this turn took part in")
    seconds: float


class FocusReport(BaseModel):
    """The answer's `dualfocus` field: everything the engine's result holds."""

    mode: Literal["dual", "regions", "search", "adaptive", "macro", "micro"]
    winner: Winner | list[Winner] = Field(description="of several answers (`n`) a list, as the fields of each are")
    selection: str | list[str] = Field(description="why that answer was chosen (docs/api.md lists the reasons)")
    box: Corners | None = Field(description="where the model looked, as shares of width and height; holds all places")
    crop: tuple[int, int, int, int] | None = Field(description="left, top, right, bottom in pixels of the image")
    regions: list[RegionReport] = Field(description="each place that was looked at")
    crop_image: str | None = Field(default=None, description="the crop as a data: URL, on request")
    grounding: GroundingReport | None = Field(description="what the model wrote when asked where to look")
    macro: AnswerReport | list[AnswerReport | None] | None
    micro: AnswerReport | list[AnswerReport | None] | None
    looks: list[LookReport] = Field(
        default=[], description="of more than two, each in order; box … micro are the best's"
    )
    ending: str | None = Field(default=None, description="why there was no look further than those")
    turns: dict[str, TurnReport | list[TurnReport]]
    stages: dict[str, float] = Field(default={}, description="seconds by stage, the wait and the images included")
    seconds: float = Field(description="from the first turn to the choice")
    notes: list[str] = Field(description="what was done otherwise than by default, such as a picture shown smaller")


class FocusResponse(ChatCompletionResponse):
    """A chat completion with the `dualfocus` field."""

    dualfocus: FocusReport


class FocusPiece(ChatCompletionStreamResponse):
    """A piece of a stream; `dualfocus` is the answer's report, or what is being done."""

    dualfocus: dict[str, Any] | None = None


class ErrorReport(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None = Field(description="the field that was wrong")
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorReport
