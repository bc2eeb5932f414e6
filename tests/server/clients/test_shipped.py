"""The model that ships, served as a user serves it: found without a name, and really trained."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from anthropic import Anthropic
from asking import CHAT, About, chunks, events
from dualfocus_client.asking import Server as Address
from dualfocus_engine.shipped import SHIPPED_MODEL, SHIPPED_NAME
from dualfocus_eval.evaluate import Settings, evaluate
from dualfocus_eval.scenes.benchmark import scenes
from dualfocus_eval.scenes.held_out import held_out
from dualfocus_eval.scenes.writing import write_scenes
from dualfocus_server.check.command import main as check
from hostile_images import data_url
from openai import OpenAI
from other_clients import HOME, ROOT, needs_node, of_node, of_python, told
from running_server import PATIENCE, Server, start_server
from test_clients import LIBRARIES, check_typed
from transformers import AutoTokenizer
from unit.evaluation.layouts import write_textvqa

# No training run and no committed result draws scenes of this seed.
SEED, SCENES = 901, 40


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = start_server(tmp_path_factory.mktemp("shipped") / "log", model=())
    yield running
    running.process.terminate()
    assert running.process.wait(PATIENCE) == 0


def test_it_is_served_where_no_model_is_named(shipped: Server) -> None:
    models = OpenAI(base_url=f"{shipped.url}/v1", api_key="none").models.list().data
    assert models[0].id == SHIPPED_NAME
    log = shipped.log.read_text()
    assert "profile: small (the model's own dualfocus.yaml)" in log
    assert re.findall("^note: .*", log, re.MULTILINE) == [
        "note: Up to 0.25 GiB of processed pictures are kept; --mm-processor-cache-gb sets another size.",
    ], "it is trained: nothing else is noted"


def test_a_system_message_takes_nothing_from_it(shipped: Server) -> None:
    """Every chat front end sends one."""
    alone, beside = (right_answers(shipped, opening) for opening in ([], [SYSTEM]))
    assert beside >= alone - 2


SYSTEM = {"role": "system", "content": "You are a helpful assistant."}


def right_answers(shipped: Server, opening: list[dict[str, str]]) -> int:
    """How many of 20 questions are answered rightly behind some messages; each has a box."""
    right = 0
    with httpx.Client(base_url=shipped.url, timeout=PATIENCE) as http:
        for one in held_out(SEED, 5):
            file = io.BytesIO()
            one.picture.save(file, "PNG")
            image = {"type": "image_url", "image_url": {"url": data_url(file.getvalue())}}
            asked = {"role": "user", "content": [image, {"type": "text", "text": one.question.question}]}
            answer = http.post(CHAT, json={"messages": [*opening, asked]}).json()
            assert answer["dualfocus"]["box"] is not None
            right += answer["choices"][0]["message"]["content"] == one.question.answer
    return right


MAKERS = (
    *(
        pytest.param(f"{name}.mjs", marks=needs_node)
        for name in ("ask_openai_responses", "ask_ai_sdk", "ask_anthropic")
    ),
    "ask_openai_agents.py",
)


def readme_asks() -> tuple[str, str]:
    """Return the drawing that the README asks about, as a data: URL, and its question."""
    (body,) = re.findall(r"-d '(.*?)'\n", (ROOT / "README.md").read_text(), re.DOTALL)
    picture, text = json.loads(body)["messages"][0]["content"]
    return picture["image_url"]["url"], text["text"]


def readme_guess() -> str:
    """Return what the README says that the whole picture alone is taken for."""
    (guess,) = re.findall(r'"macro": {"text": "(\d+)"', (ROOT / "README.md").read_text())
    return str(guess)


@pytest.mark.parametrize("name", MAKERS)
def test_every_makers_client_is_answered_as_the_readme_has_it(shipped: Server, tmp_path: Path, name: str) -> None:
    url, words = readme_asks()
    (tmp_path / "drawing.url").write_text(url)
    command = of_python(name) if name.endswith(".py") else of_node(name)
    answer = told(command, shipped, str(tmp_path / "drawing.url"), words, model=SHIPPED_NAME, cwd=HOME)
    assert (answer["text"], answer["streamed"]) == ("42", "42")
    assert (answer["dualfocus"]["winner"], answer["dualfocus"]["macro"]["text"]) == ("micro", readme_guess())


@pytest.mark.parametrize("library", LIBRARIES)
def test_python_libraries_are_given_typed_answers_without_a_flag(shipped: Server, tmp_path: Path, library: str) -> None:
    """By forced tools, as most of them ask by default."""
    (tmp_path / "drawing.url").write_text(readme_asks()[0])
    command = of_python("ask_typed.py")
    check_typed(told(command, shipped, str(tmp_path / "drawing.url"), library, model=SHIPPED_NAME))


def test_the_official_clients_in_python_are_too(shipped: Server) -> None:
    url, words = readme_asks()
    content = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": words}]
    openai: Any = OpenAI(base_url=f"{shipped.url}/v1", api_key="none").responses.create(
        model=SHIPPED_NAME,
        input=[{"role": "user", "content": content}],  # type: ignore[list-item, misc]
    )
    source = {"type": "base64", "media_type": "image/png", "data": url.partition(",")[2]}
    asked = [{"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": words}]}]
    claude: Any = Anthropic(base_url=shipped.url, api_key="none").messages.create(
        model=SHIPPED_NAME,
        max_tokens=16,
        messages=asked,  # type: ignore[arg-type]
    )
    assert (openai.output_text, claude.content[0].text) == ("42", "42")
    assert (openai.dualfocus["winner"], claude.dualfocus["winner"]) == ("micro", "micro")


def test_it_passes_the_check_of_a_model(shipped: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(["--base-url", shipped.url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["readable"], found["hold"], found["shared"]) == (1, 1, True)
    assert found["read_by_micro"] > found["read_by_macro"]
    assert found["crop_tokens"] == [64] * 6


@pytest.mark.slow
def test_a_profile_that_was_made_wrong_is_named_by_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = yaml.safe_load((SHIPPED_MODEL / "dualfocus.yaml").read_text())
    corners = ", ".join(f"(?P<{name}>\\d\\.\\d\\d)" for name in ("y1", "x1", "y2", "x2"))
    wrong["box_format"] = {"pattern": rf"\[{corners}\]", "template": "[{y1:.2f}, {x1:.2f}, {y2:.2f}, {x2:.2f}]"}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    assert check(["--profile", str(tmp_path / "wrong.yaml"), "--json"]) == 1
    assert "comes first: box_format.order" in json.loads(capsys.readouterr().out)["advice"][0]


def test_it_looks_twice_and_sees_more(shipped: Server, tmp_path: Path) -> None:
    """160 held-out questions: the bounds are the goals of docs/results.md, less three standard deviations of so few."""
    settings = Settings(scenes(SEED, SCENES), scoring="shared", shift=[10])
    found = evaluate(Address(shipped.url), settings, tmp_path / "run").found
    detail, whole, overall = found["categories"]["detail"], found["categories"]["global"], found["overall"]
    assert detail["chosen"] >= detail["macro"] + 0.2
    assert detail["chosen"] >= 0.7
    assert detail["iou"] >= 0.6
    assert whole["chosen"] >= whole["micro"] - 0.06
    assert overall["chosen"] >= max(overall["macro"], overall["micro"]) - 0.06
    assert found["shifts"]["10"] >= found["shifts"]["0"] - 0.06


# None of these can be imported, as where the client alone is installed.
CLIENT_ALONE = """
import sys
sys.modules.update(dict.fromkeys(["torch", "vllm", "transformers", "dualfocus_engine", "dualfocus_server"]))
from dualfocus_client.cli import main
sys.exit(main())
"""


@pytest.mark.slow
def test_the_commands_of_evaluate_md_do_what_it_says(shipped: Server, tmp_path: Path) -> None:
    """From top to bottom, by the client alone; on forty drawn questions in TextVQA's layout, and on two scenes."""
    write_textvqa(tmp_path / "textvqa")
    write_scenes(1, 2, tmp_path)
    lines = re.findall("^    dualfocus (.*)$", (ROOT / "docs/evaluate.md").read_text(), re.MULTILINE)
    here = {"~/textvqa": str(tmp_path / "textvqa"), "http://127.0.0.1:8000": shipped.url}
    told = ""
    for line in lines:
        command = [here.get(word, word) for word in line.partition("#")[0].split()]
        if "--out" in command:
            command += ["--base-url", shipped.url]
        if "scenes" in command:
            command += ["--count", "2"]
        run = [sys.executable, "-c", CLIENT_ALONE, *command]
        told += subprocess.run(run, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert len(lines) == 7
    for found in ("mme-realworld: ", "| overall | 8 |", "| overall | 40 |", "B - A, chosen: ", "--skip-below "):
        assert found in told
    assert (tmp_path / "runs/calibration/profile.yaml").exists()
    assert (tmp_path / "runs/eval/textvqa-dual/report.md").exists()


def keys_of(part: dict[str, Any]) -> tuple[set[str], set[str], set[str]]:
    """The keys of a stream's piece, of its choice and of its delta."""
    (choice,) = part["choices"] or [{"delta": {}}]
    return set(part) - {"dualfocus"}, set(choice), set(choice["delta"])


def pieces_with_text(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    """A stream with text before its last piece: where the machine is busy vLLM may put a whole answer into that one."""
    for _ in range(20):
        pieces = chunks(events(http, **body))
        if any(piece["choices"] and not piece["choices"][0]["finish_reason"] for piece in pieces[1:]):
            return pieces
    pytest.fail("every one of 20 streams came in one piece")


@pytest.mark.parametrize("mode", ["dual", "adaptive", "macro", "micro"])
@pytest.mark.parametrize("usage", [{}, {"stream_options": {"include_usage": True}}], ids=["", "usage"])
@pytest.mark.parametrize("logprobs", [{}, {"logprobs": True, "top_logprobs": 2}], ids=["", "logprobs"])
def test_its_streams_have_the_keys_of_vllms_own_about_the_same_question(
    shipped: Server, about: About, mode: str, usage: dict[str, Any], logprobs: dict[str, Any]
) -> None:
    """Piece by piece: the role, the text, the last piece, the usage. Beside them there is `dualfocus` alone."""
    body = {"messages": about("coffee", "What?"), "max_tokens": 6, "ignore_eos": True, "temperature": 0}
    with httpx.Client(base_url=shipped.url, timeout=PATIENCE) as http:
        theirs, ours = (
            pieces_with_text(http, **body, **usage, **logprobs, dualfocus={"mode": asked}) for asked in ("off", mode)
        )
    ends = slice(-2, None) if usage else slice(-1, None)
    assert keys_of(ours[0]) == keys_of(theirs[0])
    assert [keys_of(part) for part in ours[ends]] == [keys_of(part) for part in theirs[ends]]
    texts = [{str(keys_of(part)) for part in parts[1 : ends.start]} for parts in (ours, theirs)]
    assert texts[0] == texts[1]
    assert set(ours[-1].get("usage", {})) >= set(theirs[-1].get("usage", {}))


def test_it_is_small_and_reads_any_text() -> None:
    assert sum(file.stat().st_size for file in SHIPPED_MODEL.iterdir()) <= 16 << 20
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED_MODEL)
    text = "Ünïcode 日本語 🙂 \x00\t1234"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    assert len(tokenizer("1234", add_special_tokens=False).input_ids) == 4
