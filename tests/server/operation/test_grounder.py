"""A server whose grounder is asked over HTTP: its box is looked at, and whatever it does, macro's answer is given."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import pytest
from asking import About, ask, lend, log_until
from openai import OpenAI
from running_server import PATIENCE, Server, start_server, wait_until
from unit.local_web import Page, body_of, redirect, respond, serving

BOX = [0.25, 0.25, 0.5, 0.75]
TIMEOUT = "10"
_is_over = threading.Event()
_metrics: list[str] = []  # where the server's are
_before: list[float] = []  # turns that had ended before the question of which one is to end meanwhile


def says(answer: Any) -> Page:
    return respond(200, json.dumps(answer).encode())


def finished_turns() -> float:
    lines = httpx.get(_metrics[0], timeout=PATIENCE).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:request_success_total"))


def once_macro_has_ended(request: BaseHTTPRequestHandler) -> None:
    """Give a box when a turn of the engine has ended since the question came: no other than macro can."""
    wait_until(lambda: finished_turns() > _before[0])
    says({"box": BOX})(request)


def never(request: BaseHTTPRequestHandler) -> None:
    _is_over.wait(PATIENCE)


def hang_up(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True


PAGES: dict[str, Page] = {
    "Meanwhile?": once_macro_has_ended,
    "Nothing?": says({"box": None}),
    "Dead?": hang_up,
    "Broken?": respond(500),
    "Elsewhere?": redirect("/locate", 307),
    "Words?": respond(200, b"It is on the left."),
    "Huge?": respond(200, b" " * (1 << 20)),
    "Pixels?": says({"box": [10, 10, 100, 100]}),
    "Nan?": respond(200, b'{"box": [0.1, 0.1, NaN, 0.5]}'),
    "Swapped?": says({"box": [0.5, 0.25, 0.25, 0.75]}),
    "Late?": never,
}


def locate(request: BaseHTTPRequestHandler) -> None:
    """Do what the question names; warming up asks something else."""
    question = json.loads(body_of(request))["question"]
    PAGES.get(question, says({"box": BOX}))(request)


@pytest.fixture(scope="module")
def grounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving({"/locate": locate}) as web:
        where = ("--grounder", f"http:{web.address}/locate", "--grounder-timeout", TIMEOUT)
        running = start_server(tmp_path_factory.mktemp("grounded") / "log", *where)
        _metrics.append(f"{running.url}/metrics")
        yield from lend(running)
        _is_over.set()


@pytest.fixture(scope="module")
def client(grounded: Server) -> OpenAI:
    return OpenAI(base_url=f"{grounded.url}/v1", api_key="none", max_retries=0)


def test_its_box_is_looked_at_and_macro_runs_meanwhile(client: OpenAI, about: About) -> None:
    _before.append(finished_turns())
    found = ask(client, about("coffee", "Meanwhile?")).dualfocus
    assert found["box"] == BOX
    assert found["crop"] is not None
    assert found["grounding"] is None
    assert found["micro"] is not None
    assert "grounder" in found["stages"]
    assert "grounding" not in found["stages"]


@pytest.mark.parametrize(
    ("question", "selection"),
    [
        ("Nothing?", "no_box"),
        ("Late?", "grounder_timed_out"),
        *((question, "grounder_failed") for question in PAGES if question not in ("Meanwhile?", "Nothing?", "Late?")),
    ],
)
def test_whatever_it_does_instead_macros_answer_is_given(
    client: OpenAI, about: About, question: str, selection: str
) -> None:
    answer = ask(client, about("coffee", question))
    found = answer.dualfocus
    assert (found["winner"], found["selection"], found["micro"]) == ("macro", selection, None)
    assert answer.choices[0].message.content == found["macro"]["text"]


def test_the_requests_own_box_goes_before_it(client: OpenAI, about: About) -> None:
    found = ask(client, about("coffee", "Dead?"), {"box": [0.5, 0.5, 0.75, 0.75]}).dualfocus
    assert found["box"] == [0.5, 0.5, 0.75, 0.75]
    assert "grounder" not in found["stages"]


def test_what_it_did_is_counted_and_logged(grounded: Server) -> None:
    metrics = httpx.get(f"{grounded.url}/metrics", timeout=PATIENCE).text
    for outcome in ("found", "none", "failed", "timed_out"):
        assert f'dualfocus_grounder_calls_total{{outcome="{outcome}"}}' in metrics
    assert 'dualfocus_stage_seconds_count{stage="grounder"}' in metrics
    log = log_until(grounded, "answered more than 65,536 bytes")
    assert "grounder: http:http://127.0.0.1" in log
