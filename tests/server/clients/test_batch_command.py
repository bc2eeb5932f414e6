"""`dualfocus batch` against a server with the model that ships: stopped half-way, and gone on with; OpenAI's lines."""

import base64
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from anthropic.types import Message
from dualfocus_eval.scenes.writing import QUESTIONS_FILE, write_scenes
from openai.types.chat import ChatCompletion
from running_server import PATIENCE, Server, frozen_engine, start_server, wait_until

QUESTIONS = 12


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = start_server(tmp_path_factory.mktemp("batch") / "log", model=())
    yield running
    running.process.terminate()
    assert running.process.wait(PATIENCE) == 0


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """The first questions about scenes, as the training package writes them."""
    write_scenes(902, 4, tmp_path)
    file = tmp_path / QUESTIONS_FILE
    lines = file.read_text(encoding="utf-8").split("\n")[:QUESTIONS]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def asked_of(server: Server) -> int:
    """How many questions the server has been asked, however they ended."""
    metrics = httpx.get(f"{server.url}/metrics", timeout=PATIENCE).text
    return sum(
        int(float(count)) for count in re.findall(r"^dualfocus_questions_total{.*} (\S+)$", metrics, re.MULTILINE)
    )


def is_asked(server: Server) -> bool:
    """Whether a question is being worked on."""
    return "dualfocus_questions_running 1.0" in httpx.get(f"{server.url}/metrics", timeout=PATIENCE).text


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_it_is_interrupted_and_goes_on(shipped: Server, questions: Path) -> None:
    command = [sys.executable, "-m", "dualfocus_client.batch", str(questions), "--base-url", shipped.url]
    answers = questions.with_name("questions.answers.jsonl")
    before = asked_of(shipped)

    told = questions.with_name("told")
    with frozen_engine(shipped), told.open("wb") as stderr:  # so that the first question is still asked then
        first = subprocess.Popen([*command, "--concurrency", "1"], stderr=stderr)
        wait_until(lambda: is_asked(shipped))
        first.send_signal(signal.SIGINT)
        wait_until(lambda: "Waiting for the questions that are being asked" in told.read_text())
    assert first.wait(PATIENCE) == 130, told.read_text()
    done = lines_of(answers)
    assert done == 1, "the question that was being asked is waited for, and no other"
    kept = answers.read_bytes()

    second = subprocess.run(
        [*command, "--concurrency", "4"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert second.returncode == 0, second.stderr
    assert f"{done} of {QUESTIONS} questions are answered already" in second.stderr
    assert answers.read_bytes().startswith(kept)
    assert asked_of(shipped) - before == QUESTIONS, "each is asked once"

    given = [json.loads(line) for line in questions.read_text(encoding="utf-8").split("\n")[:-1]]
    found = [json.loads(line) for line in answers.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [(line["image"], line["question"]) for line in found] == [
        (line["image"], line["question"]) for line in given
    ]
    assert [line["line"] for line in found] == list(range(1, QUESTIONS + 1))
    right = sum(line["answer"].strip() == true["answer"] for line, true in zip(found, given, strict=True))
    assert right >= QUESTIONS // 2
    assert all(line["perplexity"]["macro"] >= 1 for line in found)


def request(number: int, url: str, data: bytes, question: str) -> dict[str, Any]:
    """A line of OpenAI's format: a question by one of the APIs."""
    encoded = base64.b64encode(data).decode()
    picture: dict[str, Any] = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}
    if url == "/v1/messages":
        source = {"type": "base64", "media_type": "image/png", "data": encoded}
        picture = {"type": "image", "source": source}
    messages = [{"role": "user", "content": [picture, {"type": "text", "text": question}]}]
    body = {"max_tokens": 32, "messages": messages}
    return {"custom_id": f"my {number}", "method": "POST", "url": url, "body": body}


def test_openais_lines_are_answered_by_the_api_that_each_names(shipped: Server, questions: Path) -> None:
    file, answers = questions.with_name("batch.jsonl"), questions.with_name("batch.answers.jsonl")
    scene = json.loads(questions.read_text(encoding="utf-8").split("\n")[0])
    data, text = (questions.parent / scene["image"]).read_bytes(), scene["question"]
    asked = product((data, b"no image"), ("/v1/chat/completions", "/v1/messages"))
    lines = [request(number, url, image, text) for number, (image, url) in enumerate(asked)]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    model = httpx.get(f"{shipped.url}/v1/models", timeout=PATIENCE).json()["data"][0]["id"]
    command = [sys.executable, "-m", "dualfocus_client.batch", str(file), "--base-url", shipped.url, "--model", model]
    before = asked_of(shipped)
    for _ in range(2):  # the second run asks those that failed, no other
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 1, done.stderr
    found = [json.loads(line) for line in answers.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [line["custom_id"] for line in found] == [f"my {number}" for number in range(4)]
    assert [line["response"]["status_code"] for line in found] == [200, 200, 400, 400]
    assert all(line["response"]["request_id"] for line in found)
    bodies = [line["response"]["body"] for line in found]
    by_chat, by_messages = ChatCompletion.model_validate(bodies[0]), Message.model_validate(bodies[1])
    assert by_chat.choices[0].message.content == by_messages.content[0].text  # type: ignore[union-attr]
    assert all(body["dualfocus"]["winner"] for body in bodies[:2])
    assert [line["error"] is None for line in found] == [True, True, False, False]
    assert all(line["response"]["body"]["error"]["message"] in line["error"]["message"] for line in found[2:])
    assert asked_of(shipped) - before == 2 + 2 * 2
