"""vLLM's own servings on the engine that DualFocus runs: what DualFocus does not concern is answered there.

Leans on vLLM 0.32's `init_app_state` (fills a Starlette state with its servings), on `OpenAIServingChat`'s
`create_chat_completion`, `_create_chat_logprobs`, `parser_cls`, `_make_parser`, `_effective_chat_template_kwargs`,
`enable_auto_tools`, `system_fingerprint`, `response_role`, `request_logger` and
`renderer.mm_processor_cache`, `engine_client`, on `OpenAIServingCompletion.create_completion` and
`OpenAIServingResponses.create_responses`, on its flags `enable_force_include_usage`, `enable_per_request_metrics` and
`enable_log_outputs` with what does them, on its streams (an error is an event and logged), on the error that it makes
of a cancellation, on `OpenAIServingModels` (`base_model_paths` and
`lora_requests` are what is served, `lora_resolvers` and `resolve_lora` find more), and on what vLLM says of a prompt
that is too long: `VLLMValidationError.parameter`, and the words of `get_max_tokens`.
"""

import asyncio
import logging
import re
from argparse import Namespace
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from http import HTTPStatus
from tempfile import NamedTemporaryFile
from typing import Any, TypeAlias, cast

from dualfocus_engine import ContextFull, Turn
from dualfocus_engine.backend.vllm_engine import VllmEngine
from dualfocus_engine.method.prompts import TurnOptions
from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import State
from vllm import envs
from vllm.entrypoints.generate.base.protocol import PerRequestMetrics, StreamOptions
from vllm.entrypoints.generate.base.serving import build_per_request_timing_metrics
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionLogProbs,
    ChatCompletionRequest,
    ChatCompletionResponse,
)
from vllm.entrypoints.openai.completion.protocol import CompletionRequest, CompletionResponse
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.responses.protocol import (
    ResponseCompletedEvent,
    ResponsesRequest,
    ResponsesResponse,
    StreamingResponsesResponse,
)
from vllm.entrypoints.serve.engine.protocol import ErrorResponse, ModelList
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest, UnloadLoRAAdapterRequest
from vllm.entrypoints.serve.tokenize.protocol import DetokenizeRequest, TokenizeRequest
from vllm.entrypoints.serve.utils.api_utils import should_include_usage
from vllm.exceptions import GenerationError, VLLMClientError, VLLMValidationError
from vllm.utils.mistral import is_mistral_tokenizer

from dualfocus_server.answering.contents import parts_of
from dualfocus_server.answering.headers import as_ours
from dualfocus_server.answering.protocol import FocusRequest
from dualfocus_server.answering.vllm_serving.answer_reader import AnswerReader
from dualfocus_server.answering.vllm_serving.rendering import watch_rendering
from dualfocus_server.guards.api_errors import ApiError, VllmResponseError, api_error_from_vllm, as_client_errors

Messages: TypeAlias = list[Any]
ResponseEvents: TypeAlias = AsyncGenerator[StreamingResponsesResponse, None]

# How a turn ends is the turn's own.
_OWN_TEMPLATE_KWARGS = ("add_generation_prompt", "continue_final_message")
# How vLLM's streams tell an error; no other event begins so.
_ERROR_EVENT = 'data: {"error":'
_NO_PARSER = (
    '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set; without them '
    "tool_choice can be none, the name of a tool, or required where there is one."
)
_SERVINGS = ("vllm.entrypoints.openai.chat_completion.serving", "vllm.entrypoints.openai.completion.serving")
_TOO_LONG = re.compile(r"Input length \((\d+)\) exceeds")


