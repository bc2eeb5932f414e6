"""The check from end to end, as far as minutes on a CPU allow: the 7B step, on a tiny shape."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.gpu_check.report import write_report
from loadtests.gpu_check.runner import STEPS, run_steps
from loadtests.gpu_check.settings import Settings

ROOT = Path(__file__).parents[3]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("locust") is None,
        reason="SKIPPED, UNTESTED: the load tests need locust (install dualfocus[bench])",
    ),
]


def test_the_tiny_shape_is_measured_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    patience = 3600.0  # of a machine that has other work
    settings = Settings(tmp_path, seconds=patience, tiny=True)
    run_steps(settings, [replace(step, seconds=patience) for step in STEPS if step.key in ("machine", "seven")])
    assert settings.journal.values("machine", "ended") == ["done"]
    assert settings.journal.values("seven", "ended") == ["done"]
    report = write_report(tmp_path).read_text()
    for ratio in (
        "one-at-a-time: latency, two looks : macro",
        "one-at-a-time: latency, two looks : the client's three calls",
        "at-once-64: throughput, two looks : the client's three calls",
        "at-once-128: throughput, two looks : macro",
    ):
        assert ratio in report
    asked = json.loads((tmp_path / "seven" / "one-at-a-time.json").read_text())["cells"]
    assert [cell["side"] for cell in asked[:3]] == ["macro", "dual", "calls"]
    calls = [record for cell in asked if cell["side"] == "calls" for record in cell["records"]]
    assert all({"macro", "grounding", "micro"} == record["cost"]["stages"].keys() for record in calls)
