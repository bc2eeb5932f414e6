"""What the engine's wire format can't carry is refused by the name of its field."""

from typing import Any

import pytest
from dualfocus_server.guards.json_limits import MAX_DEPTH, MAX_VALUES, validate_json


def deep(times: int) -> Any:
    body: Any = "text"
    for _ in range(times):
        body = [body]
    return body


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        None,
        "text",
        {"a": [1, -(2**63), 2**63 - 1, 1.5e300, True, None, "é😀"]},
        {"a": {"b": [[{"c": "d"}]]}},
        {"a": deep(MAX_DEPTH - 1)},
    ],
)
def test_json_that_can_be_sent(body: Any) -> None:
    validate_json(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"stop": ["\ud800"]}, r"stop has an unpaired surrogate \(U\+D800\)"),
        ({"vllm_xargs": {"a": {"b": "x\udfff"}}}, r"vllm_xargs has an unpaired surrogate \(U\+DFFF\)"),
        ({"a\ud800": 1}, "the body has an unpaired surrogate"),
        ({"logit_bias": {"\ud800": 1}}, "logit_bias has an unpaired surrogate"),
        ({"top_k": 2**63}, "top_k has a number of more than 64 bits"),
        ({"x": [[-(2**64)]]}, "x has a number of more than 64 bits"),
        ({"x": [[0] * 60_000, [0] * 60_000]}, "more than 100,000 values"),
        ({"x": deep(MAX_DEPTH)}, "x has objects and lists nested more than 200 deep"),
        ({"x": deep(MAX_VALUES - 10)}, "x has objects and lists nested more than 200 deep"),
    ],
)
def test_json_that_cant(body: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate_json(body)