class VllmChat:
    """`vllm serve`'s endpoints, without its server."""

    def __init__(self, state: State) -> None:
        self._chat = state.openai_serving_chat
        self._state = state
        self._models = state.openai_serving_models
        self._responses = state.openai_serving_responses
        self._tokens = state.serving_tokenization
        self.messages = state.anthropic_serving_messages

    @classmethod
    async def on(cls, engine: VllmEngine, args: Namespace) -> "VllmChat":
        """Build it on a running engine, with the flags `vllm serve` was or would have been given.

        It renders by the engine's chat template, so that a question's macro turn is what `mode: off` is.
        """
        state, template = State(), engine.template
        # A file: of a text vLLM would ask first whether it names one, and read escapes in it otherwise.
        with NamedTemporaryFile("w", encoding="utf-8", suffix=".jinja") as file:
            file.write(template.text or "")
            file.flush()
            args.chat_template = file.name if template.text else None
            args.chat_template_content_format = template.content_format
            await init_app_state(engine.llm, state, args, await engine.llm.get_supported_tasks())
        watch_rendering(engine.llm.renderer)
        for name in _SERVINGS:
            logging.getLogger(name).addFilter(_is_not_the_clients)
        return cls(state)

    async def answer(self, request: ChatCompletionRequest, raw_request: Request) -> ChatCompletionResponse:
        """Answer a chat completion request as `vllm serve` would.

        Raises VllmResponseError, ContextFull and vLLM's errors.
        """
        with self._forget_images_on_error(request.messages):
            answering = self._chat.create_chat_completion(request, as_ours(raw_request))
            response = cast("ChatCompletionResponse", await self._made(request, answering))
        response.ec_transfer_params = None  # the engine's own count of encoder runs, no transfer
        return response

    async def stream(self, request: ChatCompletionRequest, raw_request: Request) -> AsyncGenerator[str, None]:
        """Answer one as `vllm serve` would, as events. Raises the same, also while they are read."""
        with self._forget_images_on_error(request.messages):
            events = await self._made(request, self._chat.create_chat_completion(request, as_ours(raw_request)))
        return self._forgetting_images(request, self._translate_errors(request, events))

    async def respond(self, request: ResponsesRequest, messages: Messages, raw_request: Request) -> ResponsesResponse:
        """Answer a request of the Responses API, whose images are in `messages`. Raises the same as `answer`."""
        with self._forget_images_on_error(messages):
            answering = self._responses.create_responses(request, as_ours(raw_request))
            response = cast("ResponsesResponse", await self._made(request, answering))
        response.ec_transfer_params = None  # the engine's own count of encoder runs, no transfer
        return response

    async def respond_in_events(
        self, request: ResponsesRequest, messages: Messages, raw_request: Request
    ) -> ResponseEvents:
        """Answer one as events. Raises the same, also while they are read."""
        with self._forget_images_on_error(messages):
            answering = self._responses.create_responses(request, as_ours(raw_request))
            events = cast("ResponseEvents", await self._made(request, answering))
        return self._read_responses(request, messages, events)

    async def _read_responses(
        self, request: ResponsesRequest, messages: Messages, events: ResponseEvents
    ) -> ResponseEvents:
        with self._forget_images_on_error(messages), as_client_errors():
            async with aclosing(events):
                try:
                    async for event in events:
                        if isinstance(event, ResponseCompletedEvent):
                            event.response.ec_transfer_params = None
                        yield event
                except ValidationError as error:
                    # vLLM has no event of its own for what the engine could not finish, and stumbles over making one.
                    if not isinstance(cause := error.__context__, GenerationError):
                        raise
                    raise VllmResponseError(_api_error(request, create_error_response(cause))) from cause

    async def complete(self, request: CompletionRequest, raw_request: Request) -> CompletionResponse:
        """Continue a text as `vllm serve` would. Raises the same."""
        answering = self._state.openai_serving_completion.create_completion(request, as_ours(raw_request))
        response = cast("CompletionResponse", await self._made(request, answering))
        response.ec_transfer_params = None
        return response

    async def stream_text(self, request: CompletionRequest, raw_request: Request) -> AsyncGenerator[str, None]:
        """Continue one as events. Raises the same, also while they are read."""
        events = await self._made(
            request, self._state.openai_serving_completion.create_completion(request, as_ours(raw_request))
        )
        return self._translate_errors(request, events)

    async def _made(self, request: Any, answering: Awaitable[Any]) -> Any:
        """Return what one of vLLM's servings makes of a request, its errors as exceptions."""
        try:
            with self._raise_context_full(), as_client_errors():
                response = await answering
        except GenerationError as error:
            raise VllmResponseError(_api_error(request, create_error_response(error))) from error
        if isinstance(response, ErrorResponse):
            _raise_if_cancelled()
            is_missing = response.error.code == HTTPStatus.NOT_FOUND
            problem = self.no_such_model(request.model) if is_missing else _api_error(request, response)
            raise VllmResponseError(problem)
        return response

    async def _translate_errors(self, request: Any, events: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        """Yield vLLM's events. Raises its errors."""
        async with aclosing(events):
            async for event in events:
                if event.startswith(_ERROR_EVENT):
                    response = ErrorResponse.model_validate_json(event.removeprefix("data: "))
                    raise VllmResponseError(_api_error(request, response))
                yield event

    async def _forgetting_images(
        self, request: ChatCompletionRequest, events: AsyncGenerator[str, None]
    ) -> AsyncGenerator[str, None]:
        with self._forget_images_on_error(request.messages):
            async with aclosing(events):
                async for event in events:
                    yield event

    @contextmanager
    def _forget_images_on_error(self, messages: Messages) -> Iterator[None]:
        """Forget a request's images where it fails: vLLM's image cache has marked them as sent to the engine.

        The next request with one of them would end in an error.
        """
        try:
            yield
        except BaseException:
            cache = self._chat.renderer.mm_processor_cache
            for message in messages if cache is not None else ():
                for part in parts_of(message):
                    if "uuid" in part:
                        cache.invalidate(part["uuid"])
            raise

    @contextmanager
    def _raise_context_full(self) -> Iterator[None]:
        """Raise ContextFull where vLLM refuses a prompt as too long."""
        limit = int(self._models.model_config.max_model_len)
        try:
            yield
        except VLLMValidationError as error:
            counted = _TOO_LONG.match(str(error))
            if error.parameter == "input_tokens" or counted:
                raise ContextFull(int(counted[1]) if counted else error.value, limit) from None
            if error.parameter == "input_text":
                longest = limit * self._chat.renderer.tokenizer.max_chars_per_token
                raise ContextFull(error.value, longest, "characters") from None
            raise

    async def models(self) -> ModelList:
        """List what is served."""
        return await self._models.show_available_models()

    async def tokenize(self, request: TokenizeRequest, raw_request: Request) -> dict[str, Any]:
        """Tokenize a text or a conversation as `vllm serve` would. Raises VllmResponseError and vLLM's errors."""
        with as_client_errors():
            return self._whole(request, await self._tokens.create_tokenize(request, as_ours(raw_request)))

    async def detokenize(self, request: DetokenizeRequest, raw_request: Request) -> dict[str, Any]:
        """Write tokens out as `vllm serve` would. Raises the same."""
        with as_client_errors():
            return self._whole(request, await self._tokens.create_detokenize(request, as_ours(raw_request)))

    async def tokenizer_info(self) -> dict[str, Any]:
        """Describe the tokenizer as `vllm serve` does."""
        return cast("dict[str, Any]", (await self._tokens.get_tokenizer_info()).model_dump())

    async def load_adapter(self, request: LoadLoRAAdapterRequest) -> str:
        """Serve an adapter from now on, as `vllm serve` would. Raises VllmResponseError."""
        return self._done(await self._models.load_lora_adapter(request))

    async def unload_adapter(self, request: UnloadLoRAAdapterRequest) -> str:
        """Serve one no longer. Raises the same."""
        return self._done(await self._models.unload_lora_adapter(request))

    @staticmethod
    def _done(response: str | ErrorResponse) -> str:
        if isinstance(response, ErrorResponse):
            raise VllmResponseError(api_error_from_vllm(response))
        return response

    def _whole(self, request: Any, response: Any) -> dict[str, Any]:
        if not isinstance(response, ErrorResponse):
            return cast("dict[str, Any]", response.model_dump())
        is_missing = response.error.code == HTTPStatus.NOT_FOUND
        raise VllmResponseError(self.no_such_model(request.model) if is_missing else api_error_from_vllm(response))

    def no_such_model(self, name: str | None) -> ApiError:
        """Describe the error of a model that is not served; it names those that are."""
        served = ", ".join([*(path.name for path in self._models.base_model_paths), *self._models.lora_requests])
        message = f"The model `{name}` does not exist. There is: {served}."
        return ApiError(HTTPStatus.NOT_FOUND, message, param="model")

    def is_served(self, name: str | None) -> bool:
        """Whether a request's model is the served one, or one of its adapters."""
        return self.is_base_model(name) or name in self._models.lora_requests

    async def finds(self, name: str | None) -> bool:
        """Whether a request's model is served, or found by one of vLLM's resolvers of adapters: as by `vllm serve`."""
        if self.is_served(name) or not (envs.VLLM_ALLOW_RUNTIME_LORA_UPDATING and self._models.lora_resolvers):
            return self.is_served(name)
        return not isinstance(await self._models.resolve_lora(name), ErrorResponse)

    def check_tools(self, request: ChatCompletionRequest) -> None:
        """Raise VllmResponseError where the model may call tools and no parser can read that, as vLLM's chat does."""
        if request.tool_choice != "auto":
            return
        parser, tokenizer = self._chat.parser_cls, self._chat.renderer.tokenizer
        can_call = (parser is not None and parser.tool_parser_cls is not None) or is_mistral_tokenizer(tokenizer)
        if not can_call:
            raise VllmResponseError(ApiError(HTTPStatus.BAD_REQUEST, _NO_PARSER, param="tool_choice"))

    def reader(self, request: FocusRequest) -> AnswerReader:
        """Return what reads the answers to a request."""
        parser, tokenizer = self._chat.parser_cls, self._chat.renderer.tokenizer
        if parser is None:
            return AnswerReader(request, None, tokenizer, auto=False)
        told = self._chat._effective_chat_template_kwargs(request)
        make = partial(self._chat._make_parser, tokenizer=tokenizer, chat_template_kwargs=told)
        return AnswerReader(request, make, tokenizer, auto=self._chat.enable_auto_tools)

    def turn_options(self, request: ChatCompletionRequest) -> TurnOptions:
        """Return what the engine is told with every turn of a request: what vLLM's own serving tells it."""
        given = request.build_chat_params(None, "auto").chat_template_kwargs
        told = {name: value for name, value in given.items() if name not in _OWN_TEMPLATE_KWARGS}
        is_told = request.tool_choice != "none" or not self._chat.exclude_tools_when_tool_choice_none
        if request.tools and is_told:
            told["tools"] = [tool.model_dump() for tool in request.tools]
        adapter = self._chat._maybe_get_adapters(request, supports_default_mm_loras=True)
        return TurnOptions(told, request.cache_salt, request.priority, adapter, request.mm_processor_kwargs or {})

    def is_base_model(self, name: str | None) -> bool:
        """Whether a request's model is the served one itself; where no name is to be checked, all but adapters are."""
        paths: list[BaseModelPath] = self._models.base_model_paths
        if envs.VLLM_SKIP_MODEL_NAME_VALIDATION:
            return name not in self._models.lora_requests
        return not name or name in [path.name for path in paths]

    @property
    def model_name(self) -> str:
        """The name answers are signed with."""
        return str(self._models.base_model_paths[0].name)

    def signature(self, request: ChatCompletionRequest) -> str:
        """Return the name that vLLM's answer to a request is signed with: an adapter signs its own."""
        return self.model_name if self.is_base_model(request.model) else str(request.model)

    @property
    def system_fingerprint(self) -> str | None:
        """What vLLM's answers name the engine's version and settings by (`--fingerprint-mode`)."""
        return cast("str | None", self._chat.system_fingerprint)

    @property
    def stream_interval(self) -> int:
        """Tokens that vLLM's streams have at least in a piece behind the first (`--stream-interval`)."""
        return int(self._chat.engine_client.vllm_config.scheduler_config.stream_interval)

    @property
    def role(self) -> str:
        """Who answers say that they are from (`--response-role`)."""
        return str(self._chat.response_role)

    def usage_in_stream(self, options: StreamOptions | None) -> tuple[bool, bool]:
        """Whether usage follows a streamed answer, and whether each piece says it too."""
        included: tuple[bool, bool] = should_include_usage(options, self._chat.enable_force_include_usage)
        return included

    def metrics(self, turn: Turn) -> PerRequestMetrics | None:
        """Return vLLM's times of an answer's turn, where they are asked for (`--enable-per-request-metrics`)."""
        if not self._chat.enable_per_request_metrics:
            return None
        return build_per_request_timing_metrics(turn.times, turn.completion_tokens)

    def log_answer(self, answer_id: str, turn: Turn, *, is_streaming: bool) -> None:
        """Write an answer to the log, where that is asked for (`--enable-log-outputs`)."""
        if self._chat.enable_log_outputs and self._chat.request_logger is not None:
            self._chat.request_logger.log_outputs(
                request_id=answer_id,
                outputs=turn.text,
                output_token_ids=turn.token_ids,
                finish_reason="streaming_complete" if is_streaming else turn.finish_reason,
                is_streaming=is_streaming,
            )

    def logprobs(self, turn: Turn, request: ChatCompletionRequest) -> ChatCompletionLogProbs | None:
        """Return a turn's log-probabilities as OpenAI writes them, where the request asks for them."""
        if not request.logprobs:
            return None
        made: Any = self._chat._create_chat_logprobs(
            token_ids=turn.token_ids,
            top_logprobs=turn.top_logprobs,
            tokenizer=self._chat.renderer.tokenizer,
            num_output_top_logprobs=request.top_logprobs,
            return_as_token_id=request.return_tokens_as_token_ids,
        )
        return made


def _raise_if_cancelled() -> None:
    """Go on with the task's cancellation, which vLLM has made an error of: nobody is left to be told one."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _is_not_the_clients(record: logging.LogRecord) -> bool:
    """Keep out of the log what vLLM takes for its own failure, in a stream: that it refused a client's values."""
    return not (record.exc_info and isinstance(record.exc_info[1], VLLMClientError))


def _api_error(request: Any, response: ErrorResponse) -> ApiError:
    """Describe vLLM's error; that it could not finish is the client's doing where the client gave a grammar."""
    if response.error.message != str(GenerationError()) or request.extract_structured_outputs() is None:
        return api_error_from_vllm(response)
    message = "The engine could not finish the answer; a grammar that nothing can satisfy does this."
    return ApiError(HTTPStatus.BAD_REQUEST, message, code="invalid_value")
