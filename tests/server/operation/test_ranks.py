"""`--data-parallel-size 2` on the CPU: both ranks answer, each about its own pictures; one that hangs is noticed."""

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from asking import About, ask
from openai import APIConnectionError, APIStatusError, OpenAI
from running_server import PATIENCE, Server, engine_process, start_server, wait_until

# By their contents, some are one rank's and some the other's.
PHOTOS = ("coffee", "chelsea", "moon", "rocket")
TURNS = 3
_FINISHED = re.compile(r'^vllm:request_success_total\{.*engine="(\d)".*\} (\S+)$', re.MULTILINE)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--data-parallel-size", "2", "--kv-cache-memory-bytes", str(64 << 20), "--dtype", "float32")
    running = start_server(tmp_path_factory.mktemp("ranks") / "log", *flags, "--engine-timeout", "20")
    yield running
    if running.process.poll() is None:
        running.process.terminate()
        assert running.process.wait(PATIENCE) == 0


def finished(server: Server) -> list[float]:
    """How many turns each rank has finished, by vLLM's own metrics."""
    turns = [0.0, 0.0]
    for rank, value in _FINISHED.findall(httpx.get(f"{server.url}/metrics", timeout=PATIENCE).text):
        turns[int(rank)] += float(value)
    return turns


def test_each_picture_is_one_ranks(two_ranks: Server, about: About) -> None:
    client = OpenAI(base_url=f"{two_ranks.url}/v1", api_key="none", max_retries=0)
    warm = finished(two_ranks)
    assert min(warm) > 0, "a rank was not warmed up"
    expected, ran = sum(warm), warm
    for photo in PHOTOS:
        first = ask(client, about(photo, "What is it?")).dualfocus["turns"]
        second = ask(client, about(photo, "Is anything written on it?")).dualfocus["turns"]
        assert sum(turn["encoder_runs"] for turn in first.values()) == 2
        assert second["macro"]["encoder_runs"] == second["grounding"]["encoder_runs"] == 0
        expected += 2 * TURNS
        wait_until(lambda expected=expected: sum(finished(two_ranks)) == expected)
        before, ran = ran, finished(two_ranks)
        assert sorted(now - then for now, then in zip(ran, before, strict=True)) == [0, 2 * TURNS]
    assert all(now > then for now, then in zip(ran, warm, strict=True)), "one rank had nothing to do"


def last_told(server: Server, messages: list[dict[str, Any]]) -> str:
    """Ask again and again until there is no answer; return what is told instead."""
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    while True:
        try:
            ask(client, messages)
        except APIStatusError as error:
            return str(error.code)
        except APIConnectionError:
            return "refused"


def test_a_rank_that_hangs_beside_one_at_work_ends_the_server(two_ranks: Server, about: About) -> None:
    os.kill(engine_process(two_ranks), signal.SIGSTOP)
    with ThreadPoolExecutor(len(PHOTOS)) as clients:
        told = list(clients.map(lambda photo: last_told(two_ranks, about(photo, "What is it?")), PHOTOS))
    assert two_ranks.process.wait(PATIENCE) == 1
    assert "engine_dead" in told
    assert set(told) <= {"engine_dead", "refused"}
    assert re.search(r"made no step for \d+ s", two_ranks.log.read_text())
