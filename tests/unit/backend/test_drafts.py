"""Drafted boxes: what is known of one beforehand, and which rows of a batch are given it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from dualfocus_engine.backend.engine_core.cpu_kernels import expand, mask_top_k_top_p
from dualfocus_engine.backend.engine_core.drafts import OPEN, BoxProposer, Drafting, box_tokens, draft_of
from dualfocus_engine.backend.engine_core.ec_connector import (
    ENCODER_RUNS,
    ENGINE_STEPS,
    TurnConnector,
    _Boxes,
    ec_transfer_config,
)
from dualfocus_engine.families.box_format import BoxFormat
from dualfocus_engine.families.profiles import load_profile
from vllm import SamplingParams
from vllm.config import ECTransferConfig
from vllm.distributed.ec_transfer.ec_connector.base import ECConnectorBase, ECConnectorRole

BOX_FORMAT = load_profile("llava-dualfocus").box_format
CLOSING = 2
BOX_KEY = "a-key"


def by_character(text: str) -> list[int]:
    return [ord(character) for character in text]


BOX = box_tokens(BOX_FORMAT, by_character, CLOSING)


def written(tokens: list[int]) -> str:
    return "".join("?" if token == OPEN else chr(token) for token in tokens)


def test_what_every_box_holds_is_known_and_its_digits_are_not() -> None:
    assert written(BOX[:-1]) == "[0.??, 0.??, 0.??, 0.??]"
    assert BOX[-1] == CLOSING


def test_nothing_is_known_of_boxes_that_differ_in_length() -> None:
    pattern = r"\((?P<x1>\d+),(?P<y1>\d+)\),\((?P<x2>\d+),(?P<y2>\d+)\)"
    pixels = BoxFormat(pattern=pattern, scale=100, template="({x1:.0f},{y1:.0f}),({x2:.0f},{y2:.0f})")
    assert written(box_tokens(pixels, by_character, CLOSING)[:-1]) == "(??,??),(??,??)"
    uneven = BoxFormat(pattern=pattern, scale=200, template="({x1:.0f},{y1:.0f}),({x2:.0f},{y2:.0f})")
    assert box_tokens(uneven, by_character, CLOSING) == []


def request(name: str, prompt: str, box: list[int] | None = BOX) -> Any:
    sampling = SamplingParams(extra_args=None if box is None else {BOX_KEY: box})
    return SimpleNamespace(req_id=name, prompt_token_ids=by_character(prompt), sampling_params=sampling)


def begun(drafting: Drafting, name: str, prompt: str) -> None:
    draft = draft_of(request(name, prompt), BOX_KEY)
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
    assert draft_of(request("a", "What?", None), BOX_KEY) is None
    assert draft_of(request("a", "What?"), "another-key") is None
    unknown: Any = SimpleNamespace(req_id="a", prompt_token_ids=None, sampling_params=None)
    assert draft_of(unknown, BOX_KEY) is None


@pytest.fixture
def connector() -> TurnConnector:
    config: Any = SimpleNamespace(
        ec_transfer_config=ECTransferConfig(ec_role="ec_both", ec_connector_extra_config={"box_key": BOX_KEY}),
        cache_config=SimpleNamespace(enable_prefix_caching=True, block_size=16),
        lora_config=None,
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


def test_each_engine_has_a_key_of_its_own_and_none_where_nothing_is_drafted() -> None:
    keys = [ec_transfer_config(draft_boxes=True)["ec_connector_extra_config"]["box_key"] for _ in range(2)]
    assert keys[0] != keys[1]
    assert all(len(key) >= 32 for key in keys)
    assert ec_transfer_config(draft_boxes=False)["ec_connector_extra_config"] == {}


NONSENSE = (None, 1.5, "x", SimpleNamespace(), SimpleNamespace(mm_features=[1], request_id=[]))


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda nonsense: str(nonsense)[:10])
def test_no_hook_of_the_connector_raises_into_vllms_loop(connector: TurnConnector, nonsense: Any) -> None:
    connector._connector_metadata = nonsense
    assert connector.ensure_cache_available(nonsense, 0) is True
    connector.update_state_after_alloc(nonsense, 0)
    assert connector.request_finished(nonsense) == (False, None)
    assert connector.build_connector_meta(nonsense) == _Boxes()
    connector.start_load_caches(nonsense)
    assert connector.has_cache_item("a") is False
    connector.save_caches(nonsense, "a")


def test_every_hook_that_the_connector_has_was_tried_above() -> None:
    hooks = {name for name in vars(TurnConnector) if not name.startswith("_") and hasattr(ECConnectorBase, name)}
    tried = test_no_hook_of_the_connector_raises_into_vllms_loop.__code__.co_names
    assert hooks <= set(tried)


def test_a_box_that_is_none_takes_nothing_from_the_requests_beside_it(connector: TurnConnector) -> None:
    new = (request("a", "Where?"), request("b", "What?", 1.5), request("c", "Who?", {"x": "y"}))  # type: ignore[arg-type]
    connector._ended = {"z"}
    told = connector.build_connector_meta(step({"a": 6, "b": 5, "c": 4}, new, ("y",)))
    assert isinstance(told, _Boxes)
    assert (set(told.begun), told.ended) == ({"a"}, {"y", "z"})


def test_where_proposing_fails_nothing_is_drafted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dualfocus_engine.backend.engine_core.drafts.get_ec_transfer", lambda: None)
    config: Any = SimpleNamespace(speculative_config=SimpleNamespace(num_speculative_tokens=3))
    rows = np.zeros((2, 40), np.int32)
    for _ in range(3):
        assert BoxProposer(config).propose([[0], [0]], np.array([5, 5]), rows) == [[], []]
    assert caplog.text.count("BoxProposer.propose failed") == 1, "a step may take a millisecond"
    assert "AttributeError" in caplog.text


def test_a_draft_ends_where_the_model_has_to_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = SimpleNamespace(drafting=Drafting())
    begun(worker.drafting, "a", "Where?")
    monkeypatch.setattr("dualfocus_engine.backend.engine_core.drafts.get_ec_transfer", lambda: worker)
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
    expand(output, torch.tensor([0.0, 0.7, 1.5]), torch.tensor([2, 2, 5]), 0, 1)
    assert output.tolist() == [1.0, 1.0, 1.5, 1.5, 1.5]


def test_steps_without_a_draft_are_masked_as_well() -> None:
    nothing, top_k = torch.zeros(0, 5), torch.zeros(0, dtype=torch.int32)
    assert mask_top_k_top_p(nothing, top_k, None).shape == (0, 5)
    one = mask_top_k_top_p(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([1], dtype=torch.int32), None)
    assert one.tolist() == [[-torch.inf, 3.0, -torch.inf]]
