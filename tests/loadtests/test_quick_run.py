"""A run from end to end, of a few questions: the model that ships, beside a client's three calls of vLLM."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WANTED = ["cached-1", "cached-16", "arrivals"]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None,
    reason="SKIPPED, UNTESTED: the load tests need locust (install dualfocus[bench])",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "run"
    only = [part for key in WANTED for part in ("--only", key)]
    command = [sys.executable, "-m", "loadtests", "--quick", "--model", "small", "--run", str(folder), *only]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def cells(run: Path, experiment: str) -> list[dict[str, Any]]:
    found = json.loads((run / "small" / f"{experiment}.json").read_text())
    assert "failed" not in found, found
    return list(found["cells"])


def test_both_sides_answer_in_turn(run: Path) -> None:
    asked = cells(run, "cached-16")
    assert [(cell["side"], cell["users"]) for cell in asked[:2]] == [("dual", 4), ("calls", 4)]
    for cell in asked:
        assert [record["error"] for record in cell["records"]] == [None] * 4


def test_both_sides_do_the_same_work(run: Path) -> None:
    dual, calls = cells(run, "cached-1")[:2]
    (one,), (other,) = dual["records"], calls["records"]
    assert one["cost"]["completion_tokens"] == other["cost"]["completion_tokens"]
    whole = [cost["computed_tokens"] + cost["cached_tokens"] for cost in (one["cost"], other["cost"])]
    assert whole[0] == whole[1]
    assert set(other["cost"]["stages"]) == {"macro", "grounding", "micro"}


def test_locusts_own_statistics_are_kept(run: Path) -> None:
    (_, calls) = cells(run, "cached-1")[:2]
    assert {"macro", "grounding", "micro", "calls"} <= {entry["name"] for entry in calls["locust"]}


def test_arrivals_are_asked_when_they_are_due(run: Path) -> None:
    for cell in cells(run, "arrivals"):
        began = [record["began"] for record in cell["records"]]
        assert cell["users"] == len(began) == len(set(began))
        assert all(record["seconds"] >= record["late"] >= 0 for record in cell["records"])


def test_the_run_ends_with_a_report(run: Path) -> None:
    text = (run / "report.md").read_text()
    assert "three calls of a client's, caching on" in text
    assert "too few questions to judge by" in text
    assert (run / "plots" / "arrivals-small.png").exists()
