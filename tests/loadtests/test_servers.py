"""The servers that are compared: their command lines, and their coming and going (with a stand-in)."""

import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from loadtests.asking import servers
from loadtests.asking.servers import NotStarted, Servers, command, engine_flags, environment

STAND_IN = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Servers]:
    def stand_in(kind: str, model: str, name: str, flags: Sequence[str], port: int) -> list[str]:
        return [sys.executable, "-c", STAND_IN if kind != "broken" else "raise SystemExit('out of order')", str(port)]

    monkeypatch.setattr(servers, "command", stand_in)
    made = Servers("model", "m", {"all": ()}, tmp_path)
    yield made
    made.stop_all()


def test_an_experiment_finds_its_servers_and_no_others(running: Servers) -> None:
    running.need(["plain", "vllm"])
    before = running.urls
    running.need(["plain", "loop"])
    assert set(running.urls) == {"plain", "loop"}
    assert running.urls["plain"] == before["plain"]
    assert httpx.get(f"{running.urls['loop']}/health", timeout=60).is_success
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{before['vllm']}/health")


def test_a_servers_model_computes_with_as_many_threads_as_it_is_given() -> None:
    assert environment(3)["OMP_NUM_THREADS"] == "3"
    assert environment()["OMP_NUM_THREADS"] == "1"


def test_a_server_that_died_is_started_anew(running: Servers) -> None:
    running.need(["plain"])
    before = running.urls["plain"]
    running._running["plain"].process.kill()
    running._running["plain"].process.wait()
    running.need(["plain"])
    assert running.urls["plain"] != before
    assert httpx.get(f"{running.urls['plain']}/health", timeout=60).is_success


def test_a_server_that_does_not_start_is_named_with_its_log(running: Servers, tmp_path: Path) -> None:
    with pytest.raises(NotStarted, match=r"broken did not start; .*broken\.log says why"):
        running.need(["broken"])
    assert "out of order" in (tmp_path / "broken.log").read_text()


def test_both_servers_have_the_same_engine() -> None:
    flags = ("--kv-cache-memory-bytes", "1000", "--max-num-batched-tokens", "4096")
    lines = {
        kind: command(kind, "model", "m", flags, 1)
        for kind in ("plain", "drafted", "vllm", "vllm-uncached", "vllm-bare")
    }
    for line in lines.values():
        given = dict(pairwise(line))  # the last of a flag counts, for argparse too
        assert [given[flag] for flag in flags[::2]] == list(flags[1::2])
    assert set(engine_flags()) <= set(lines["vllm"])
    assert set(lines["drafted"]) - set(lines["plain"]) == {"--draft-boxes"}
    assert set(lines["vllm-uncached"]) - set(lines["vllm"]) == {"--no-enable-prefix-caching"}
    assert lines["vllm-bare"] == [*lines["vllm-uncached"], "--mm-processor-cache-gb", "0"]


def test_the_engines_flags_are_this_servers_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = {"enable_prefix_caching": True, "block_size": 32, "enforce_eager": True, "use_tqdm_on_load": False}
    monkeypatch.setattr(servers, "engine_defaults", lambda: defaults)
    assert engine_flags() == ["--block-size", "32", "--enforce-eager", "--no-use-tqdm-on-load"]
