"""Sampling that would end the engine's workers is refused before it is handed on."""

from types import SimpleNamespace
from typing import Any

import pytest
from dualfocus_engine.backend.sampling_limits import check_sampling, limit_sampling
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError


def sampling(bad_words: int = 0, **fields: Any) -> SamplingParams:
    made = SamplingParams(temperature=1.0, **fields)
    made._bad_words_token_ids = [list(range(bad_words))]
    return made


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"logit_bias": dict.fromkeys(range(1_025), 1.0)}, "logit_bias"),
        ({"allowed_token_ids": list(range(1_025))}, "allowed_token_ids"),
        ({"stop_token_ids": list(range(129)), "min_tokens": 1}, "stop_token_ids"),
        ({"bad_words": 1_025}, "bad_words"),
        ({"seed": 2**63 - 1, "n": 2}, "seed"),
    ],
)
def test_more_than_the_newer_runners_tables_hold_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(VLLMValidationError, match=field) as refused:
        check_sampling(sampling(**fields), is_new=True)
    assert refused.value.parameter == field


def test_what_they_hold_is_taken() -> None:
    full: dict[str, Any] = {"logit_bias": dict.fromkeys(range(1_024), 1.0), "allowed_token_ids": list(range(1_024))}
    check_sampling(sampling(1_024, **full, stop_token_ids=list(range(128)), min_tokens=1), is_new=True)
    check_sampling(sampling(stop_token_ids=list(range(500)), seed=2**63 - 2, n=2), is_new=True)


def test_one_request_takes_no_log_probabilities_from_others() -> None:
    asked = sampling(logprobs=1, logprob_token_ids=[5])
    check_sampling(asked, is_new=True)
    with pytest.raises(VLLMValidationError, match="logprob_token_ids is not taken here"):
        check_sampling(asked, is_new=False)


def test_every_request_is_checked_as_it_is_handed_on() -> None:
    def process_inputs(name: str, *, params: Any) -> Any:
        return SimpleNamespace(request_id=name, sampling_params=params)

    llm: Any = SimpleNamespace(
        input_processor=SimpleNamespace(process_inputs=process_inputs),
        vllm_config=SimpleNamespace(use_v2_model_runner=True),
    )
    limit_sampling(llm)
    assert llm.input_processor.process_inputs("a", params=None).request_id == "a", "which is pooled, not sampled"
    assert llm.input_processor.process_inputs("a", params=sampling()).request_id == "a"
    with pytest.raises(VLLMValidationError):
        llm.input_processor.process_inputs("a", params=sampling(seed=2**63 - 1, n=2))
