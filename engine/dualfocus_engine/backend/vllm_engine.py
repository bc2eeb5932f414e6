"""vLLM as the turns use it: the one place that runs and scores them.

Leans on these parts of vLLM 0.32 (tests/engine/test_vllm_contract.py has a test for each):
`AsyncLLM` (generate with `data_parallel_rank` and `trace_headers`, abort, is_sleeping, errored,
shutdown, get_num_unfinished_requests, renderer, model_config, vllm_config.parallel_config,
output_processor.propagate_error, engine_core.resources.engine_dead and .engine_manager (with its processes, where they
are this one's), engine_core.engine_ranks_managed and, of several ranks, engine_core.reqs_in_flight: by request the
rank's number in bytes), `RequestOutput.add`, `VLLMClientError`, `SamplingParams.clone`, `prompt_logprobs`,
`skip_reading_prefix_cache`, raw log-probabilities by default.
"""

import asyncio
import math
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.outputs import RequestOutput
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from dualfocus_engine.backend.chat_template import known_tokens
from dualfocus_engine.backend.engine_core.drafts import box_tokens
from dualfocus_engine.backend.engine_core.ec_connector import box_key
from dualfocus_engine.backend.engine_core.ending import tell_to_end
from dualfocus_engine.backend.heartbeat import Heartbeat, shared_times
from dualfocus_engine.backend.launch import EngineClient, launch
from dualfocus_engine.backend.outputs import (
    Dropping,
    bounded_request,
    has_failed,
    operators_sampling,
    read_turn,
    reasoning_options,
    tell_listener,
    trace_headers,
    unfinished_error,
    was_aborted,
)
from dualfocus_engine.backend.rendering import PromptRenderer
from dualfocus_engine.errors import BadQuestion, ContextFull, EngineDead
from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.method.prompts import Prompt
from dualfocus_engine.method.results import Score, Turn
from dualfocus_engine.method.turn_engine import TurnRequest
from dualfocus_engine.pictures.pictures import Picture

# What the engine process gets to end by itself; nothing is in flight by then.
_SHUTDOWN_TIMEOUT_S = 2.0
# Among as many of the likeliest tokens a yes or a no is looked for.
_VERDICT_LOGPROBS = 20
# Between checks of whether the engine's process has ended.
_POLL_INTERVAL_S = 0.1


