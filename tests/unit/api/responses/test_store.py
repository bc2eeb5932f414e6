"""What is kept of responses: for whom, how much, and what the next request has of it."""

import asyncio
import json
from http import HTTPStatus
from typing import Any

import pytest
from dualfocus_engine import Turn
from dualfocus_engine.method.stages import Stages
from dualfocus_server.api.responses.background import cancel, replayed
from dualfocus_server.api.responses.items import canonical_items
from dualfocus_server.api.responses.store import ResponseStore, Stored
from dualfocus_server.guards.api_errors import VllmResponseError
from dualfocus_server.guards.http_errors import TooBusy
from openai.types.responses import ResponseReasoningItem
from prometheus_client import REGISTRY

from ...builders import turn
from ...fake_engine import WAIT, never
from ..test_chat_service import REFUSED, admitted, service
from .asking import ABOUT_AN_IMAGE, URL, Vllm, body_of, events_of, responded, wanted

DONE = {"status": "completed"}
NOT_THERE = "There is no response with the id"


def stored(store: ResponseStore, name: str, items: list[Any] | None = None, owner: str = "", **fields: Any) -> Stored:
    made = Stored(store, name, owner, items or [], DONE | fields)
    store.add(made)
    return made


def names_in(store: ResponseStore) -> list[str]:
    return list(store._kept)


def test_the_oldest_make_room_for_a_number_of_them() -> None:
    store = ResponseStore(most=2)
    for name in "abc":
        stored(store, name)
    assert names_in(store) == ["b", "c"]


def test_the_oldest_make_room_for_their_bytes() -> None:
    store = ResponseStore(most_bytes=1000)
    for name, size in (("a", 300), ("b", 300), ("c", 600)):
        stored(store, name, ["x" * size])
    assert names_in(store) == ["b", "c"]
    stored(store, "d", ["x" * 2000])
    assert names_in(store) == [], "one that is larger than all may be is not kept either"
    assert store._bytes == 0


def test_what_is_being_made_is_not_given_up() -> None:
    store = ResponseStore(most=1)
    stored(store, "running", status="in_progress")
    stored(store, "ended")
    assert names_in(store) == ["running"]


def test_each_is_its_owners() -> None:
    store = ResponseStore()
    made = stored(store, "a", owner="one")
    assert store.get("a", "one") is made
    for name, owner in (("a", "two"), ("a", ""), ("b", "one")):
        with pytest.raises(VllmResponseError, match=NOT_THERE) as refused:
            store.get(name, owner)
        assert refused.value.problem.status == HTTPStatus.NOT_FOUND


def test_thoughts_are_not_said_again() -> None:
    kept = Stored(ResponseStore(), "a", "", [])
    kept.end(DONE, [ResponseReasoningItem(id="r", summary=[], type="reasoning")])
    assert kept.items == []


def test_what_tools_were_asked_and_gave_is_kept_in_its_size() -> None:
    said = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "x" * 1000}
    store, items = ResponseStore(most_bytes=2500), canonical_items(wanted([said]).input)
    for name in "abc":
        stored(store, name, items)
    assert names_in(store) == ["b", "c"]


async def test_the_next_request_sees_the_conversation_and_not_its_instructions() -> None:
    on, store = service(), ResponseStore()
    first = await body_of(on, ABOUT_AN_IMAGE, store, instructions="Be brief.")
    second = await body_of(on, "Where?", store, previous_response_id=first["id"], instructions="Be kind.")
    third = await body_of(on, "When?", store, previous_response_id=second["id"])
    assert third["previous_response_id"] == second["id"]
    assert third["dualfocus"]["mode"] == "dual", "it sees the picture"
    assert store.get(third["id"], "").items == [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": URL}}, {"type": "text", "text": "What?"}],
        },
        {"role": "assistant", "content": "micro answer", "type": "message", "status": "completed"},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "micro answer", "type": "message", "status": "completed"},
        {"role": "user", "content": "When?"},
        {"role": "assistant", "content": "micro answer", "type": "message", "status": "completed"},
    ]
    asked = "".join(map(chr, on.focus.engine.prompts["macro"].token_ids))  # type: ignore[attr-defined]
    assert asked == "user:#What?;assistant:micro answer;user:Where?;assistant:micro answer;user:When?;"


