"""What the check reports, also of a run that was cut short."""

import json
from pathlib import Path

import pytest

from loadtests.gpu_check.journal import Journal
from loadtests.gpu_check.report import write_report
from tests.loadtests.recorded import MACHINE, cell, record

CARD = {"name": "A card", "driver_version": "580.1", "memory.total": "40000", "memory.used": "4"}


def experiment(folder: Path, key: str, sides: dict[str, list[float]], users: int, suffix: str = "json") -> None:
    """Write rounds of two questions a side, both from the round's beginning: one takes all of it."""
    cells = [
        cell(side, number, [record(seconds), record(seconds)][: 1 if users == 1 else 2], users)
        for side, taken in sides.items()
        for number, seconds in enumerate(taken)
    ]
    path = folder / "seven" / f"{key}.{suffix}"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(cells if suffix == "part" else {"experiment": key, "cells": cells}))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path)
    machine = MACHINE | {"python": "3.12.1", "versions": {"vllm": "0.32.0"}}
    made.write("machine", machine=machine, cards=[CARD], tiny=False, eager=True)
    made.write("machine", ended="done", seconds=1.0)
    return made


def text(journal: Journal) -> str:
    return write_report(journal.folder).read_text(encoding="utf-8")


def test_a_ratio_is_told_with_its_spread_and_its_goal(journal: Journal) -> None:
    sides = {"macro": [1.0, 1.0, 1.0], "dual": [1.4, 1.3, 1.6], "calls": [1.5, 1.5, 1.5]}
    experiment(journal.folder, "one-at-a-time", sides, users=1)
    told = text(journal)
    assert "| one-at-a-time: latency, two looks : macro | ≤ 1.5 | 1.4 (1.3-1.6, 3) | reached |" in told
    ratio = "one-at-a-time: latency, two looks : the client's three calls"
    assert f"| {ratio} | ≤ 0.8 | 0.933 (0.867-1.07, 3) | **not reached** |" in told
    assert "A card, driver 580.1, 2026-01-02; Python 3.12.1, vllm 0.32.0" in told
    assert "without CUDA graphs" in told
    figures = json.loads((journal.folder / "report.json").read_text())["figures"]
    assert figures[0]["spread"] == {"median": 1.4, "least": 1.3, "greatest": 1.6, "rounds": 3}
    assert figures[0]["is_reached"] is True


def test_throughput_is_told_in_questions_a_second(journal: Journal) -> None:
    experiment(journal.folder, "at-once-64", {"dual": [0.1], "calls": [0.2]}, users=64)
    told = text(journal)
    assert "| at-once-64: questions a second, two looks | ≥ 20 | 20 (20-20, 1) | reached |" in told
    assert "| at-once-64: throughput, two looks : the client's three calls | ≥ 1.2 | 2 (2-2, 1) | reached |" in told


def test_an_experiment_that_was_stopped_counts_with_its_whole_rounds(journal: Journal) -> None:
    experiment(journal.folder, "one-at-a-time", {"macro": [1.0], "dual": [1.2]}, users=1, suffix="part")
    assert "| one-at-a-time: latency, two looks : macro | ≤ 1.5 | 1.2 (1.2-1.2, 1) | reached |" in text(journal)


def test_a_large_picture_counts_in_the_rounds_in_which_both_ways_were_asked(journal: Journal) -> None:
    for number, one, two in ((0, 2.0, 0.5), (1, 4.0, 1.6), (2, 3.0, None)):
        journal.write("large", looks=1, round=number, cost={"seconds": one})
        if two is not None:
            journal.write("large", looks=2, round=number, cost={"seconds": two})
    row = (
        "| 4000 x 3000: latency, two looks of 1,024 tokens : one look | ≤ 0.3 | 0.325 (0.25-0.4, 2) | **not reached** |"
    )
    assert row in text(journal)


def test_how_every_step_ended_is_told(journal: Journal) -> None:
    journal.write("seven", ended="stopped after 240 s", seconds=240.2)
    journal.write("small", skipped="9 s are left, and the last start took 60 s")
    journal.write("large", ended="failed: status 1", seconds=3.0)
    told = text(journal)
    assert "| seven | stopped after 240 s | 240 |" in told
    assert "| small | skipped: 9 s are left, and the last start took 60 s |  |" in told
    assert "| large | failed: status 1 | 3 |" in told
    assert "| drafted | not run to its end |  |" in told
    assert "Nothing was measured." in told


def test_what_was_proven_and_what_the_gpu_held(journal: Journal) -> None:
    journal.write("small", readme="42", outcome="passed")
    journal.write("small", test="test_floor.py::test_it", outcome="failed", why="…")
    for peak in (30000, 36500):
        journal.write("seven", memory={"peak_mib": peak, "total_mib": 40000, "share": 0.9})
    told = text(journal)
    assert "- the model that ships: 1 of 2 passed" in told
    assert "- **failed**: test_floor.py::test_it" in told
    assert "- seven: 36,500 MiB at its peak, 500 beside vLLM's share" in told


def test_a_run_of_nothing_is_reported_too(tmp_path: Path) -> None:
    assert "a machine that was not looked at" in text(Journal(tmp_path))


def test_tiny_shapes_are_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("machine", machine=MACHINE | {"python": "3.11.7"}, cards=[], tiny=True, eager=False)
    assert "**tiny shapes in the place of 7B" in text(journal)
