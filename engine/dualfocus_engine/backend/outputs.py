"""What vLLM is asked of a turn besides its prompt, and what is read from its outputs.

Leans on vLLM 0.32's `RequestOutput.num_cached_tokens`, `.num_cache_creation_tokens`, `.metrics` and
`.ec_transfer_params`, on `SamplingParams.clone`, on what `AsyncLLM.generate` is told of thoughts (`reasoning_ended`,
`reasoning_parser_kwargs`) and a reasoning parser's `is_reasoning_end`, and on a rendered prompt's `mm_placeholders`,
ranges with `length` and `get_num_embeds` (tests/engine/test_vllm_contract.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

from opentelemetry.propagate import inject
from vllm import SamplingParams
from vllm.config import ModelConfig
from vllm.outputs import RequestOutput
from vllm.reasoning import ReasoningParserManager
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from dualfocus_engine.backend.engine_core.ec_connector import ENCODER_RUNS, ENGINE_STEPS
from dualfocus_engine.errors import BadQuestion
from dualfocus_engine.method.prompts import Prompt
from dualfocus_engine.method.results import Turn, TurnDelta, text_without
from dualfocus_engine.method.turn_engine import TurnRequest


def has_failed(output: RequestOutput) -> bool:
    """Whether vLLM could not finish a request."""
    return bool(output.outputs[0].finish_reason == "error")


def was_aborted(output: RequestOutput) -> bool:
    """Whether the engine ended a request that nobody had given up: it was told to stop, or to sleep."""
    return bool(output.outputs[0].finish_reason == "abort")


class Dropping:
    """Takes words out of a text that comes in pieces, also such as come in two of them."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words = tuple(words)
        self._held = ""  # may begin a word

    def __call__(self, piece: str, is_last: bool) -> str:
        """Return what of the text is to be shown now."""
        text = text_without(self._held + piece, self._words)
        longest = 0 if is_last else max((len(word) - 1 for word in self._words), default=0)
        begun = (length for length in range(min(longest, len(text)), 0, -1) if self._begins(text[-length:]))
        kept = next(begun, 0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def _begins(self, end: str) -> bool:
        return any(word.startswith(end) for word in self._words)


def tell_listener(request: TurnRequest, output: RequestOutput, is_first: bool, drop: Dropping) -> None:
    """Tell who asked for a turn what its output says. What vLLM can't compile (a grammar) fails in the first one."""
    if is_first and request.on_accepted is not None and not has_failed(output):
        request.on_accepted()
    if request.on_text is not None and not has_failed(output):  # such a turn may be tried again
        written = output.outputs[0]
        is_last = written.finish_reason is not None
        text = drop(written.text, is_last)
        request.on_text(TurnDelta(text, written.token_ids, output.prompt_token_ids or (), is_last))


def unfinished_error(sampling: SamplingParams) -> Exception:
    """Return the error of a turn that vLLM could not finish: the client's where it gave a grammar, else ours."""
    if sampling.structured_outputs is None:
        return RuntimeError("vLLM could not finish a turn.")
    return BadQuestion("The engine could not finish the answer; a grammar that nothing can satisfy does this.")


def trace_headers() -> dict[str, str] | None:
    """Return what makes the turn's span, which vLLM writes, a child of the current one; None without traces."""
    headers: dict[str, str] = {}
    inject(headers)
    return headers or None


def operators_sampling(config: ModelConfig, defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what of the sampling defaults the operator named, by SamplingParams' names.

    By `--override-generation-config`, or by a folder that `--generation-config` names. vLLM's own serving tells them
    apart so: `max_new_tokens` that the operator named holds for all requests; that of the model's own generation
    config (in `defaults`) only for those that name none.
    """
    if config.generation_config not in ("auto", "vllm"):
        return defaults
    named = dict(config.override_generation_config)
    return named | ({"max_tokens": named["max_new_tokens"]} if "max_new_tokens" in named else {})


def bounded_request(request: TurnRequest, room: int) -> TurnRequest:
    """Return a request for at most `room` tokens; an answer's each have a log-probability, for its perplexity.

    Raises BadQuestion where it is to have more at least: the engine would end over it, which reads it anew.
    """
    sampling = request.sampling.clone()
    if request.is_answer:
        sampling.logprobs = sampling.logprobs or 0
    sampling.max_tokens = min(sampling.max_tokens or room, room)
    if sampling.min_tokens > sampling.max_tokens:
        why = f"min_tokens is {sampling.min_tokens}, and an answer may have {sampling.max_tokens} tokens here"
        raise BadQuestion(f"{why}: what is left of the context, or what the server allows.", "min_tokens")
    is_followed = request.on_text is not None or request.on_accepted is not None
    sampling.output_kind = RequestOutputKind.DELTA if is_followed else RequestOutputKind.FINAL_ONLY
    if request.on_text is None:  # the first token is waited for, and the end
        sampling.stream_interval = sampling.max_tokens
    return replace(request, sampling=sampling)


def reasoning_options(llm: AsyncLLM, request: TurnRequest, template_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Say from where on a grammar holds: behind an answer's thoughts; a box is written without any."""
    if request.sampling.structured_outputs is None:
        return {}  # there is none
    options = request.prompt.options
    told = {"chat_template_kwargs": {**template_kwargs, **options.template_kwargs}}
    ended = not (request.is_answer and options.thinks) or _is_reasoning_ended(llm, request.prompt, told)
    return {"reasoning_ended": ended, "reasoning_parser_kwargs": told}


def _is_reasoning_ended(llm: AsyncLLM, prompt: Prompt, told: Mapping[str, Any]) -> bool | None:
    """Whether a prompt's last turn opens behind its thoughts; None leaves it to vLLM, which looks at all turns."""
    if not prompt.replied or not (name := llm.vllm_config.structured_outputs_config.reasoning_parser):
        return None
    parser = ReasoningParserManager.get_reasoning_parser(name)(llm.renderer.get_tokenizer(), **told)
    return bool(parser.is_reasoning_end(list(prompt.token_ids[prompt.replied :])))


def read_turn(output: RequestOutput, seconds: float, rendered: Any) -> Turn:
    """Return what a turn said and cost: `output` is all of it, `rendered` its prompt."""
    answer, places = output.outputs[0], rendered.get("mm_placeholders", {}).get("image", ())
    by_token = cast("list[dict[int, Any]]", answer.logprobs or [])
    scored = zip(by_token, answer.token_ids, strict=True) if by_token else ()  # a box's tokens are not
    counts = getattr(output, "ec_transfer_params", None) or {}
    return Turn(
        text=answer.text,
        token_ids=tuple(answer.token_ids),
        logprobs=tuple(choices[token].logprob for choices, token in scored),
        finish_reason=answer.finish_reason or "stop",
        prompt_token_ids=tuple(output.prompt_token_ids or ()),
        cached_tokens=output.num_cached_tokens or 0,
        encoder_runs=counts.get(ENCODER_RUNS),
        engine_steps=counts.get(ENGINE_STEPS),
        seconds=seconds,
        top_logprobs=by_token,
        stop_reason=answer.stop_reason,
        picture_tokens=tuple(place.get_num_embeds() for place in places),
        image_places=sum(place.length for place in places),
        cache_writes=output.num_cache_creation_tokens or 0,
        times=output.metrics,
    )
