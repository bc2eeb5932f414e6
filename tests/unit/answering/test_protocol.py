"""The `dualfocus` field of a request: what it takes and what it refuses."""

import json
from typing import Any

import pytest
from dualfocus_engine import Mode
from dualfocus_server.answering import protocol
from dualfocus_server.answering.protocol import FocusOptions, FocusRequest
from pydantic import ValidationError

MESSAGES = [{"role": "user", "content": "What?"}]


def _options(**fields: Any) -> FocusOptions:
    """The field as it comes over the wire, inside a request."""
    written = json.dumps({"messages": MESSAGES, "dualfocus": fields})
    request: FocusRequest = FocusRequest.model_validate_json(written)
    return request.dualfocus


def test_two_looks_without_a_box_are_the_default() -> None:
    assert FocusRequest.model_validate_json(json.dumps({"messages": MESSAGES})).dualfocus == _options()
    assert (_options().mode, _options().question, _options().box) == ("dual", None, None)


@pytest.mark.parametrize("mode", ["dual", "macro", "micro", "off"])
def test_modes_are_taken(mode: str) -> None:
    assert _options(mode=mode).mode == mode


def test_every_mode_but_off_is_the_engines() -> None:
    assert {mode.value for mode in Mode} | {"off"} == set(
        FocusOptions.model_json_schema()["properties"]["mode"]["enum"]
    )


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0.1, 0.2, 0.3, 0.4), (0, 0, 0.01, 0.01)])
def test_box_inside_the_image_is_taken(box: tuple[float, ...]) -> None:
    assert _options(box=box).box == box


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"mode": "both"}, "mode"),
        ({"mode": None}, "mode"),
        ({"question": ""}, "question"),
        ({"question": 5}, "question"),
        ({"box": (0.3, 0, 0.3, 1)}, "box"),
        ({"box": (0, 0.5, 1, 0.5)}, "box"),
        ({"box": (0.4, 0, 0.3, 1)}, "box"),
        ({"box": (0, 0.4, 1, 0.3)}, "box"),
        ({"box": (-0.1, 0, 0.3, 1)}, "box"),
        ({"box": (0, -0.1, 0.3, 1)}, "box"),
        ({"box": (0, 0, 1.1, 1)}, "box"),
        ({"box": (0, 0, 1, 1.1)}, "box"),
        ({"box": (0, 0, float("nan"), 1)}, "box"),
        ({"box": (0, 0, float("inf"), 1)}, "box"),
        ({"box": (100, 100, 300, 400)}, "box"),
        ({"box": (0, 0, 1)}, "box"),
        ({"box": "0 0 1 1"}, "box"),
        ({"crop": (0, 0, 1, 1)}, "crop"),
    ],
)
def test_other_values_are_refused_by_name(fields: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as refused:
        _options(**fields)
    assert refused.value.errors()[0]["loc"][:2] == ("dualfocus", place)


def test_refused_box_says_what_a_box_is() -> None:
    with pytest.raises(ValidationError, match="0 <= x1 < x2 <= 1"):
        _options(box=(1, 1, 0, 0))


def test_no_field_is_the_fields_default() -> None:
    body = json.dumps({"messages": MESSAGES, "dualfocus": None})
    assert FocusRequest.model_validate_json(body).dualfocus == FocusOptions()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": [{"a": 1}]}, "messages.0.role must be"),
        ({"messages": [*MESSAGES, {"role": 5, "content": "x"}]}, "messages.1.role must be"),
        ({"messages": [{"a": 1}] * 2_001}, "messages has 2,001 messages; 2,000 are the most"),
        ({"messages": [{"role": "user", "content": ["x"] * 1_001}]}, "messages.0.content has 1,001 parts"),
        ({"messages": MESSAGES, "x": [1] * 100_000}, "more than 100,000 values"),
    ],
    ids=["no role", "a role of another type", "messages", "parts", "values"],
)
def test_what_would_take_seconds_to_validate_is_refused_before(
    monkeypatch: pytest.MonkeyPatch, body: dict[str, Any], message: str
) -> None:
    def validated(*given: Any) -> None:
        raise AssertionError("a message was validated")

    monkeypatch.setattr(protocol, "normalize_message", validated)
    with pytest.raises(ValidationError, match=message):
        FocusRequest.model_validate_json(json.dumps(body))


@pytest.mark.parametrize("messages", [None, [], "text", [None], ["text"], {"role": "user"}])
def test_messages_are_a_list_of_objects(messages: Any) -> None:
    with pytest.raises(ValidationError, match="messages must be a list"):
        FocusRequest.model_validate_json(json.dumps({"messages": messages}))


@pytest.mark.parametrize("penalty", [-10.5, 1e300, -1e300])
def test_a_power_of_lengths_that_is_no_number_is_refused_where_beams_are_scored_by_it(penalty: float) -> None:
    body = {"messages": [{"role": "user", "content": "What?"}], "length_penalty": penalty}
    with pytest.raises(ValidationError, match="length_penalty must be -10 to 10"):
        FocusRequest.model_validate(body | {"use_beam_search": True})
    assert FocusRequest.model_validate(body).length_penalty == penalty, "which is not used"
