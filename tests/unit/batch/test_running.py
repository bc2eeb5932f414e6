"""`dualfocus batch`, against a real server of fixed answers."""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from dualfocus_client.batch import main

from ..fake_engine import WAIT
from ..local_web import respond, serving
from .model import Folder, Form, Model, completion, line, refusal


def test_answers_tell_question_answer_and_how_it_was_found(folder: Folder, model: Model) -> None:
    folder.write(line("one", id="first", answer="true one", box=[0.1, 0.1, 0.2, 0.2]))
    assert folder.ask_of(model) == 0
    (told,) = folder.told()
    assert len(told.pop("asked")) == 16
    assert told == {
        "line": 1,
        "id": "first",
        "image": "a.png",
        "question": "one",
        "answer": "ONE",
        "winner": "micro",
        "selection": "lower_perplexity",
        "box": [0, 0, 1, 1],
        "perplexity": {"macro": 1.5, "micro": 1.5},
        "usage": {"prompt_tokens": 5},
    }
    assert model.bodies[0]["dualfocus"] == {"mode": "dual"}, "the true box of a labelled question is no box to look at"
    assert model.bodies[0]["messages"][0]["content"][0]["image_url"]["url"].endswith("iVBORw==")


def test_address_is_taken_with_v1_too(folder: Folder, model: Model) -> None:
    folder.write(line("one"))
    assert main([str(folder.questions), "--base-url", f"{model.address}/v1/"]) == 0
    assert [told["answer"] for told in folder.told()] == ["ONE"]


def test_options_of_the_line_go_before_those_of_the_command(folder: Folder, model: Model) -> None:
    folder.write(
        line("one"), line("two", mode="micro"), line("three", dualfocus={"mode": "macro", "box": [0, 0, 0.5, 1]})
    )
    assert folder.ask_of(model, "--mode", "adaptive", "--model", "mine", "--concurrency", "1") == 0
    assert [body["dualfocus"] for body in model.bodies] == [
        {"mode": "adaptive"},
        {"mode": "micro"},
        {"mode": "macro", "box": [0, 0, 0.5, 1]},
    ]
    assert {body["model"] for body in model.bodies} == {"mine"}


def test_answers_are_in_the_order_of_the_questions_and_so_many_asked_at_a_time(
    folder: Folder, model: Model, form: Form
) -> None:
    first_waits = threading.Event()

    def slow(request: BaseHTTPRequestHandler) -> None:
        first_waits.wait(WAIT)
        respond(body=json.dumps(completion("q0")).encode())(request)

    def last(request: BaseHTTPRequestHandler) -> None:
        first_waits.set()
        respond(body=json.dumps(completion("q11")).encode())(request)

    model.pages = {"q0": [slow], "q11": [last]}
    folder.write(*(form.line(f"q{number}") for number in range(12)))
    assert folder.ask_of(model, "--concurrency", "3") == 0
    assert [form.answer(told) for told in folder.told()] == [f"Q{number}" for number in range(12)]
    assert model.most <= 3
    assert sorted(model.asked) == sorted(f"q{number}" for number in range(12))


def test_only_what_has_no_answer_is_asked_again(
    folder: Folder, model: Model, form: Form, capsys: pytest.CaptureFixture[str]
) -> None:
    model.pages = {"two": [refusal(400, "The image is damaged.")]}
    folder.write(form.line("one"), form.line("two"), form.line("three"))
    assert folder.ask_of(model) == 1
    assert form.error(folder.told()[1]) == "400: The image is damaged."
    err = capsys.readouterr().err
    assert "1 failed:\nline 2: 400: The image is damaged." in err
    assert "2 of 3 questions are answered" in err
    assert model.asked.count("two") == 1, "a refusal is not asked again in the same run"
    model.asked.clear()
    assert folder.ask_of(model) == 0
    assert model.asked == ["two"]
    assert [form.answer(told) for told in folder.told()] == ["ONE", "TWO", "THREE"]
    assert folder.ask_of(model) == 0
    assert model.asked == ["two"]


def test_questions_may_be_added(folder: Folder, model: Model, form: Form) -> None:
    folder.write(form.line("one"))
    assert folder.ask_of(model) == 0
    folder.write(form.line("one"), form.line("two"))
    assert folder.ask_of(model) == 0
    assert model.asked == ["one", "two"]


@pytest.mark.parametrize("status", [408, 429, 500, 503, 504])
def test_what_may_pass_is_asked_again(folder: Folder, model: Model, form: Form, status: int) -> None:
    model.pages = {"one": [refusal(status), refusal(status)]}
    folder.write(form.line("one"))
    assert folder.ask_of(model, "--retries", "2") == 0
    assert model.asked == ["one"] * 3


def test_failure_that_stays_is_recorded(folder: Folder, model: Model, form: Form) -> None:
    model.pages = {"one": [refusal(503, "full")] * 3}
    folder.write(form.line("one"), form.line("two"))
    assert folder.ask_of(model, "--retries", "2") == 1
    assert [form.error(told) for told in folder.told()] == ["503: full", None]


def test_retry_after_is_heeded(folder: Folder, model: Model) -> None:
    model.pages = {"one": [refusal(429, Retry_After="1")]}
    folder.write(line("one"))
    started = time.monotonic()
    assert folder.ask_of(model) == 0
    assert time.monotonic() - started >= 1