async def test_nothing_is_kept_where_it_is_not_to_be() -> None:
    store = ResponseStore()
    body = await body_of(service(), ABOUT_AN_IMAGE, store, store=False)
    assert names_in(store) == []
    with pytest.raises(VllmResponseError, match=NOT_THERE):
        await responded(service(), "Where?", store, previous_response_id=body["id"])


async def test_without_a_store_nothing_is_remembered() -> None:
    body = await body_of(service(), ABOUT_AN_IMAGE)
    with pytest.raises(VllmResponseError, match=NOT_THERE) as refused:
        await responded(service(), "Where?", previous_response_id=body["id"])
    assert (refused.value.problem.status, refused.value.problem.param) == (404, "previous_response_id")
    with pytest.raises(VllmResponseError, match="VLLM_ENABLE_RESPONSES_API_STORE") as refused:
        await responded(service(), ABOUT_AN_IMAGE, background=True)
    assert (refused.value.problem.status, refused.value.problem.param) == (400, "background")


async def test_another_clients_response_is_not_there() -> None:
    on, store = service(), ResponseStore()
    body = await body_of(on, ABOUT_AN_IMAGE, store, "one")
    with pytest.raises(VllmResponseError, match=NOT_THERE):
        await responded(on, "Where?", store, "two", previous_response_id=body["id"])


async def test_a_stream_is_kept_too() -> None:
    store = ResponseStore()
    events = await events_of(await responded(service(), ABOUT_AN_IMAGE, store, stream=True))
    assert store.get(events[-1]["response"]["id"], "").response == events[-1]["response"]


async def ended(kept: Stored) -> None:
    """Wait until a response in the background is made."""
    assert kept.task is not None
    await asyncio.wait({kept.task}, timeout=WAIT)


async def test_in_the_background_it_holds_its_place_and_says_how_far_it_is() -> None:
    is_read, store = asyncio.Event(), ResponseStore()

    async def reading() -> Turn:
        await is_read.wait()
        return turn("micro answer", 0.5)

    on = service(micro=reading)
    with await on.admission.admit("other", Stages()) as place:
        await place.acquire()
        body = await body_of(on, ABOUT_AN_IMAGE, store, background=True)
        assert (body["status"], body["background"], body["output"]) == ("queued", True, [])
        kept = store.get(body["id"], "")
        assert on.admission.admitted == 2
        place.release()
        async with asyncio.timeout(WAIT):
            while kept.response["status"] != "in_progress":  # noqa: ASYNC110 (it is no event)
                await asyncio.sleep(0)
        with pytest.raises(VllmResponseError, match="is not there yet: it is in_progress"):
            await responded(on, "Where?", store, previous_response_id=body["id"])
        is_read.set()
        await ended(kept)
    assert on.admission.admitted == 0
    assert (kept.response["status"], kept.response["dualfocus"]["winner"]) == ("completed", "micro")


async def test_the_events_of_one_in_the_background_can_be_read_from_each_on() -> None:
    on, store = service(), ResponseStore()
    events = await events_of(await responded(on, ABOUT_AN_IMAGE, store, background=True, stream=True))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
    kept = store.get(events[0]["response"]["id"], "")
    for number in range(len(events) + 2):
        assert await events_of(replayed(kept, number, on)) == events[number:]


async def test_events_that_are_to_come_are_waited_for() -> None:
    is_read, store = asyncio.Event(), ResponseStore()

    async def reading() -> Turn:
        await is_read.wait()
        return turn("macro answer")

    on = service(macro=reading)
    response = await responded(on, ABOUT_AN_IMAGE, store, background=True, stream=True, dualfocus={"mode": "macro"})
    lines = response.body_iterator
    assert "response.created" in str(await asyncio.wait_for(anext(lines), WAIT))
    is_read.set()
    assert "response.completed" in [str(line) async for line in lines][-1]


