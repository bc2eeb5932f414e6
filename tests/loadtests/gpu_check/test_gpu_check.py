"""The check for a machine with a GPU: what is run when, what is ended, and what is left of a run that is cut short."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadtests.gpu_check import __main__ as command
from loadtests.gpu_check.plan import MANY, drafted_plan, seven_plan
from loadtests.gpu_check.processes import run_within
from loadtests.gpu_check.runner import STEPS, Step, run_steps
from loadtests.gpu_check.settings import Settings, read_settings
from loadtests.gpu_check.steps import shape
from loadtests.gpu_check.steps.memory import watched_memory
from loadtests.gpu_check.steps.small import Recorder, readme_question
from loadtests.plan import order, seven_billion

# Its child leads a session of its own and starts another, then dies: what is left belongs to nobody.
HANGS = """
import subprocess, sys, time
inner = "import time; time.sleep(600)"
outer = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {inner!r}, MARK], start_new_session=True)"
subprocess.run([sys.executable, "-c", "MARK = " + repr(MARK) + ";" + outer], start_new_session=True)
subprocess.Popen([sys.executable, "-c", inner, MARK], start_new_session=True)
time.sleep(600)
"""
WRITES = """
from loadtests.gpu_check.settings import read_settings
read_settings().journal.write({key!r}, start_s={start_s})
raise SystemExit({status})
"""
MakeStep = Callable[..., Step]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "run"
    folder.mkdir()
    return Settings(folder)


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeStep:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))

    def make(key: str, start_s: float = 1.0, status: int = 0, seconds: float = 60.0, text: str = WRITES) -> Step:
        written = text.format(key=key, start_s=start_s, status=status) if text == WRITES else text
        (tmp_path / f"step_{key}.py").write_text(written)
        return Step(key, f"step_{key}", seconds)

    return make


def marked(mark: str) -> list[int]:
    return [one.pid for one in psutil.process_iter() if _arguments(one)[-1:] == [mark]]


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_the_7b_shape_is_measured_first_and_drafts_last() -> None:
    assert [step.key for step in STEPS] == ["machine", "seven", "small", "large", "drafted"]
    assert not STEPS[0].starts_engine


def test_a_step_that_hangs_is_ended_with_all_it_started_and_the_rest_goes_on(
    settings: Settings, step: MakeStep, tmp_path: Path
) -> None:
    mark = f"hangs-{tmp_path}"
    hanging = step("hangs", seconds=4, text=f"MARK = {mark!r}\n{HANGS}")
    run_steps(settings, [hanging, step("goes")])
    assert settings.journal.values("hangs", "ended") == ["stopped after 4 s"]
    assert settings.journal.values("goes", "ended") == ["done"]
    assert marked(mark) == []


def test_what_hangs_has_started_others_that_outlive_their_parent(tmp_path: Path) -> None:
    """Else the test above would find nothing to be ended."""
    mark, seen = f"outlives-{tmp_path}", []
    watching = [sys.executable, "-c", f"MARK = {mark!r}\n{HANGS.replace('time.sleep(600)', 'time.sleep(2)', 1)}"]
    process = psutil.Popen([*watching])
    until = time.monotonic() + 30
    while len(seen) < 2 and time.monotonic() < until:
        seen = marked(mark)
    for pid in [*seen, process.pid]:
        psutil.Process(pid).kill()
    process.wait()
    assert len(seen) == 2


def test_a_step_that_dies_keeps_what_it_wrote(settings: Settings, step: MakeStep) -> None:
    run_steps(settings, [step("dies", start_s=2.5, status=3), step("goes")])
    assert [line.get("ended") for line in settings.journal.lines()] == [None, "failed: status 3", None, "done"]
    assert settings.journal.values("dies", "start_s") == [2.5]


def test_a_step_is_skipped_where_less_is_left_than_the_last_start_took(settings: Settings, step: MakeStep) -> None:
    run_steps(settings, [step("slow", start_s=1000.0), step("skipped"), step("too")])
    for key in ("skipped", "too"):
        (why,) = settings.journal.values(key, "skipped")
        assert why.endswith("s are left, and the last start took 1000 s")
    assert settings.journal.values("skipped", "ended") == []


def test_a_run_without_time_says_so_of_every_step(settings: Settings, step: MakeStep) -> None:
    run_steps(Settings(settings.folder, seconds=0), [step("one"), step("two")])
    assert [line["skipped"] for line in settings.journal.lines()] == ["no time is left"] * 2


def test_how_a_command_ended_is_told() -> None:
    assert run_within([sys.executable, "-c", ""], 60) == "done"
    assert run_within([sys.executable, "-c", "raise SystemExit(4)"], 60) == "failed: status 4"


def test_a_step_is_told_what_the_run_is_told(tmp_path: Path) -> None:
    told = Settings(tmp_path, tiny=True, eager=True)
    assert read_settings(told.flags) == told


def test_another_runs_folder_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch, step: MakeStep) -> None:
    settings.journal.write("machine", tiny=False)
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", str(settings.folder)])
    with pytest.raises(SystemExit, match="give --out a new folder"):
        command.main()


def test_a_clients_calls_go_to_the_same_engine_each_as_it_is(settings: Settings) -> None:
    plan = seven_plan(settings)
    many = next(one for one in plan if one.key == MANY)
    told = order(plan, many, seven_billion(Path("shape")), {"plain": "http://server"})
    assert {side.url for side in told.sides} == {"http://server"}
    assert {side.name: side.model for side in told.sides} == {
        "dual": "llava-7b",
        "calls": "llava-7b:off",
        "macro": "llava-7b",
    }
    asked = [number for cell in told.rounds[0] for number in cell.questions]
    assert len(asked) == len(set(asked)) == 3 * 128


def test_the_tiny_plan_has_the_same_experiments_with_few_questions(tmp_path: Path) -> None:
    whole, tiny = Settings(tmp_path), Settings(tmp_path, tiny=True)
    for plan in (seven_plan, drafted_plan):
        assert [one.key for one in plan(tiny)] == [one.key for one in plan(whole)]
        assert max(one.users for one in plan(tiny)) <= 2
    assert [one.users for one in seven_plan(whole)] == [1, 64, 16, 128]


class NoServers:
    """Is ready at once."""

    def need(self, kinds: tuple[str, ...]) -> None:
        assert kinds == ("plain",)

    def stop_all(self) -> None:
        self.stopped = True


def test_the_start_is_written_down_before_anything_is_asked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers, tiny = NoServers(), Settings(settings.folder, tiny=True)

    def cut_short(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shape, "servers_of", lambda *_: servers)
    monkeypatch.setattr(shape, "run_experiments", cut_short)
    with pytest.raises(KeyboardInterrupt):
        shape.run_plan(tiny, "seven", seven_plan(tiny))
    assert settings.journal.values("seven", "start_s") == [0.0]
    assert servers.stopped


def test_readmes_question_is_read_from_readme() -> None:
    (message,) = readme_question()["messages"]
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]


class Report:
    def __init__(self, when: str, outcome: str) -> None:
        self.when, self.outcome, self.failed = when, outcome, outcome == "failed"
        self.nodeid, self.longrepr = "tests/engine/test_floor.py::test_it", "why it failed"


def test_each_test_is_written_down_as_it_ends(settings: Settings) -> None:
    recorder = Recorder(settings.journal)
    for when, outcome in (("setup", "passed"), ("call", "passed"), ("call", "failed"), ("setup", "failed")):
        recorder.pytest_runtest_logreport(Report(when, outcome))
    found: list[dict[str, Any]] = settings.journal.lines(step="small")
    assert [line["outcome"] for line in found] == ["passed", "failed", "failed"]
    assert found[1]["test"] == "test_floor.py::test_it"
    assert found[1]["why"] == "why it failed"


def test_a_gpus_memory_is_written_down_at_each_new_peak(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = tmp_path / "count"
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f'#!/bin/sh\necho x >> {count}\nn=$(wc -l < {count})\necho "A card, 580.1, 40000, $((n * 100 * (n < 4)))"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("loadtests.gpu_check.steps.memory._INTERVAL_S", 0.01)
    with watched_memory(settings.journal, "seven", 0.9):
        while not count.exists() or len(count.read_text().splitlines()) < 6:
            time.sleep(0.01)
    found = settings.journal.values("seven", "memory")
    assert [peak["peak_mib"] for peak in found] == [100, 200, 300]
    assert found[0]["total_mib"] == 40000
