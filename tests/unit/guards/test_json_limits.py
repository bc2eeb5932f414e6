"""What the engine's wire format can't carry is refused by the name of its field."""

from typing import Any

import pytest
from dualfocus_server.guards.json_limits import MAX_VALUES, validate_json


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        None,
        "text",
        {"a": [1, -(2**63), 2**63 - 1, 1.5e300, True, None, "é😀"]},
        {"a": {"b": [[{"c": "d"}]]}},
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
    ],
)
def test_json_that_cant(body: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate_json(body)


def test_depth_is_no_matter() -> None:
    body: Any = "\ud800"
    for _ in range(MAX_VALUES - 10):
        body = [body]
    with pytest.raises(ValueError, match="an unpaired surrogate"):
        validate_json({"deep": body})
