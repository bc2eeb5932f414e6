"""vLLM as the turns use it: the one place that renders prompts and runs them.

Leans on these parts of vLLM 0.32 (tests/engine/test_vllm_contract.py has a test for each):
`AsyncLLM` (generate with `data_parallel_rank` and `trace_headers`, abort, is_sleeping, errored,
shutdown, get_num_unfinished_requests, renderer, model_config, vllm_config.parallel_config,
output_processor.propagate_error, engine_core.resources.engine_dead), the renderer's `render_messages_async`,
`default_chat_tok_params`, `tokenize_prompts_async`, `render_cmpl_async` and `get_tokenizer` (with
`max_chars_per_token`), images given as `image_pil: None` with a `uuid`, and as None beside a `uuid` for which
`mm_processor_cache.is_cached_item` (a ValueError where it no longer is), `RequestOutput.add`, `VLLMClientError`,
`SamplingParams.clone`, `prompt_logprobs`, `skip_reading_prefix_cache`, raw log-probabilities by default.
"""

import asyncio
import math
import time
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.inputs import TokensPrompt
from vllm.outputs import RequestOutput
from vllm.renderers.params import ChatParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from dualfocus_engine.backend.chat_template import (
    as_words,
    chat_message,
    chat_template_of,
    in_words,
    known_tokens,
    placeholder_pattern,
    placeholder_tokens,
)
from dualfocus_engine.backend.drafts import box_tokens
from dualfocus_engine.backend.ec_connector import box_key
from dualfocus_engine.backend.heartbeat import Heartbeat
from dualfocus_engine.backend.launch import EngineClient, launch
from dualfocus_engine.backend.outputs import (
    bounded_request,
    has_failed,
    operators_sampling,
    read_turn,
    reasoning_options,
    tell_listener,
    trace_headers,
    unfinished_error,
)
from dualfocus_engine.backend.processor_limits import with_processor_limits
from dualfocus_engine.errors import BadQuestion, ContextFull, EngineDead
from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.method.prompts import NO_OPTIONS, Prompt, TurnOptions
from dualfocus_engine.method.questions import Message
from dualfocus_engine.method.results import Score, Turn
from dualfocus_engine.method.turn_engine import TurnRequest
from dualfocus_engine.pictures.picture_cache import EncoderInput, PictureCache
from dualfocus_engine.pictures.pictures import Picture

# Stands for the grounding answer while the micro conversation is rendered; what follows it is the continuation.
# Nobody can guess it, so that no question holds it.
_REPLY_MARK = f"answer-{uuid.uuid4().hex}"

_GENERATION_PROMPT = {"add_generation_prompt": True, "tokenize": False}
# What the engine process gets to end by itself; nothing is in flight by then.
_SHUTDOWN_TIMEOUT_S = 2.0
# Among as many of the likeliest tokens a yes or a no is looked for.
_VERDICT_LOGPROBS = 20
# Between checks of whether the engine's process has ended.
_POLL_INTERVAL_S = 0.1


