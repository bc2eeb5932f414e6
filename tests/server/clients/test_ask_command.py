"""`dualfocus ask` against the running server."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from running_server import PATIENCE, Server

DUALFOCUS = str(Path(sys.executable).parent / "dualfocus")


@pytest.fixture
def picture(jpeg: Callable[[str], bytes], tmp_path: Path) -> str:
    path = tmp_path / "coffee.jpg"
    path.write_bytes(jpeg("coffee"))
    return str(path)


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DUALFOCUS, "ask", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_it_tells_both_answers_the_box_and_the_choice(server: Server, picture: str) -> None:
    told = ask(picture, "What is in the cup?", "--base-url", server.url)
    assert told.returncode == 0
    for line in ("\nmacro: ", "\nmicro: ", "\nbox: [", "\nchosen: "):
        assert line in told.stdout


def test_json_is_the_servers_answer(server: Server, picture: str) -> None:
    told = ask(picture, "What?", "--base-url", server.url, "--json", "--box", "0.1", "0.2", "0.5", "0.9")
    assert json.loads(told.stdout)["dualfocus"]["box"] == [0.1, 0.2, 0.5, 0.9]


def test_the_servers_refusal_is_told(server: Server, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    told = ask(str(broken), "What?", "--base-url", server.url)
    assert told.returncode == 1
    assert told.stderr.startswith("error: 400: The image is in no format that can be read")
