"""What is told of an answer beside it: stages, headers, the answers log, and what is counted."""

import asyncio
import json
from dataclasses import replace
from typing import Any, cast

import pytest
from dualfocus_engine import Turn
from dualfocus_server.answering.service import Service
from dualfocus_server.telemetry.answers_log import AnswersLog
from dualfocus_server.telemetry.request_ids import request_id
from prometheus_client import REGISTRY

from .test_chat_service import ABOUT_AN_IMAGE, answered, focus_in, lines_of, service


async def test_an_answer_says_what_each_stage_took_and_is_counted() -> None:
    before = REGISTRY.get_sample_value("dualfocus_stage_seconds_count", {"stage": "decode"}) or 0.0
    body = json.loads((await answered(service(), ABOUT_AN_IMAGE)).body)
    assert list(body["dualfocus"]["stages"]) == [
        "queue",
        "fetch",
        "decode",
        "grounding",
        "macro",
        "crop",
        "micro",
        "select",
    ]
    assert all(seconds >= 0 for seconds in body["dualfocus"]["stages"].values())
    assert REGISTRY.get_sample_value("dualfocus_stage_seconds_count", {"stage": "decode"}) == before + 1


async def test_winner_reason_and_box_are_headers_where_the_answer_is_not_streamed() -> None:
    found = (await answered(service(), ABOUT_AN_IMAGE)).headers
    assert (found["X-DualFocus-Winner"], found["X-DualFocus-Selection"]) == ("micro", "lower_perplexity")
    assert found["X-DualFocus-Box"] == "0.2000,0.2000,0.6000,0.6000"
    assert found["Content-Type"] == "application/json"
    alone = (await answered(service(), ABOUT_AN_IMAGE, dualfocus={"mode": "macro"})).headers
    assert (alone["X-DualFocus-Winner"], alone["X-DualFocus-Selection"]) == ("macro", "only_answer")
    assert "X-DualFocus-Box" not in alone
    streamed = await answered(service(), ABOUT_AN_IMAGE, stream=True)
    assert not any(name.startswith("x-dualfocus") for name in streamed.headers)


class Kept:
    """An answers log in memory."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def add(self, record: Any) -> None:
        self.records.append(record)


def keeping(**script: Any) -> tuple[Service, list[Any]]:
    log = Kept()
    return replace(service(**script), answers_log=cast("AnswersLog", log)), log.records


@pytest.mark.parametrize("stream", [False, True])
async def test_the_answers_log_holds_both_answers_under_both_ids(stream: bool) -> None:
    on, records = keeping()
    request_id.set("theirs")
    response = await answered(on, ABOUT_AN_IMAGE, stream=stream, request_id="ours")
    report = focus_in(await lines_of(response))[-1] if stream else json.loads(response.body)["dualfocus"]
    (record,) = records
    assert (record["id"], record["request_id"]) == ("chatcmpl-ours", "theirs")
    assert (record["winner"], record["selection"], record["mode"]) == ("micro", "lower_perplexity", "dual")
    assert record["macro"]["text"] != record["micro"]["text"]
    assert record["macro"]["perplexity"] > record["micro"]["perplexity"]
    assert json.loads(json.dumps(record)) == {"id": "chatcmpl-ours", "request_id": "theirs"} | {
        name: report[name] for name in ("mode", "winner", "selection", "box", "crop", "macro", "micro")
    }


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"store": True}, 1),
        ({"store": None}, 1),
        ({"store": False}, 0),
        ({"store": "false"}, 0),
        ({"store": 0}, 0),
        ({"dualfocus": {"mode": "macro"}}, 1),
    ],
)
async def test_what_a_client_will_not_have_stored_is_not_in_the_answers_log(fields: Any, kept: int) -> None:
    on, records = keeping()
    await answered(on, ABOUT_AN_IMAGE, **fields)
    assert len(records) == kept


async def test_an_error_within_a_stream_is_counted() -> None:
    labels = {"outcome": "server_error"}
    before = REGISTRY.get_sample_value("dualfocus_questions_total", labels) or 0.0
    is_read = asyncio.Event()

    async def failing() -> Turn:
        await is_read.wait()
        raise RuntimeError("broken")

    response = await answered(service(macro=failing), ABOUT_AN_IMAGE, stream=True)
    is_read.set()
    assert '"type":"server_error"' in "".join(await lines_of(response))
    assert REGISTRY.get_sample_value("dualfocus_questions_total", labels) == before + 1
