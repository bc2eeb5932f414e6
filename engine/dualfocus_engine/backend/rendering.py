"""Conversations rendered into prompts, and prompts into what vLLM's engine takes.

Leans on these parts of vLLM 0.32 (tests/engine/test_vllm_contract.py has a test for each): the renderer's
`render_messages_async`, `default_chat_tok_params`, `tokenize_prompts_async`, `render_cmpl_async` and `get_tokenizer`
(with `max_chars_per_token`); images given as `image_pil: None` with a `uuid`, and as None beside a `uuid` for which
`mm_processor_cache.is_cached_item` (a ValueError where it no longer is).
"""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from vllm.exceptions import VLLMClientError
from vllm.inputs import TokensPrompt
from vllm.renderers.params import ChatParams
from vllm.v1.engine.async_llm import AsyncLLM

from dualfocus_engine.backend.chat_template import (
    as_words,
    chat_message,
    chat_template_of,
    in_words,
    placeholder_pattern,
    placeholder_tokens,
)
from dualfocus_engine.backend.processor_limits import with_processor_limits
from dualfocus_engine.errors import BadQuestion, ContextFull
from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.method.prompts import NO_OPTIONS, Prompt, TurnOptions
from dualfocus_engine.method.questions import Message
from dualfocus_engine.pictures.picture_cache import EncoderInput, PictureCache
from dualfocus_engine.pictures.pictures import Picture

# Stands for the grounding answer while the micro conversation is rendered; what follows it is the continuation.
# Nobody can guess it, so that no question holds it.
_REPLY_MARK = f"answer-{uuid.uuid4().hex}"

_GENERATION_PROMPT = {"add_generation_prompt": True, "tokenize": False}


