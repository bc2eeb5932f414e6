"""vLLM's own chat serving on the engine that DualFocus runs: what DualFocus does not concern is answered there.

Leans on vLLM 0.32's `init_app_state` (fills a Starlette state with its servings), on `OpenAIServingChat`'s
`create_chat_completion` and `_create_chat_logprobs`, and on `OpenAIServingModels`.
"""

from argparse import Namespace
from collections.abc import AsyncGenerator
from typing import Any, TypeAlias, cast

from dualfocus_engine import Turn
from fastapi import Request
from starlette.datastructures import State
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionLogProbs,
    ChatCompletionRequest,
    ChatCompletionResponse,
)
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.serve.engine.protocol import ErrorResponse, ModelList
from vllm.v1.engine.async_llm import AsyncLLM

Answer: TypeAlias = AsyncGenerator[str, None] | ChatCompletionResponse | ErrorResponse


class VllmChat:
    """`vllm serve`'s chat endpoint, without its server."""

    def __init__(self, state: State) -> None:
        self._chat = state.openai_serving_chat
        self._models = state.openai_serving_models

    @classmethod
    async def on(cls, llm: AsyncLLM, args: Namespace) -> "VllmChat":
        """Build it on a running engine, with the flags `vllm serve` was or would have been given."""
        state = State()
        await init_app_state(llm, state, args, await llm.get_supported_tasks())
        return cls(state)

    async def answer(self, request: ChatCompletionRequest, raw_request: Request) -> Answer:
        """Answer a chat completion request as `vllm serve` would."""
        return cast("Answer", await self._chat.create_chat_completion(request, raw_request))

    async def models(self) -> ModelList:
        """List what is served."""
        return await self._models.show_available_models()

    def is_base_model(self, name: str | None) -> bool:
        """Whether a request's model is the served one (an adapter or an unknown name is vLLM's to judge)."""
        paths: list[BaseModelPath] = self._models.base_model_paths
        return not name or name in [path.name for path in paths]

    @property
    def model_name(self) -> str:
        """The name answers are signed with."""
        return str(self._models.base_model_paths[0].name)

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