class VllmEngine:
    """A running vLLM engine that renders the turns of one profile and generates them."""

    def __init__(self, llm: AsyncLLM, profile: Profile, heartbeat: Heartbeat) -> None:
        self.llm = llm
        self.profile = profile
        self._heartbeat = heartbeat
        # Lengths are judged in `generate`, with the image tokens; the template writes what opens a prompt.
        self._tokenizing = replace(
            llm.renderer.default_chat_tok_params, max_total_tokens=None, add_special_tokens=False
        )
        self.template = chat_template_of(llm, profile)
        self._placeholders = placeholder_pattern(llm)
        self.placeholder_tokens = placeholder_tokens(llm)
        self.pictures = PictureCache(profile.pad_color, profile.image_size)
        self._dropped = known_tokens(llm.renderer, profile.drop_tokens)
        self.views = with_processor_limits(profile.views, llm.renderer)
        # Read once, as `vllm serve` does: asked again it would read the model's generation_config.json again.
        self.default_sampling: Mapping[str, Any] = llm.model_config.get_diff_sampling_param()
        self._operators = operators_sampling(llm.model_config, self.default_sampling)
        self._box_args = self._draft_args()

    @classmethod
    def start(cls, args: AsyncEngineArgs, profile: Profile, client: EngineClient | None = None) -> "VllmEngine":
        """Start vLLM (20 s and more), or be a shared one's client; blocks until it is there. Raises ConfigError."""
        heartbeat = Heartbeat(client.last_step if client else None)
        return cls(launch(args, heartbeat, profile, client), profile, heartbeat)

    def with_profile(self, profile: Profile) -> "VllmEngine":
        """Return what renders the turns of another profile on the same engine, with the same pictures at hand.

        Raises ConfigError where pictures are padded or resized otherwise: they would have the same keys.
        """
        profile.check_same_pictures(self.profile)
        other = VllmEngine(self.llm, profile, self._heartbeat)
        other.pictures = self.pictures
        return other

    def _draft_args(self) -> dict[str, Any] | None:
        """Return what the connector is told of a box; None where boxes are not drafted."""
        key, box_format = box_key(self.llm.vllm_config), self.profile.box_format
        if key is None or box_format.opening:
            return None
        return {key: box_tokens(box_format, self.encode, self.closing_token)}

    def stop(self) -> None:
        """Stop vLLM and its processes."""
        self.llm.shutdown(timeout=_SHUTDOWN_TIMEOUT_S)

    def fail_all_requests(self) -> None:
        """End every request in flight or to come with EngineDead, also where the engine's process only hangs."""
        self.llm.engine_core.resources.engine_dead = True
        self.llm.output_processor.propagate_error(EngineDeadError())

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

    @property
    def unfinished(self) -> int:
        """Requests that vLLM has not finished."""
        return cast("int", self.llm.get_num_unfinished_requests())

    @property
    def is_dead(self) -> bool:
        """Whether vLLM has noticed that its engine's process ended."""
        return bool(self.llm.errored)

    @property
    def last_step(self) -> float:
        """When the engine last did a step that produced output (`time.monotonic`)."""
        return self._heartbeat.last_step

    async def check_health(self) -> None:
        """Return once the engine core itself has answered; raise EngineDead as soon as it is known to have stopped."""
        answering = asyncio.ensure_future(self.llm.is_sleeping())
        try:
            # A call to a process that has just ended would wait for its answer.
            while not answering.done() and not self.is_dead:
                await asyncio.wait({answering}, timeout=_POLL_INTERVAL_S)
            if self.is_dead:
                raise EngineDead
            await answering
        except EngineDeadError as error:
            raise EngineDead from error
        finally:
            answering.cancel()

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
        return int(self.llm.renderer.get_tokenizer().eos_token_id)

    def grounding_sampling(self, boxes: int = 1, seed: int | None = None) -> SamplingParams:
        """Return how boxes are written: greedily, under the profile's grammar if it has one, drafted if asked for.

        One box ends the turn where the profile says what stops it; several end by themselves. With a `seed` they are
        drawn as the model's own probabilities have it, and not drafted: drafts are for what is likeliest.
        """
        box_format = self.profile.box_format
        grammar = (box_format.list_grammar if boxes > 1 else None) or box_format.grammar
        return SamplingParams(
            temperature=0.0 if seed is None else 1.0,
            seed=seed,
            max_tokens=self.profile.max_box_tokens * boxes,
            stop=box_format.stop if boxes == 1 else None,
            skip_special_tokens=not box_format.keep_special_tokens,
            structured_outputs=StructuredOutputsParams(regex=grammar) if grammar else None,
            extra_args=self._box_args if seed is None else None,
        )

    def verdict_sampling(self) -> SamplingParams:
        """Return how one token is written, with the log-probabilities of the likeliest.

        Not with those of given tokens (`logprob_token_ids`): vLLM 0.32 then leaves all requests of the same step
        without the likeliest ones that they asked for.
        """
        return SamplingParams(temperature=0.0, max_tokens=1, logprobs=self._most_logprobs)

    @property
    def _most_logprobs(self) -> int:
        most = int(self.llm.model_config.max_logprobs)
        return _VERDICT_LOGPROBS if most < 0 else min(most, _VERDICT_LOGPROBS)

    def answer_sampling(self) -> SamplingParams:
        """Return how answers are drawn where the client says nothing."""
        return SamplingParams(temperature=self.default_temperature, max_tokens=self.default_max_tokens)

    @property
    def default_temperature(self) -> float:
        """The temperature of answers: the operator's, else the profile's."""
        return float(self._operators.get("temperature", self.profile.temperature))

    @property
    def default_max_tokens(self) -> int | None:
        """New tokens of an answer: the profile's, else the model's generation config's; None: to the context's end."""
        return self.profile.max_answer_tokens or self.default_sampling.get("max_tokens")

    async def generate(self, request: TurnRequest) -> Turn:
        """Run one turn to its end; cancelling the call aborts it in the engine.

        An answer that was held to a grammar is scored anew without it: its log-probabilities are to be the model's own.
        Raises ContextFull where the prompt leaves no room for a token, EngineDead where vLLM stopped.
        """
        started = time.perf_counter()
        rendered = await self._process(request.prompt)
        room = self.context_length - len(rendered["prompt_token_ids"])
        if room < 1:
            raise ContextFull(len(rendered["prompt_token_ids"]), self.context_length)
        if request.on_start is not None:
            request.on_start()
        most = min(room, self._operators.get("max_tokens") or room) if request.is_answer else room
        output = await self._run_to_end(bounded_request(request, most), rendered)
        turn = read_turn(output, time.perf_counter() - started, rendered)
        if turn.finish_reason == "length" and most == room < (request.sampling.max_tokens or math.inf):
            turn = replace(turn, is_cut=True)
        if not request.is_answer:
            return turn
        turn = turn.without(self._dropped)
        if request.sampling.structured_outputs is None:
            return turn
        own = await self.score(request.name, request.prompt, turn.token_ids)
        return turn if own is None else replace(turn, logprobs=own.logprobs, rescored=True)

    async def _run_to_end(self, request: TurnRequest, rendered: Any) -> RequestOutput:
        """Run a request to its end. Raises BadQuestion where a grammar keeps it from one."""
        output = await self._submit(request, rendered)
        if has_failed(output) and request.prompt.pictures and not output.outputs[0].token_ids:
            # vLLM's image cache marks an image as sent to the engine when it is rendered, even if that request is then
            # rejected. The failed attempt has evicted it: a retry works.
            output = await self._submit(request, await self._process(request.prompt))
        if has_failed(output):
            raise unfinished_error(request.sampling)
        return output

    async def _submit(self, request: TurnRequest, rendered: Any) -> RequestOutput:
        """Submit a request, follow it to its end and return all of its output as one."""
        whole: RequestOutput | None = None
        request_id = f"{request.name}-{uuid.uuid4().hex}"
        try:
            async for output in self.llm.generate(
                rendered,
                request.sampling,
                request_id,
                lora_request=request.prompt.options.lora_request,
                trace_headers=trace_headers(),
                priority=request.prompt.options.priority,
                **reasoning_options(self.llm, request, self.profile.chat_template_kwargs),
                **self._rank_option(request.prompt),
            ):
                tell_listener(request, output, whole is None, self._dropped.values())
                if whole is None:
                    whole = output
                else:
                    whole.add(output, aggregate=True)
        except EngineDeadError as error:
            raise EngineDead from error
        except VLLMClientError as error:
            raise BadQuestion(str(error), getattr(error, "parameter", None)) from error
        except EngineGenerateError as error:
            # vLLM keeps a request that it could not hand to its engine on its books.
            await self.llm.abort(request_id)
            if isinstance(error.__cause__, ValueError | TypeError | OverflowError):
                raise BadQuestion(f"The question can't be handed to the engine: {error.__cause__}.") from error
            raise
        assert whole is not None  # generate() yields or raises
        return whole

    def _rank_option(self, prompt: Prompt) -> dict[str, int]:
        """Name the data-parallel rank of a question's turns, where there are several: each has a cache of its own."""
        if self.ranks < 2 or not prompt.pictures:
            return {}
        return {"data_parallel_rank": self.rank(prompt.pictures[0])}

    @property
    def ranks(self) -> int:
        """Data-parallel ranks that this engine sends turns to."""
        parallel = self.llm.vllm_config.parallel_config
        return int(parallel.data_parallel_size_local if parallel.local_engines_only else parallel.data_parallel_size)

    def rank(self, picture: Picture) -> int:
        """Return the rank of the conversations that begin with a picture, of whatever size: so their cache is found."""
        return zlib.crc32(picture.original.key.encode()) % self.ranks

    async def score(self, name: str, prompt: Prompt, answer: Sequence[int]) -> Score | None:
        """Return the model's own log-probabilities of an answer's tokens behind a prompt (teacher-forced).

        The prompt is taken from the prefix cache where it can. None where the answer fills the context: the last
        token's place is needed for the one that vLLM always generates.
        """
        answered = prompt.opened(answer)
        rendered = await self._process(answered)
        if len(rendered["prompt_token_ids"]) >= self.context_length:
            return None
        scoring = _one_token(prompt_logprobs=0, skip_reading_prefix_cache=False)
        output = await self._run_to_end(TurnRequest(f"{name}-score", answered, scoring), rendered)
        reused = output.num_cached_tokens or 0
        if reused >= len(output.prompt_token_ids or ()) - len(answer):
            # The answer's own tokens stood in the cache too, and what is cached has no log-probabilities.
            return await self._score_apart(name, prompt, answer)
        scores = cast("list[dict[int, Any]]", output.prompt_logprobs)[-len(answer) :]
        return Score(tuple(choices[token].logprob for choices, token in zip(scores, answer, strict=True)), reused)

    async def _score_apart(self, name: str, prompt: Prompt, answer: Sequence[int]) -> Score | None:
        """Compute the prompt anew where no answer stands behind it, then score the answer there.

        Not both at once: logits of all of a prompt are gigabytes.
        """
        apart = replace(prompt, options=replace(prompt.options, cache_salt=uuid.uuid4().hex))
        before = replace(apart, token_ids=apart.token_ids[:-1])  # the last token predicts the answer's first
        await self._run_to_end(TurnRequest(f"{name}-score", before, _one_token()), await self._process(before))
        score = await self.score(name, apart, answer)
        return score and replace(score, cached_tokens=0)

    async def encoder_input(self, picture: Picture) -> EncoderInput | None:
        """Return what the encoder is shown of a picture; None where vLLM has processed it and knows it by its key."""
        processed = self.llm.renderer.mm_processor_cache
        if processed is not None and processed.is_cached_item(picture.key):
            return None
        return await self.pictures.shared_encoder_input(picture)

    async def _process(self, prompt: Prompt) -> Any:
        """Return a prompt as vLLM's engine takes it: image placeholders widened, images processed."""
        images = await asyncio.gather(*map(self.encoder_input, prompt.pictures))
        try:
            return await self._process_with(prompt, images)
        except ValueError:
            if None not in images:
                raise
            # vLLM has evicted one of them since: its pixels are needed after all.
            made = await asyncio.gather(*map(self.pictures.shared_encoder_input, prompt.pictures))
            return await self._process_with(prompt, made)

    async def _process_with(self, prompt: Prompt, images: Sequence[EncoderInput | None]) -> Any:
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


def _one_token(**more: Any) -> SamplingParams:
    """Sampling of a request that is run for its prompt: vLLM writes one token at least."""
    return SamplingParams(temperature=0.0, max_tokens=1, detokenize=False, **more)


def _pictures(messages: Sequence[Message]) -> tuple[Picture, ...]:
    return tuple(picture for message in messages for picture in message.pictures)
