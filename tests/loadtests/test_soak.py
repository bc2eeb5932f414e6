"""A soak's arithmetic: the slope of memory, the figures, and what is judged of them."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests import soak
from loadtests.results.soak_figures import LEVEL, Sample, last_half, slope, summary, verdicts
from loadtests.soak import kv_blocks

ROOT = Path(__file__).parents[2]
METRICS = """
vllm:cache_config_info{block_size="32",engine="0",num_gpu_blocks="101",num_cpu_blocks="None"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="small"} 0.03
"""


def sample(answered: int, **changed: Any) -> Sample:
    """A sample of a server at work, a second a question."""
    usual: dict[str, Any] = {"server": 1_000_000, "engine": 3_000_000, "kv_blocks": 30, "unfinished_turns": 20}
    usual |= {"seconds": float(answered), "rate": 1.0, "p50": 0.5, "p95": 0.9}
    return Sample(answered=answered, **usual | changed)


# The engine fills its caches with 10 KB a question until the fifth sample, and grows by 100 bytes a question from then.
GROWING = [
    sample(10 * place, engine=3_000_000 + 100_000 * min(place, 5) + 1000 * max(place - 5, 0)) for place in range(10)
]
IDLE, AFTER = (sample(answered, kv_blocks=2, unfinished_turns=0) for answered in (1, 95))


def test_the_slope_is_in_bytes_a_question() -> None:
    uneven = [sample(answered, server=500 * answered + noise) for answered, noise in ((0, 9), (7, -9), (90, 9))]
    assert slope(uneven, "server") == pytest.approx(500, rel=0.01)
    assert slope(GROWING, "server") == 0


def test_only_the_later_half_counts() -> None:
    assert [each.answered for each in last_half(GROWING)] == [50, 60, 70, 80, 90]
    assert summary(GROWING, 0, IDLE, AFTER)["engine"]["slope"] == pytest.approx(100)
    assert slope(GROWING, "engine") > 1000


def test_without_questions_there_is_no_slope() -> None:
    with pytest.raises(ValueError, match="no questions"):
        slope([sample(5), sample(5)], "engine")


def test_the_figures_are_means_of_the_samples_that_have_them() -> None:
    found = summary([*GROWING, sample(95, p50=None, p95=None, rate=12.0)], 3, IDLE, AFTER)
    assert (found["questions"], found["failures"], found["kv_blocks_most"]) == (95, 3, 30)
    assert (found["rate"], found["p50"], found["p95"]) == (pytest.approx(2.0), 0.5, 0.9)
    assert (found["engine"]["first"], found["engine"]["most"]) == (3_000_000, 3_504_000)


def test_a_server_that_comes_back_to_rest_passes() -> None:
    assert all(verdict.holds for verdict in verdicts(summary(GROWING, 0, IDLE, AFTER)))


@pytest.mark.parametrize(
    ("failures", "after", "growth", "wrong"),
    [
        (1, {}, 0, "questions that failed"),
        (0, {"unfinished_turns": 1}, 0, "turns unfinished afterwards"),
        (0, {"kv_blocks": 3}, 0, "KV blocks in use afterwards, beyond those of an idle server"),
        (0, {}, int(2 * LEVEL), "server: bytes a question"),
    ],
)
def test_what_does_not_hold_is_named(failures: int, after: dict[str, int], growth: int, wrong: str) -> None:
    samples = [sample(10 * place, server=10 * place * growth) for place in range(10)]
    ended = sample(95, **{"kv_blocks": 2, "unfinished_turns": 0} | after)
    judged = verdicts(summary(samples, failures, IDLE, ended))
    assert [verdict.name for verdict in judged if not verdict.holds] == [wrong]


def test_blocks_in_use_are_read_from_the_metrics() -> None:
    assert kv_blocks(METRICS) == 3
    with pytest.raises(ValueError, match="num_gpu_blocks"):
        kv_blocks(METRICS.replace("cache_config_info", "other"))


@pytest.mark.slow
def test_a_short_soak_watches_a_real_server(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "loadtests.soak", "--minutes", "0.2"]
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # its caches are still filling
    (written,) = tmp_path.glob("runs/soak/*/soak.json")
    found = json.loads(written.read_text())
    assert all(holds for name, holds in found["verdicts"].items() if "bytes a question" not in name), found["verdicts"]
    assert found["questions"] > len(found["samples"]) > 1
    assert 0 < found["idle"]["server"] < found["idle"]["engine"]
    assert written.with_name("soak.png").exists()


def test_what_was_seen_of_a_server_that_dies_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iter(GROWING[:3])

    def look(watch: soak.Watch) -> Sample:
        for one in seen:
            return one
        raise httpx.ConnectError("Connection refused")

    monkeypatch.setattr(soak, "RUNS", tmp_path)
    monkeypatch.setattr(soak, "_EVERY", 0.0)
    monkeypatch.setattr(soak.Servers, "need", lambda servers, kinds: None)
    monkeypatch.setattr(soak.Servers, "urls", {"plain": "http://127.0.0.1:9"}, raising=False)
    monkeypatch.setattr(soak.Servers, "processes", {"plain": 0}, raising=False)
    monkeypatch.setattr(soak.Watch, "at_rest", lambda watch: IDLE)
    monkeypatch.setattr(soak.Watch, "look", look)
    monkeypatch.setattr(soak.Askers, "at_work", lambda askers, at_once: nullcontext())
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    assert soak.main([]) == 1
    (written,) = tmp_path.glob("*/soak.json")
    found = json.loads(written.read_text())
    assert (found["ended_early"], len(found["samples"])) == ("ConnectError: Connection refused", 3)
    assert found["verdicts"] == {"soaks that ended early": False}
