"""vLLM's routes and ours, side by side with the table in docs/api.md: what a new vLLM brings makes this fail."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from dualfocus_server.api import admin
from dualfocus_server.app import Admin, create_app
from dualfocus_server.guards.keys import KeyRing
from dualfocus_server.settings import Settings
from fastapi.routing import APIRoute
from vllm.config import ProfilerConfig

from .test_docs import API

# With all that flags and variables ask for. In a process of its own: to import it sets up logging anew.
_VLLMS = """
import json
from vllm.config import ProfilerConfig
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
args = make_arg_parser(FlexibleArgumentParser()).parse_args(["--enable-scale-out", "--enable-tokenizer-info-endpoint"])
args.enable_fault_tolerance = True
args.profiler_config = ProfilerConfig(profiler="torch", torch_profiler_dir="/tmp")
document = build_app(args, ("generate", "transcription", "render")).openapi()
print(json.dumps([[method.upper(), path] for path, told in document["paths"].items() for method in told]))
"""
_ASKED = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}

Route = tuple[str, str]


class Row(NamedTuple):
    """A line of the table: where its routes are."""

    theirs: str
    ours: str


def rows() -> dict[Route, Row]:
    """Return the table by its routes."""
    table = API.partition("## Routes\n")[2].partition("\n## ")[0]
    found: dict[Route, Row] = {}
    for names, theirs, ours, _ in re.findall(r"^\| (`[^|]*) \| ([^|]*) \| ([^|]*) \|([^|]*)\|$", table, re.MULTILINE):
        for method, path in re.findall(r"`([A-Z]+) (/[^`]*)`", names):
            assert (method, path) not in found, path
            found[method, path] = Row(theirs, ours)
    return found


@pytest.fixture(scope="module")
def theirs() -> set[Route]:
    """The routes that vLLM's own document has."""
    environment = {**_ASKED, "PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    done = subprocess.run([sys.executable, "-c", _VLLMS], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {(method, path) for method, path in json.loads(done.stdout.splitlines()[-1])}


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> set[Route]:
    """The routes that this server's document has."""
    for name, value in _ASKED.items():
        monkeypatch.setenv(name, value)
    service: Any = SimpleNamespace(focus=SimpleNamespace(engine=SimpleNamespace(llm=None)))
    profiler = ProfilerConfig(profiler="torch", torch_profiler_dir="/tmp")
    admins = Admin(KeyRing(["admins"]), admin.offered_routers(profiler).values())
    app = create_app(service, Settings(playground=False, tokenizer_info=True), KeyRing(), admins)
    routes = [route for route in app.routes if isinstance(route, APIRoute) and route.include_in_schema]
    return {(method, route.path_format) for route in routes for method in route.methods}


def test_every_route_of_vllms_is_offered_or_stands_with_a_reason(theirs: set[Route], ours: set[Route]) -> None:
    listed = rows()
    assert theirs - set(listed) == set(), "vLLM has routes that docs/api.md does not name"
    refused = {route for route, row in listed.items() if row.ours.startswith("no")}
    assert all(len(listed[route].ours) > len("no: a reason") for route in refused)
    assert theirs - refused - ours == set(), "said to be here, and is not"
    assert refused & ours == set(), "said not to be here, and is"


def test_the_table_names_nothing_that_there_is_not(theirs: set[Route], ours: set[Route]) -> None:
    listed = rows()
    assert {route for route, row in listed.items() if row.theirs != "no"} == theirs
    assert ours - set(listed) == set(), "this server has routes that docs/api.md does not name"
    assert set(listed) - theirs - ours == set()