def clients_left() -> float:
    return REGISTRY.get_sample_value("dualfocus_questions_total", {"outcome": "client_left"}) or 0.0


@pytest.mark.parametrize("script", [{"macro": never}, {"micro": never}])
async def test_cancelling_aborts_its_turns(script: Any) -> None:
    before = clients_left()
    on, store = service(**script), ResponseStore()
    body = await body_of(on, ABOUT_AN_IMAGE, store, background=True)
    kept, engine = store.get(body["id"], ""), on.focus.engine
    (name,) = script
    await asyncio.wait_for(engine.has_started[name].wait(), WAIT)  # type: ignore[attr-defined]
    await cancel(kept)
    await asyncio.wait_for(on.admission.emptied(), WAIT)
    assert name in engine.cancelled  # type: ignore[attr-defined]
    assert kept.response["status"] == "cancelled"
    assert kept.size >= sum(map(len, kept.events)) > 0, "what it holds counts, also where it was never finished"
    await cancel(kept)
    assert kept.response["status"] == "cancelled"
    assert clients_left() == before + 1


async def test_one_that_waits_for_its_place_can_be_cancelled() -> None:
    on, store, before = service(), ResponseStore(), clients_left()
    with await on.admission.admit("other", Stages()) as place:
        await place.acquire()
        body = await body_of(on, ABOUT_AN_IMAGE, store, background=True)
        await cancel(store.get(body["id"], ""))
        await admitted(on, 1)
    assert clients_left() == before + 1
    assert store.get(body["id"], "").response["status"] == "cancelled"


async def test_one_that_has_ended_stays_as_it_is() -> None:
    on, store = service(), ResponseStore()
    kept = store.get((await body_of(on, ABOUT_AN_IMAGE, store, background=True))["id"], "")
    await ended(kept)
    await cancel(kept)
    assert kept.response["status"] == "completed"


async def test_only_what_is_in_the_background_can_be_cancelled_or_read_again() -> None:
    on, store = service(), ResponseStore()
    kept = store.get((await body_of(on, ABOUT_AN_IMAGE, store))["id"], "")
    with pytest.raises(VllmResponseError, match="made in the background can be cancelled"):
        await cancel(kept)
    with pytest.raises(VllmResponseError, match="made in the background are kept"):
        replayed(kept, 0, on)


async def test_what_goes_wrong_in_the_background_is_told_in_the_response_and_its_events() -> None:
    labels = {"outcome": "invalid_request_error"}
    before = REGISTRY.get_sample_value("dualfocus_questions_total", labels) or 0.0
    on, store = service(macro=REFUSED), ResponseStore()
    kept = store.get((await body_of(on, ABOUT_AN_IMAGE, store, background=True))["id"], "")
    await ended(kept)
    assert kept.response["status"] == "failed"
    assert "out-of-vocab" in kept.response["error"]["message"]
    events = await events_of(replayed(kept, 0, on))
    assert (events[-1]["type"], events[-1]["param"]) == ("error", "logit_bias")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert REGISTRY.get_sample_value("dualfocus_questions_total", labels) == before + 1
    body = await body_of(service(), ABOUT_AN_IMAGE, store, previous_response_id=kept.id)
    assert body["status"] == "completed"


async def test_a_full_server_refuses_one_in_the_background_at_once() -> None:
    on, store = service(), ResponseStore()
    on.admission.places._limit = 0
    with pytest.raises(TooBusy):
        await responded(on, ABOUT_AN_IMAGE, store, background=True)
    assert names_in(store) == []


async def test_vllms_answers_are_made_in_the_background_too() -> None:
    on, store = service(chat=Vllm()), ResponseStore()
    body = await body_of(on, "What?", store, background=True)
    kept = store.get(body["id"], "")
    await ended(kept)
    assert json.loads(json.dumps(kept.response))["id"] == body["id"]
