"""What a request may ask of sampling, beyond what vLLM checks: its workers end the engine over some of the rest.

Leans on these parts of vLLM 0.32 (tests/engine/test_vllm_contract.py): `InputProcessor.process_inputs`, which makes
each request that `AsyncLLM` hands to its engine; the sizes of the newer model runner's tables (V2, on GPUs), beyond
which it raises in the worker; and that the older runner gives all of a step the log-probabilities that one asked for.
"""

from collections.abc import Iterator
from typing import Any

from vllm import SamplingParams, envs
from vllm.exceptions import VLLMValidationError
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.async_llm import AsyncLLM

MAX_BIASED, MAX_ALLOWED, MAX_STOPS = 1024, 1024, 128
_LARGEST_SEED = 2**63 - 1


def limit_sampling(llm: AsyncLLM) -> None:
    """Have each request checked before it is handed on. Those that fail raise VLLMValidationError, as vLLM's do."""
    process = llm.input_processor.process_inputs
    is_new = llm.vllm_config.use_v2_model_runner

    def process_inputs(*args: Any, **options: Any) -> EngineCoreRequest:
        request = process(*args, **options)
        if request.sampling_params is not None:
            check_sampling(request.sampling_params, is_new=is_new)
        return request

    llm.input_processor.process_inputs = process_inputs


def check_sampling(sampling: SamplingParams, *, is_new: bool) -> None:
    """Raise VLLMValidationError naming what is too much for a runner, the newer one or any."""
    for field, found, most in _sizes(sampling):
        if found > most:
            raise VLLMValidationError(f"{field} has {found:,} tokens in all; {most:,} are the most.", parameter=field)
    if sampling.seed is not None and sampling.seed + sampling.n - 1 > _LARGEST_SEED:
        raise VLLMValidationError("seed has no n - 1 numbers of 64 bits after it.", parameter="seed")
    if sampling.logprob_token_ids is not None and not is_new:
        why = "vLLM's older model runner would take the likeliest tokens from all others of a step"
        raise VLLMValidationError(f"logprob_token_ids is not taken here: {why}.", parameter="logprob_token_ids")


def _sizes(sampling: SamplingParams) -> Iterator[tuple[str, int, int]]:
    """Yield fields with how many tokens they hold, and how many they may."""
    yield "logit_bias", len(sampling.logit_bias or ()), MAX_BIASED
    yield "allowed_token_ids", len(sampling.allowed_token_ids or ()), MAX_ALLOWED
    if sampling.min_tokens:
        yield "stop_token_ids", len(sampling.all_stop_token_ids), MAX_STOPS
    yield "bad_words", sum(map(len, sampling.bad_words_token_ids or ())), envs.VLLM_MAX_BAD_WORDS_TOTAL_TOKENS
