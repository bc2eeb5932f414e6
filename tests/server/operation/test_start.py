"""Start-up and stop, as an operator sees them."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml
from dualfocus_training.models.untrained import untrained_profile
from running_server import PATIENCE, UNTRAINED, Server, start_server, wait_until_all_ended

IMAGE_TOKENS = 64


def test_start_up_says_what_it_does_and_that_the_model_is_untrained(server: Server) -> None:
    log = server.log.read_text()
    steps = re.findall(r"^(.+): [\d.]+ s$", log, re.MULTILINE)
    assert steps == ["Importing vLLM", "Loading dualfocus-untrained", "Warming up"]
    assert "This model is untrained" in log


def test_steps_longer_than_two_seconds_show_progress(server: Server) -> None:
    log = server.log.read_text()
    for name, seconds in re.findall(r"^(.+): ([\d.]+) s$", log, re.MULTILINE):
        lines = re.findall(rf"^{name} … \d+ s$", log, re.MULTILINE)
        # Never more than one in two seconds; a busy machine may come late to all but one.
        assert min(1, float(seconds) // 10) <= len(lines) <= float(seconds) / 2


def test_start_up_prints_nothing_else(server: Server) -> None:
    log = server.log.read_text().partition("DualFocus is ready")[0]
    known = r"^(Importing vLLM|Loading |Warming up|profile: |note: |INFO:  )"
    assert [line for line in log.splitlines() if line and not re.match(known, line)] == []


def test_the_curl_it_prints_works_when_pasted(server: Server) -> None:
    command = next(line for line in server.log.read_text().splitlines() if line.startswith("curl "))
    answered = subprocess.run(shlex.split(command), capture_output=True, check=True)
    focus = json.loads(answered.stdout)["dualfocus"]
    assert focus["macro"]["perplexity"] >= 1
    assert focus["micro"]["perplexity"] >= 1
    assert len(focus["box"]) == 4


# Runs one command line after the other, so that vLLM is imported once.
_ALL = """
import json, sys
from dualfocus_server.startup.serve import main
for argv in json.loads(sys.argv[1]):
    try:
        status = main(argv)
    except SystemExit as stopped:
        status = stopped.code
    print("status:", status, file=sys.stderr, end="\\0", flush=True)
"""


def test_what_is_wrong_is_said_before_a_model_is_loaded(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    wrong = {
        "No profile 'nonesuch': give one of deepseek-vl2, dualfocus-released, ernie-4.5-vl": ["--profile", "nonesuch"],
        "unrecognized arguments: --no-such-flag": ["--no-such-flag"],
        f"error: 127.0.0.1, port {port}: Address already in use": ["--host", "127.0.0.1", "--port", port],
        "argument --max-queued: -1 is less than 0": ["--max-queued", "-1"],
        "error: --api-key-file /nothing/keys: No such file or directory": ["--api-key-file", "/nothing/keys"],
        "error: An API key is empty": ["--api-key", ""],
        "error: --uds /nothing/socket: No such file or directory": ["--uds", "/nothing/socket"],
    }
    run = [sys.executable, "-c", _ALL, json.dumps(list(wrong.values()))]
    told = subprocess.run(run, capture_output=True, text=True, check=True).stderr.split("\0")
    for message, log in zip(wrong, told[:-1], strict=True):
        assert message in log
        assert "status: 0" not in log
        assert "Loading " not in log


def test_options_are_read_from_a_yaml_file_and_sigterm_ends_it_cleanly(
    tmp_path: Path, about: Callable[[str, str], list[dict[str, Any]]]
) -> None:
    profile = tmp_path / "own.yaml"
    own = untrained_profile().model_dump(mode="json") | {"notice": "It is mine.", "micro_prompt": "Again: {question}"}
    profile.write_text(yaml.safe_dump(own))
    config = tmp_path / "serve.yaml"
    options = {"served-model-name": "renamed", "max-model-len": 512, "profile": str(profile)}
    config.write_text(yaml.safe_dump(options))
    running = start_server(tmp_path / "log", f"--config={config}", model=UNTRAINED[:1])
    log = running.log.read_text()
    assert "Loading renamed" in log
    assert "note: It is mine." in log
    asked = httpx.post(
        f"{running.url}/v1/chat/completions", json={"messages": about("coffee", "Why?")}, timeout=PATIENCE
    )
    turns = asked.json()["dualfocus"]["turns"]
    # One token a byte: the profile's words alone stand between the box and the answer.
    follow_up = len("USER: ") + IMAGE_TOKENS + len("\nAgain: Why? ASSISTANT: ")
    grounding = turns["grounding"]["prompt_tokens"] + turns["grounding"]["completion_tokens"]
    assert turns["micro"]["prompt_tokens"] == grounding + follow_up
    running.process.terminate()
    assert running.process.wait(PATIENCE) == 0
    wait_until_all_ended(running.process.pid)
