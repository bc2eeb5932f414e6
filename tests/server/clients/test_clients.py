"""Real clients, each against the running server: an image question, its answer, and the `dualfocus` field."""

import asyncio
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asking import MODEL, About
from openai import AsyncOpenAI, OpenAI
from other_clients import HOME, ROOT, SCRIPTS, needs_node, of_node, of_python, told
from running_server import PATIENCE, Server


@pytest.fixture
def image(about: About, tmp_path: Path) -> str:
    """A file that holds a photo as a data URL: too long for a command line."""
    path = tmp_path / "image.url"
    path.write_text(about("coffee", "")[0]["content"][0]["image_url"]["url"])
    return str(path)


@pytest.mark.parametrize("script", ["ask_langchain.py", "ask_litellm.py", "ask_instructor.py", "ask_openai_agents.py"])
def test_python_clients(server: Server, image: str, script: str) -> None:
    answer = told(of_python(script), server, image)
    focus = answer["dualfocus"]
    assert set(focus["turns"]) == {"macro", "grounding", "micro"}
    assert answer["text"]
    if script == "ask_instructor.py":
        assert set(json.loads(answer["text"])) == {"anything"}
        assert focus["macro"]["rescored"] is True
    assert answer.get("streamed", answer["text"]) == answer["text"]


LIBRARIES = ("pydantic-ai", "instructor", "langchain", "langchain's tool")


@pytest.mark.parametrize("library", LIBRARIES)
def test_python_libraries_are_given_typed_answers(server: Server, image: str, library: str) -> None:
    check_typed(told(of_python("ask_typed.py"), server, image, library))


def check_typed(answer: dict[str, Any]) -> None:
    """A typed answer, whole and streamed: of the type, the same, and chosen by two looks."""
    assert set(json.loads(answer["text"])) == {"anything"}
    assert answer["streamed"] == answer["text"]
    assert [set(focus["turns"]) for focus in answer["dualfocus"]] == [{"macro", "grounding", "micro"}] * 2
    for focus in answer["dualfocus"]:
        assert all(focus[name]["rescored"] for name in ("macro", "micro"))
        assert set(json.loads(focus[focus["winner"]]["text"])) == {"anything"}


@needs_node
@pytest.mark.parametrize("name", ["ask_openai.mjs", "ask_openai_responses.mjs", "ask_ai_sdk.mjs", "ask_anthropic.mjs"])
def test_node(server: Server, image: str, name: str) -> None:
    answer = told(of_node(name), server, image, cwd=HOME)
    winner = answer["dualfocus"]["winner"]
    assert answer["text"] == answer["streamed"] == answer["dualfocus"][winner]["text"]
    assert answer.get("winner", winner) == winner, "the stream's too"


def test_openai_sync_and_async_agree(server: Server, about: About) -> None:
    messages: Any = about("coffee", "What is in the cup?")

    async def ask_thrice() -> list[Any]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            asked = [client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4) for _ in range(3)]
            return list(await asyncio.gather(*asked))

    one = OpenAI(base_url=f"{server.url}/v1", api_key="none")
    alone: Any = one.chat.completions.create(model=MODEL, messages=messages, max_tokens=4)
    for answer in asyncio.run(ask_thrice()):
        # Sums in another order may tip a near tie between two tokens; the answer is as good then.
        for name in ("macro", "micro"):
            assert answer.dualfocus[name]["perplexity"] == pytest.approx(alone.dualfocus[name]["perplexity"], rel=1e-2)


async def test_openai_async_streams(server: Server, about: About) -> None:
    messages: Any = about("coffee", "What is in the cup?")
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(model=MODEL, messages=messages, max_tokens=8, stream=True)
        chunks: list[Any] = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    (focus,) = [chunk.dualfocus for chunk in chunks if hasattr(chunk, "dualfocus")]
    assert text == focus[focus["winner"]]["text"]


def test_vllm_bench_serve_as_the_page_on_comparing_has_it(
    server: Server, jpeg: Callable[[str], bytes], tmp_path: Path
) -> None:
    root = OpenAI(base_url=f"{server.url}/v1", api_key="none").models.list().data[0].model_extra["root"]  # type: ignore[index]
    questions = [{"prompt": "What is it?", "image_files": [str(tmp_path / name)]} for name in ("coffee", "rocket")]
    for name in ("coffee", "rocket"):
        (tmp_path / name).write_bytes(jpeg(name))
    (tmp_path / "questions.jsonl").write_text("".join(f"{json.dumps(question)}\n" for question in questions))
    page = (ROOT / "docs" / "comparing.md").read_text().replace("http://127.0.0.1:8000", server.url)
    command = shlex.split(page.partition("\nvllm bench serve ")[2].partition("\n```")[0].replace("\\\n", ""))
    given = {"NAME": MODEL, "MODEL": root}
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "bench_serve.py"), *(given.get(argument, argument) for argument in command)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    measured = json.loads((tmp_path / "dual.json").read_text())
    assert (measured["completed"], measured["failed"]) == (2, 0)
    # Both answers and the box are counted, the text is one answer's.
    assert min(measured["output_lens"]) > 2 * 32
