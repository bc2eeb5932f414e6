"""Runs the clients of other makers, each in an environment of their own."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from asking import MODEL
from running_server import PATIENCE, Server

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tests" / "clients"
HOME = ROOT / ".venv" / "clients"  # scripts/install.py makes it
needs_node = pytest.mark.skipif(
    not (HOME / "node_modules").exists(), reason="SKIPPED, UNTESTED: the JavaScript clients need Node and npm"
)


def told(
    command: list[str], server: Server, image: str, *words: str, model: str = MODEL, cwd: Path | None = None
) -> dict[str, Any]:
    """Run a client's script and return what it prints last; `words` are asked instead of its own."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    arguments = [*command, f"{server.url}/v1", model, image, *words]
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=PATIENCE, env=environment, cwd=cwd, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def of_python(name: str) -> list[str]:
    """Return the command of a client in Python."""
    return [str(HOME / "bin" / "python"), str(SCRIPTS / name)]


def of_node(name: str) -> list[str]:
    """Return the command of one for Node, from where its packages are: that is where it looks for them."""
    return ["node", str(shutil.copy(SCRIPTS / "node" / name, HOME))]