def test_timeouts_are_asked_again(folder: Folder, model: Model, form: Form) -> None:
    over = threading.Event()

    def silent(request: BaseHTTPRequestHandler) -> None:
        over.wait(WAIT)
        request.close_connection = True

    model.pages = {"one": [silent]}
    folder.write(form.line("one"))
    # On a busy machine an answer may come too late as well.
    assert folder.ask_of(model, "--timeout", "1", "--retries", "60") == 0
    over.set()
    assert len(model.asked) >= 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refusal_of_all_questions_ends_the_run(
    folder: Folder, model: Model, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    model.pages = {"two": [refusal(status, "not you")]}
    folder.write(line("one"), line("two"), line("three"))
    assert folder.ask_of(model, "--concurrency", "1") == 1
    assert model.asked == ["one", "two"]
    assert f"ended early: {status}: not you" in capsys.readouterr().err
    assert [told["question"] for told in folder.told()] == ["one"]


def test_absent_server_ends_the_run_and_fails_no_question(
    folder: Folder, model: Model, form: Form, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write(form.line("one"), form.line("two"))
    with serving({}) as gone:
        address = gone.address
    assert main([str(folder.questions), "--base-url", address, "--retries", "1"]) == 1
    assert "can't be reached" in capsys.readouterr().err
    assert folder.told() == []


@pytest.mark.parametrize("body", [b"{}", b'{"choices": []}', b'{"choices": [5]}', b"no json"])
def test_answer_that_is_none_is_recorded(folder: Folder, model: Model, body: bytes) -> None:
    model.pages = {"one": [respond(body=body)]}
    folder.write(line("one"))
    assert folder.ask_of(model) == 1
    assert "answer" in folder.told()[0]["error"]


@pytest.mark.parametrize("whole", [True, False])
def test_torn_last_line_is_mended(folder: Folder, model: Model, form: Form, whole: bool) -> None:
    folder.write(form.line("one"), form.line("two"))
    assert folder.ask_of(model) == 0
    content = folder.answers.read_bytes()
    folder.answers.write_bytes(content[:-1] if whole else content[:-9])
    model.asked.clear()
    assert folder.ask_of(model) == 0
    assert model.asked == ([] if whole else ["two"])
    assert [form.answer(told) for told in folder.told()] == ["ONE", "TWO"]


@pytest.mark.parametrize(
    ("lines", "arguments", "complaint"),
    [
        ([line("one"), line("other")], [], "answers line 2 of"),
        ([line("one"), {**line("two"), "image": "data:,x"}], [], "answers line 2 of"),
        ([line("one", mode="macro"), line("two")], [], "answers line 1 of"),
        ([line("one")], [], "which is not there"),
        ([line("one"), "\n"], [], "that are blank now"),
        ([line("one"), line("two")], ["--mode", "macro"], "answers line 1 of"),
        ([line("one"), line("two")], ["--model", "m"], "answers line 1 of"),
    ],
)
def test_questions_that_have_changed_are_said(
    folder: Folder,
    model: Model,
    capsys: pytest.CaptureFixture[str],
    lines: list[Any],
    arguments: list[str],
    complaint: str,
) -> None:
    folder.write(line("one"), line("two"))
    assert folder.ask_of(model) == 0
    kept = folder.answers.read_bytes()
    folder.write(*lines)
    model.asked.clear()
    assert folder.ask_of(model, *arguments) == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert "--output" in err
    assert (model.asked, folder.answers.read_bytes()) == ([], kept)


def test_progress_is_told(folder: Folder, model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write(line("one"), line("two"))
    assert folder.ask_of(model) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err
    assert "question/s" in err or "s/question" in err


def test_one_batch_at_a_time_writes_a_file(
    folder: Folder, model: Model, form: Form, capsys: pytest.CaptureFixture[str]
) -> None:
    status: list[int] = []

    def second(request: BaseHTTPRequestHandler) -> None:
        status.append(os.system(_command(folder, model)) >> 8)
        respond(body=json.dumps(completion("one")).encode())(request)

    model.pages = {"one": [second]}
    folder.write(form.line("one"))
    assert folder.ask_of(model) == 0
    assert status == [2]
    assert model.asked == ["one"]


def test_half_a_character_in_an_answer_can_be_read_again(folder: Folder, model: Model, form: Form) -> None:
    model.pages = {"one": [respond(body=json.dumps(completion("\ud83d")).encode())]}
    folder.write(form.line("one"))
    assert [folder.ask_of(model) for _ in range(2)] == [0, 0]
    assert [form.answer(told) for told in folder.told()] == ["?"]


def _command(folder: Folder, model: Model) -> str:
    return f"{sys.executable} -m dualfocus_client.batch {folder.questions} --base-url {model.address} 2>/dev/null"


def _interrupt_at(model: Model, text: str) -> None:
    """Send SIGINT to this process while a question is being asked, which is answered once that is heeded."""

    def page(request: BaseHTTPRequestHandler) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        until = time.monotonic() + WAIT
        while signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # the first interruption is the only one heeded
            assert time.monotonic() < until
            time.sleep(0.01)
        respond(body=json.dumps(completion(text)).encode())(request)

    model.pages = {text: [page]}


def test_interruption_waits_for_what_is_asked_and_leaves_the_rest(
    folder: Folder, model: Model, form: Form, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write(*(form.line(f"q{number}") for number in range(6)))
    _interrupt_at(model, "q2")
    assert folder.ask_of(model, "--concurrency", "1") == 130
    assert [form.answer(told) for told in folder.told()] == ["Q0", "Q1", "Q2"]
    assert "interrupted" in capsys.readouterr().err
    assert folder.ask_of(model, "--concurrency", "1") == 0
    assert model.asked == [f"q{number}" for number in range(6)]


def test_interruption_ends_a_wait_for_another_attempt(folder: Folder, model: Model, form: Form) -> None:
    def page(request: BaseHTTPRequestHandler) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        refusal(429, Retry_After="600")(request)

    model.pages = {"one": [page]}
    folder.write(form.line("one"))
    assert folder.ask_of(model) == 130
    assert folder.told() == []
