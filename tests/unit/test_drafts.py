"""Drafted boxes: what is known of one beforehand, and which rows of a batch are given it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from dualfocus_engine.boxes import BoxNotation
from dualfocus_engine.connector import ENCODER_RUNS, ENGINE_STEPS, TurnConnector
from dualfocus_engine.drafts import BOX_TOKENS, OPEN, BoxProposer, Drafting, _expand, box_tokens, draft_of
from dualfocus_engine.profiles import load_profile
from vllm import SamplingParams
from vllm.distributed.ec_transfer.ec_connector.base import ECConnectorRole

NOTATION = load_profile("llava-dualfocus").notation
CLOSING = 2


def by_character(text: str) -> list[int]:
    return [ord(character) for character in text]


BOX = box_tokens(NOTATION, by_character, CLOSING)


def written(tokens: list[int]) -> str:
    return "".join("?" if token == OPEN else chr(token) for token in tokens)


def test_what_every_box_holds_is_known_and_its_digits_are_not() -> None:
    assert written(BOX[:-1]) == "[0.??, 0.??, 0.??, 0.??]"
    assert BOX[-1] == CLOSING


def test_nothing_is_known_of_boxes_that_differ_in_length() -> None:
    pattern = r"\((?P<x1>\d+),(?P<y1>\d+)\),\((?P<x2>\d+),(?P<y2>\d+)\)"
    pixels = BoxNotation(pattern=pattern, scale=100, template="({x1:.0f},{y1:.0f}),({x2:.0f},{y2:.0f})")
    assert written(box_tokens(pixels, by_character, CLOSING)[:-1]) == "(??,??),(??,??)"
    uneven = BoxNotation(pattern=pattern, scale=200, template="({x1:.0f},{y1:.0f}),({x2:.0f},{y2:.0f})")
    assert box_tokens(uneven, by_character, CLOSING) == []


def request(name: str, prompt: str, box: list[int] | None = BOX) -> Any:
    sampling = SamplingParams(extra_args=None if box is None else {BOX_TOKENS: box})
    return SimpleNamespace(req_id=name, prompt_token_ids=by_character(prompt), sampling_params=sampling)


def begun(drafting: Drafting, name: str, prompt: str) -> None:
    draft = draft_of(request(name, prompt))
    assert draft is not None
    drafting.update({name: draft}, set())


def row(prompt: str, answer: str = "") -> Any:
    return np.array(by_character(prompt + answer), np.int32)


def rest(drafting: Drafting, *rows: Any) -> list[str]:
    return [written(list(tokens)[:-1]) for tokens in drafting.of(rows)]


def test_a_row_is_given_the_rest_of_its_box() -> None:
    drafting = Drafting()
    begun(drafting, "a", "Where?")
    assert rest(drafting, row("Where?", "["), row("Where"), row("Whence", "[")) == ["0.??, 0.??, 0.??, 0.??]", "", ""]
    assert rest(drafting, row("Where?", "[0.12, 0.3")) == ["?, 0.??, 0.??]"]
    assert rest(drafting, row("Where?", "[0.12, 0.34, 0.56, 0.78] and on")) == [""]


def test_prompts_of_several_lengths_are_told_apart() -> None:
    drafting = Drafting()
    begun(drafting, "a", "Where?")
    begun(drafting, "b", "Where? There?")
    assert rest(drafting, row("Where? There?", "[0."), row("Where?", "[0.1")) == [
        "??, 0.??, 0.??, 0.??]",
        "?, 0.??, 0.??, 0.??]",
    ]


def test_a_prompt_in_more_rows_than_asked_is_drafted_in_none() -> None:
    drafting = Drafting()
    begun(drafting, "a", "Where?")
    begun(drafting, "b", "Where?")
    both = [row("Where?", "["), row("Where?", "[0.2")]
    assert all(rest(drafting, *both))
    assert not any(rest(drafting, *both, row("Where?", "In the")))


def test_requests_that_ended_are_forgotten() -> None:
    drafting = Drafting()
    begun(drafting, "a", "Where?")
    begun(drafting, "b", "Where?")
    drafting.update({}, {"a", "unknown"})
    assert all(rest(drafting, row("Where?", "[")))
    drafting.update({}, {"b"})
    assert not any(rest(drafting, row("Where?", "[")))
    assert not drafting._boxes


def test_other_requests_have_no_draft() -> None:
    assert draft_of(request("a", "What?", None)) is None
    assert draft_of(SimpleNamespace(req_id="a", prompt_token_ids=None, sampling_params=None)) is None  # type: ignore[arg-type]


@pytest.fixture
def connector() -> TurnConnector:
    config: Any = SimpleNamespace(
        ec_transfer_config=SimpleNamespace(is_ec_producer=True, is_ec_consumer=True),
        cache_config=SimpleNamespace(enable_prefix_caching=True),
    )
    return TurnConnector(config, ECConnectorRole.SCHEDULER)


def step(scheduled: dict[str, int], new: tuple[Any, ...] = (), ended: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(
        num_scheduled_tokens=scheduled,
        total_num_scheduled_tokens=sum(scheduled.values()),
        scheduled_new_reqs=list(new),
        finished_req_ids=set(ended),
    )


def told(connector: TurnConnector) -> Any:
    connector.start_load_caches({})
    return connector.drafting


def test_workers_learn_with_each_step_which_requests_write_a_box(connector: TurnConnector) -> None:
    worker = TurnConnector(connector._vllm_config, ECConnectorRole.WORKER)
    new = (request("a", "Where?"), request("b", "What?", None))
    worker.bind_connector_metadata(connector.build_connector_meta(step({"a": 6, "b": 5}, new)))
    assert all(rest(told(worker), row("Where?", "[")))
    # Nothing runs in this step, so no worker hears of it; the next one has to tell.
    connector.build_connector_meta(step({}, ended=("a",)))
    worker.bind_connector_metadata(connector.build_connector_meta(step({"b": 1})))
    assert not any(rest(told(worker), row("Where?", "[")))


def test_steps_and_encoder_runs_are_handed_over_once(connector: TurnConnector) -> None:
    finished: Any = SimpleNamespace(request_id="a", mm_features=[])
    for scheduled in ({"a": 6, "b": 3}, {"a": 1}, {"a": 4, "b": 1}):
        connector.build_connector_meta(step(scheduled))
    connector.update_state_after_alloc(finished, 0)
    assert connector.request_finished(finished) == (False, {ENCODER_RUNS: 1, ENGINE_STEPS: 3})
    assert connector.request_finished(finished) == (False, {ENCODER_RUNS: 0, ENGINE_STEPS: 0})


def test_a_draft_ends_where_the_model_has_to_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = SimpleNamespace(drafting=Drafting())
    begun(worker.drafting, "a", "Where?")
    monkeypatch.setattr("dualfocus_engine.drafts.get_ec_transfer", lambda: worker)
    config: Any = SimpleNamespace(speculative_config=SimpleNamespace(num_speculative_tokens=3))
    rows = [row("Where?", "["), row("Where?", "[0.1"), row("Where?", "[0.12"), row("What?", "It")]
    batch = np.zeros((len(rows), 40), np.int32)
    for number, tokens in enumerate(rows):
        batch[number, : len(tokens)] = tokens
    proposer = BoxProposer(config)
    for name in ("b", "c"):
        begun(worker.drafting, name, "Where?")
    drafts = proposer.propose([[0]] * len(rows), np.array([len(tokens) for tokens in rows]), batch)
    assert [written(draft) for draft in drafts] == ["0.", "", ", 0", ""]


def test_each_requests_value_is_written_once_for_each_of_its_drafts() -> None:
    output = torch.full((5,), torch.nan)
    _expand(output, torch.tensor([0.0, 0.7, 1.5]), torch.tensor([2, 2, 5]), 0, 1)
    assert output.tolist() == [1.0, 1.0, 1.5, 1.5, 1.5]