class VllmEngine(PromptRenderer):
    """A running vLLM engine that generates the turns of one profile."""

    def __init__(self, llm: AsyncLLM, profile: Profile, heartbeat: Heartbeat) -> None:
        super().__init__(llm, profile)
        self._heartbeat = heartbeat
        self._dropped = known_tokens(llm.renderer, profile.drop_tokens)
        # Read once, as `vllm serve` does: asked again it would read the model's generation_config.json again.
        self.default_sampling: Mapping[str, Any] = llm.model_config.get_diff_sampling_param()
        self._operators = operators_sampling(llm.model_config, self.default_sampling)
        self._box_args = self._draft_args()

    @classmethod
    def start(cls, args: AsyncEngineArgs, profile: Profile, client: EngineClient | None = None) -> "VllmEngine":
        """Start vLLM (20 s and more), or be a shared one's client; blocks until it is there. Raises ConfigError."""
        heartbeat = Heartbeat(client.last_steps if client else shared_times(args.data_parallel_size))
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
        """Stop vLLM and its processes; another process's engine goes on."""
        tell_to_end(getattr(self.llm.engine_core.resources.engine_manager, "processes", ()))
        self.llm.shutdown(timeout=_SHUTDOWN_TIMEOUT_S)

    def fail_all_requests(self) -> None:
        """End every request in flight or to come with EngineDead, also where the engine's process only hangs."""
        self.llm.engine_core.resources.engine_dead = True
        self.llm.output_processor.propagate_error(EngineDeadError())

    @property
    def unfinished(self) -> int:
        """Requests that vLLM has not finished."""
        return cast("int", self.llm.get_num_unfinished_requests())

    @property
    def is_dead(self) -> bool:
        """Whether vLLM has noticed that its engine's process ended."""
        return bool(self.llm.errored)

    @property
    def busy_ranks(self) -> AbstractSet[int]:
        """Data-parallel ranks that have requests of this process; of one rank, it alone."""
        core = self.llm.engine_core
        if self.ranks < 2:
            return set(core.engine_ranks_managed) if self.unfinished else set()
        return {int.from_bytes(rank, "little") for rank in core.reqs_in_flight.values()}

    def last_step(self, rank: int) -> float:
        """Return when a rank last did a step that produced output (`time.monotonic`)."""
        return self._heartbeat.last_step(rank)

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
        rendered = await self.engine_input(request.prompt)
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
        return replace(turn, is_masked=True) if own is None else replace(turn, logprobs=own.logprobs, rescored=True)

    async def _run_to_end(self, request: TurnRequest, rendered: Any) -> RequestOutput:
        """Run a request to its end. Raises BadQuestion where a grammar kept it from one, EngineDead where vLLM did."""
        output = await self._submit(request, rendered)
        if has_failed(output) and request.prompt.pictures and not output.outputs[0].token_ids:
            # vLLM's image cache marks an image as sent to the engine when it is rendered, even if that request is then
            # rejected. The failed attempt has evicted it: a retry works.
            output = await self._submit(request, await self.engine_input(request.prompt))
        if has_failed(output):
            raise unfinished_error(request.sampling)
        if was_aborted(output):
            raise EngineDead
        return output

    async def _submit(self, request: TurnRequest, rendered: Any) -> RequestOutput:
        """Submit a request, follow it to its end and return all of its output as one."""
        whole: RequestOutput | None = None
        request_id, drop = f"{request.name}-{uuid.uuid4().hex}", Dropping(self._dropped.values())
        async with self._errors_named(request_id):
            async for output in self.llm.generate(rendered, request.sampling, request_id, **self._told(request)):
                tell_listener(request, output, whole is None, drop)
                if whole is None:
                    whole = output
                else:
                    whole.add(output, aggregate=True)
        assert whole is not None  # generate() yields or raises
        return whole

    def _told(self, request: TurnRequest) -> dict[str, Any]:
        """Return what vLLM is told of a request beside its prompt and sampling."""
        return {
            "lora_request": request.prompt.options.lora_request,
            "trace_headers": trace_headers(),
            "priority": request.prompt.options.priority,
            **reasoning_options(self.llm, request, self.profile.chat_template_kwargs),
            **self._rank_option(request.prompt),
        }

    @asynccontextmanager
    async def _errors_named(self, request_id: str) -> AsyncIterator[None]:
        """Raise EngineDead or BadQuestion for what vLLM raises where a request is the cause or the engine has ended."""
        try:
            yield
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

        The prompt is taken from the prefix cache where it can. None where the answer fills the context (the last
        token's place is needed for the one that vLLM always generates), and where its tokens are not what vLLM makes of
        them behind the prompt, or have no log-probabilities: it splits the text of some families anew, and its newer
        runner forgets those of a prompt that it puts aside.
        """
        answered = prompt.opened(answer)
        rendered = await self.engine_input(answered)
        tokens = rendered["prompt_token_ids"]
        is_as_written = list(tokens[len(tokens) - len(answer) :]) == list(answer)
        if not answer or not is_as_written or len(tokens) >= self.context_length:
            return None
        scoring = _one_token(prompt_logprobs=0, skip_reading_prefix_cache=False)
        output = await self._run_to_end(TurnRequest(f"{name}-score", answered, scoring), rendered)
        reused = output.num_cached_tokens or 0
        if reused >= len(output.prompt_token_ids or ()) - len(answer):
            # The answer's own tokens stood in the cache too, and what is cached has no log-probabilities.
            return await self._score_apart(name, prompt, answer)
        scores = [choices for choices in (output.prompt_logprobs or ())[-len(answer) :] if choices is not None]
        if len(scores) < len(answer):
            return None
        return Score(tuple(choices[token].logprob for choices, token in zip(scores, answer, strict=True)), reused)

    async def _score_apart(self, name: str, prompt: Prompt, answer: Sequence[int]) -> Score | None:
        """Compute the prompt anew where no answer stands behind it, then score the answer there.

        Not both at once: logits of all of a prompt are gigabytes.
        """
        apart = replace(prompt, options=replace(prompt.options, cache_salt=uuid.uuid4().hex))
        before = replace(apart, token_ids=apart.token_ids[:-1])  # the last token predicts the answer's first
        await self._run_to_end(TurnRequest(f"{name}-score", before, _one_token()), await self.engine_input(before))
        score = await self.score(name, apart, answer)
        return score and replace(score, cached_tokens=0)


def _one_token(**more: Any) -> SamplingParams:
    """Sampling of a request that is run for its prompt: vLLM writes one token at least."""
    return SamplingParams(temperature=0.0, max_tokens=1, detokenize=False, **more)
