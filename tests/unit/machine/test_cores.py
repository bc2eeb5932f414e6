"""How many cores count as usable: affinity and a container's share, whichever is less."""

import os
import runpy
from pathlib import Path

import pytest
from dualfocus_engine.machine import cores, platform


@pytest.mark.parametrize(
    ("quota", "usable"),
    [
        ("max 100000", 8),
        ("400000 100000", 4),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("", 8),
        ("unknown", 8),
        ("100000 0", 8),
    ],
)
def test_a_containers_share_counts(quota: str, usable: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr(cores, "_QUOTA", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert cores.usable_cores() == usable


def test_without_a_share_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "absent")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5, 6})
    assert cores.usable_cores() == 3


@pytest.mark.parametrize(("cores_here", "threads"), [(8, "7"), (2, "1"), (1, "1")])
def test_the_engine_gets_all_of_them_but_one(
    cores_here: int, threads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "absent")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores_here)))
    assert runpy.run_path(platform.__file__)["_CPU_ENVIRONMENT"]["OMP_NUM_THREADS"] == threads
