"""Runs the experiments of a plan and writes each one's result; what is there already is not run again."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests.asking.servers import Servers, end, environment
from loadtests.plan import CALIBRATION, SATURATED, Experiment, Subject, hurried, order, planned
from loadtests.results import figures
from loadtests.results.run_files import calibrated

# Beyond the seconds an experiment is given: its warm-up, and the round that it is in when they are over.
_LEEWAY = 600.0


class NotRun(RuntimeError):
    """An experiment that could not be run to its end."""


def run_subject(subject: Subject, plan: Sequence[Experiment], wanted: Sequence[str], folder: Path) -> None:
    """Run the wanted experiments of a plan on a model, in order, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    servers = servers_of(subject, folder)
    try:
        run_experiments(servers, subject, plan, wanted, folder)
    finally:
        servers.stop_all()


def servers_of(subject: Subject, logs: Path) -> Servers:
    """Return a model's servers, none of them started."""
    return Servers(str(subject.folder), subject.key, subject.flags, logs, threads=subject.threads)


def run_experiments(
    servers: Servers, subject: Subject, plan: Sequence[Experiment], wanted: Sequence[str], folder: Path
) -> None:
    """Run the wanted experiments; one that fails is written down, its servers are stopped, and the next one begins."""
    began, due = time.monotonic(), 0.0
    for experiment in plan:
        path = folder / f"{experiment.key}.json"
        if experiment.key in wanted and not _is_done(path):
            is_late = time.monotonic() - began > due
            _run_one(hurried(experiment) if is_late and due else experiment, plan, subject, servers, path)
            due += planned([experiment])
        if experiment.key == CALIBRATION and (threshold := _threshold(path)) is not None:
            servers.set_flags("plain", ("--skip-below", repr(threshold)))


def _run_one(
    experiment: Experiment, plan: Sequence[Experiment], subject: Subject, servers: Servers, path: Path
) -> None:
    say(f"{subject.key}: {experiment.key} …")
    started = time.monotonic()
    try:
        servers.need(experiment.kinds)
        throughput = _throughput(path.parent) if experiment.shares else None
        told = order(plan, experiment, subject, servers.urls, throughput=throughput)
        cells = _load(told.model_dump_json(), experiment, path.with_suffix(".part"), len(told.rounds))
        result: dict[str, Any] = {"experiment": experiment.key, "cells": cells}
    except Exception as error:  # whatever it is: the others are still to be run
        servers.stop_all()
        result = {"experiment": experiment.key, "failed": f"{type(error).__name__}: {error}"}
        say(f"{subject.key}: {experiment.key} FAILED: {error}")
    result["seconds"] = round(time.monotonic() - started, 1)
    path.write_text(json.dumps(result), encoding="utf-8")
    say(f"{subject.key}: {experiment.key} took {result['seconds']} s")


def _load(told: str, experiment: Experiment, part: Path, rounds: int) -> list[dict[str, Any]]:
    """Let the load generator do what it is told; returns its cells, or raises NotRun with the end of its log."""
    asked, log = part.with_suffix(".order"), part.with_suffix(".load.log")
    asked.write_text(told, encoding="utf-8")
    part.unlink(missing_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtests.asking.load", str(asked), str(part)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )
        held = experiment.seconds * (rounds if experiment.shares else 1)
        try:
            status = process.wait(held + _LEEWAY)
        except subprocess.TimeoutExpired:
            status = -1
        finally:
            end(process)
    if status != 0 or not part.exists():
        said = log.read_text(encoding="utf-8", errors="replace")[-1000:]
        raise NotRun(f"the load generator ended with {status}: {said}")
    cells: list[dict[str, Any]] = json.loads(part.read_text(encoding="utf-8"))
    for left in (asked, part):
        left.unlink()
    _judge(cells)
    return cells


def _judge(cells: Sequence[dict[str, Any]]) -> None:
    """Raise NotRun where so many of a side's questions failed that nothing is measured."""
    for side in {cell["side"] for cell in cells}:
        records = [record for cell in cells if cell["side"] == side for record in cell["records"]]
        failed = [record["error"] for record in records if record["error"]]
        if len(failed) > len(records) / 10:
            raise NotRun(f"{len(failed)} of {len(records)} questions of {side} failed, the first with {failed[0]}")


def _is_done(path: Path) -> bool:
    return path.exists() and "cells" in json.loads(path.read_text(encoding="utf-8"))


def _threshold(path: Path) -> float | None:
    return calibrated(json.loads(path.read_text(encoding="utf-8"))["cells"]) if _is_done(path) else None


def _throughput(folder: Path) -> float:
    """Return two looks' throughput under many questions at once. Raises NotRun where none was measured."""
    for key in SATURATED:
        path = folder / f"{key}.json"
        if _is_done(path):
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            return figures.median([figures.throughput(cell) for cell in cells if cell["side"] == "dual"])
    raise NotRun(f"no throughput to take rates of arrival from: none of {', '.join(SATURATED)} was measured")


def say(text: str) -> None:
    """Print a line at once."""
    print(f"bench: {text}", flush=True)