class PromptRenderer:
    """Renders conversations by one profile, with the model's tokenizer, chat template and image processor."""

    def __init__(self, llm: AsyncLLM, profile: Profile) -> None:
        self.llm = llm
        self.profile = profile
        # Lengths are judged when a turn is run, with the image tokens; the template writes what opens a prompt.
        self._tokenizing = replace(
            llm.renderer.default_chat_tok_params, max_total_tokens=None, add_special_tokens=False
        )
        self.template = chat_template_of(llm, profile)
        self._placeholders = placeholder_pattern(llm)
        self.placeholder_tokens = placeholder_tokens(llm)
        self.pictures = PictureCache(profile.pad_color, profile.image_size)
        self.views = with_processor_limits(profile.views, llm.renderer)

    @property
    def context_length(self) -> int:
        """Tokens the model's context holds, prompt and answer together."""
        return cast("int", self.llm.model_config.max_model_len)

    @property
    def max_images(self) -> int:
        """Images that a prompt may hold (--limit-mm-per-prompt, and what the profile says of the model)."""
        allowed = int(self.llm.model_config.multimodal_config.get_limit_per_prompt("image"))
        return min(allowed, self.profile.max_images or allowed)

    @property
    def pictures_first(self) -> bool:
        """Whether the chat template shows a message's pictures before its text, whatever is sent."""
        return self.template.pictures_first

    async def prompt(self, messages: Sequence[Message], options: TurnOptions = NO_OPTIONS) -> Prompt:
        """Render a conversation up to where the model is to answer."""
        text = await self._render(messages, options)
        return Prompt(await self._tokens_of(text), _pictures(messages), options)

    async def continuation(
        self, messages: Sequence[Message], follow_up: Message, options: TurnOptions = NO_OPTIONS
    ) -> Prompt:
        """Render what follows the model's reply to `messages`: its closing token, then the user's follow-up."""
        reply = Message("assistant", _REPLY_MARK)
        text = await self._render([*messages, reply, follow_up], options)
        _, found, rest = text.rpartition(_REPLY_MARK)
        if not found:
            raise BadQuestion("The model's chat template does not show earlier answers: it can't continue a turn.")
        return Prompt(await self._tokens_of(rest), follow_up.pictures, options)

    async def _tokens_of(self, text: str) -> tuple[int, ...]:
        """Tokenize in vLLM's thread: a question may be megabytes."""
        (tokens,) = await self.llm.renderer.tokenize_prompts_async([{"prompt": text}], self._tokenizing)
        return tuple(tokens["prompt_token_ids"])

    def as_words(self, texts: Sequence[str]) -> list[str]:
        """Return a message's texts in which what stands for pictures in the model's prompts is words."""
        return as_words(texts, self._placeholders)

    def in_words(self, value: Any) -> Any:
        """Return what else the template is told (tools, calls) with the placeholders of pictures in it made words."""
        return in_words(value, self._placeholders)

    def encode(self, text: str) -> list[int]:
        """Tokenize a piece from the middle of a conversation: no opening or closing token is added."""
        tokenizer = self.llm.renderer.get_tokenizer()
        return list(tokenizer.encode(text, add_special_tokens=False))

    @property
    def closing_token(self) -> int:
        """The token that ends an answer."""
        return self.template.closing_token

    async def encoder_input(self, picture: Picture) -> EncoderInput | None:
        """Return what the encoder is shown of a picture; None where vLLM has processed it and knows it by its key."""
        processed = self.llm.renderer.mm_processor_cache
        if processed is not None and processed.is_cached_item(picture.key):
            return None
        return await self.pictures.shared_encoder_input(picture)

    async def engine_input(self, prompt: Prompt) -> Any:
        """Return a prompt as vLLM's engine takes it: image placeholders widened, images processed."""
        images = await asyncio.gather(*map(self.encoder_input, prompt.pictures))
        try:
            return await self._engine_input_with(prompt, images)
        except ValueError:
            if None not in images:
                raise
            # vLLM has evicted one of them since: its pixels are needed after all.
            made = await asyncio.gather(*map(self.pictures.shared_encoder_input, prompt.pictures))
            return await self._engine_input_with(prompt, made)

    async def _engine_input_with(self, prompt: Prompt, images: Sequence[EncoderInput | None]) -> Any:
        tokens = TokensPrompt(prompt_token_ids=list(prompt.token_ids))
        if prompt.options.cache_salt is not None:
            tokens["cache_salt"] = prompt.options.cache_salt
        if images:
            tokens["multi_modal_data"] = {"image": list(images)}
            tokens["multi_modal_uuids"] = {"image": [picture.key for picture in prompt.pictures]}
        if prompt.options.processor_kwargs:
            tokens["mm_processor_kwargs"] = dict(prompt.options.processor_kwargs)
        try:
            (rendered,) = await self.llm.renderer.render_cmpl_async([tokens], self._tokenizing)
        except Exception as error:
            if not prompt.options.processor_kwargs or None in images:
                raise
            why = error.__cause__ or error  # vLLM's own words hold the pictures
            raise BadQuestion(f"mm_processor_kwargs can't be used: {why}", "mm_processor_kwargs") from error
        return rendered

    async def _render(self, messages: Sequence[Message], options: TurnOptions) -> str:
        self._check_images(messages)
        params = ChatParams(
            chat_template=self.template.text,
            chat_template_content_format=self.template.content_format,
            chat_template_kwargs={
                **self.profile.chat_template_kwargs,
                **self.in_words(options.template_kwargs),
                **_GENERATION_PROMPT,
            },
        )
        try:
            chat = [chat_message(message, self._placeholders) for message in messages]
            _, prompt = await self.llm.renderer.render_messages_async(chat, params)
        except (VLLMClientError, ValueError, TypeError) as error:  # too many images; roles the template won't have
            raise BadQuestion(f"The conversation can't be put to the model: {error}") from error
        text = cast("str", prompt["prompt"])
        self._check_characters(text)
        return text

    def _check_images(self, messages: Sequence[Message]) -> None:
        """Raise BadQuestion where a prompt would hold more than the profile allows: vLLM knows its own limit alone."""
        most = self.profile.max_images
        if most is not None and len(_pictures(messages)) > most:
            raise BadQuestion(f"The conversation can't be put to the model: at most {most} images may be in a prompt.")

    def _check_characters(self, text: str) -> None:
        """Raise ContextFull where a text can't fit the context: to count its tokens would take seconds."""
        longest = self.context_length * self.llm.renderer.get_tokenizer().max_chars_per_token
        if len(text) > longest:
            raise ContextFull(len(text), longest, "characters")


def _pictures(messages: Sequence[Message]) -> tuple[Picture, ...]:
    return tuple(picture for message in messages for picture in message.pictures)
