"""`dualfocus serve --data-parallel-size 2` on the CPU: both ranks answer, each about its own pictures."""

import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from asking import About, ask
from openai import OpenAI
from running_server import Server, start_server, wait_until

# The first is one rank's, the second the other's, as their contents have it.
PHOTOS = ("coffee", "moon")
TURNS = 3


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--data-parallel-size", "2", "--kv-cache-memory-bytes", str(64 << 20), "--dtype", "float32")
    running = start_server(tmp_path_factory.mktemp("ranks") / "log", *flags)
    yield running
    running.process.terminate()
    assert running.process.wait(60) == 0


def finished(url: str) -> Callable[[], list[float]]:
    """Return a count of the turns that each rank has finished since, by vLLM's own metrics."""

    def so_far() -> list[float]:
        line = re.compile(r'^vllm:request_success_total\{.*engine="(\d)".*\} (\S+)$', re.MULTILINE)
        turns = [0.0, 0.0]
        for rank, value in line.findall(httpx.get(f"{url}/metrics", timeout=60).text):
            turns[int(rank)] += float(value)
        return turns

    before = so_far()
    return lambda: [now - then for now, then in zip(so_far(), before, strict=True)]


def test_each_picture_is_one_ranks(two_ranks: Server, about: About) -> None:
    client = OpenAI(base_url=f"{two_ranks.url}/v1", api_key="none", max_retries=0)
    for rank, photo in enumerate(PHOTOS):
        since = finished(two_ranks.url)
        first = ask(client, about(photo, "What is it?")).dualfocus["turns"]
        second = ask(client, about(photo, "Is anything written on it?")).dualfocus["turns"]
        assert sum(turn["encoder_runs"] for turn in first.values()) == 2
        assert second["macro"]["encoder_runs"] == second["grounding"]["encoder_runs"] == 0
        expected = [0.0, 0.0]
        expected[rank] = 2.0 * TURNS
        wait_until(lambda since=since, expected=expected: since() == expected)
