"""A run of experiments: what fails is written down, what is there is kept. No server is started."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from recorded import cell, record, write_run

from loadtests import bench
from loadtests.asking.servers import NotStarted
from loadtests.plan import Experiment, Subject, full_plan

SUBJECT = Subject("llava", "a model", Path("model"), {"max_tokens": 4}, {"all": ()}, threads=2)
WANTED = ["calibration", "modes-1", "cached-1"]
PLAN = [experiment for experiment in full_plan(1.0) if experiment.key in (*WANTED, "adaptive-1")]


class NoServers:
    """Stands in for the servers; `broken` kinds do not start."""

    made: "list[NoServers]" = []  # noqa: RUF012
    broken: Sequence[str] = ()

    def __init__(self, model: str, name: str, flags: dict[str, Any], logs: Path, *, threads: int) -> None:
        assert threads == SUBJECT.threads
        self.flags, self.stopped, self.needed = dict(flags), 0, []
        self.urls: dict[str, str] = {}
        self.made.append(self)

    def set_flags(self, kind: str, flags: Any) -> None:
        self.flags[kind] = flags

    def need(self, kinds: Sequence[str]) -> None:
        self.needed.append((tuple(kinds), dict(self.flags)))
        if set(kinds) & set(self.broken):
            raise NotStarted(f"{kinds[0]} did not start")
        self.urls = {kind: f"http://{kind}" for kind in kinds}

    def stop_all(self) -> None:
        self.stopped += 1


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> type[NoServers]:
    def loaded(told: str, experiment: Experiment, part: Path, rounds: int) -> list[dict[str, Any]]:
        return [cell("macro", 0, [record(1.0, perplexity=2.5), record(1.0, perplexity=3.5)])]

    monkeypatch.setattr(NoServers, "made", [])
    monkeypatch.setattr(NoServers, "broken", ())
    monkeypatch.setattr(bench, "Servers", NoServers)
    monkeypatch.setattr(bench, "_load", loaded)
    return NoServers


def results(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_the_wanted_experiments_are_run_and_servers_are_stopped(servers: type[NoServers], tmp_path: Path) -> None:
    bench.run_subject(SUBJECT, PLAN, WANTED, tmp_path)
    assert set(results(tmp_path)) == set(WANTED)
    assert servers.made[0].stopped == 1


def test_the_threshold_found_first_is_what_the_plain_server_gets(servers: type[NoServers], tmp_path: Path) -> None:
    bench.run_subject(SUBJECT, PLAN, WANTED, tmp_path)
    flags = dict(servers.made[0].needed)
    assert "plain" not in flags[("drafted",)]
    assert flags[("plain", "vllm")]["plain"] == ("--skip-below", "3.0")


def test_what_fails_is_written_down_and_the_rest_is_run(
    servers: type[NoServers], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(servers, "broken", ("drafted",))
    bench.run_subject(SUBJECT, PLAN, WANTED, tmp_path)
    found = results(tmp_path)
    assert found["calibration"]["failed"] == "NotStarted: drafted did not start"
    assert "did not start" in found["modes-1"]["failed"]
    assert "cells" in found["cached-1"]


def test_the_same_command_goes_on_where_it_was_stopped(servers: type[NoServers], tmp_path: Path) -> None:
    write_run(tmp_path, {"modes-1": [cell("macro", 0, [record(7.0)])]}, {"cached-1": "NotStarted: vllm"})
    folder = tmp_path / "llava"
    bench.run_subject(SUBJECT, PLAN, WANTED, folder)
    assert results(folder)["modes-1"]["cells"][0]["records"][0]["seconds"] == 7.0
    assert "cells" in results(folder)["cached-1"]
    assert [kinds for kinds, _ in servers.made[0].needed] == [("drafted",), ("plain", "vllm")]


def test_arrivals_need_a_measured_throughput(servers: type[NoServers], tmp_path: Path) -> None:
    plan = full_plan(1.0)
    bench.run_subject(SUBJECT, plan, ["arrivals"], tmp_path)
    assert "no throughput to take rates of arrival from" in results(tmp_path)["arrivals"]["failed"]


@pytest.mark.parametrize(("failed", "is_run"), [(1, True), (2, False)])
def test_a_tenth_of_the_questions_may_fail(failed: int, is_run: bool) -> None:
    """Of each side: another's many good answers make up for nothing."""
    cells = [cell("dual", 0, [record(1.0, error="Failed: status 500" if n < failed else None) for n in range(10)])]
    cells.append(cell("off", 0, [record(1.0) for _ in range(90)]))
    if is_run:
        bench._judge(cells)
    else:
        with pytest.raises(bench.NotRun, match="2 of 10 questions of dual failed, the first with Failed: status 500"):
            bench._judge(cells)
