"""A run's files, as the report reads them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.plan import CALIBRATION, SKIPPED
from loadtests.results.figures import Cell, threshold

# Models in the order in which they are reported, and what they are called there.
TITLES = {
    "llava": "LLaVA-1.5's shape, 0.46 B, random weights",
    "llava-7b": "LLaVA-1.5-7B's shape, random weights",
    "small": "the model that ships, 5 M",
}


@dataclass(frozen=True)
class Run:
    """A run: its machine, and by model and experiment what was measured, or why it was not."""

    machine: dict[str, Any]
    cells: dict[str, dict[str, list[Cell]]]
    failures: dict[str, dict[str, str]]

    @property
    def subjects(self) -> list[str]:
        """The models that something was measured on."""
        return [key for key in TITLES if self.cells.get(key)]

    def of(self, subject: str, experiment: str) -> list[Cell]:
        """Return an experiment's cells; none where it was not run to its end."""
        return self.cells.get(subject, {}).get(experiment, [])

    def why_not(self, subject: str, experiment: str) -> str:
        """Say why an experiment has no cells."""
        return self.failures.get(subject, {}).get(experiment, "not run")


def read_run(folder: Path) -> Run:
    """Read a run's folder. Raises FileNotFoundError where it holds none."""
    machine = json.loads((folder / "machine.json").read_text(encoding="utf-8"))
    run = Run(machine, {}, {})
    for path in sorted(folder.glob("*/*.json")):
        subject, found = path.parent.name, json.loads(path.read_text(encoding="utf-8"))
        if "cells" in found:
            run.cells.setdefault(subject, {})[found["experiment"]] = found["cells"]
        else:
            run.failures.setdefault(subject, {})[found["experiment"]] = found["failed"]
    return run


def calibrated(cells: list[Cell]) -> float | None:
    """Return the perplexity under which second looks are skipped, from a calibration's cells; None without any."""
    costs = [record["cost"] for cell in cells for record in cell["records"] if record["cost"]]
    return threshold([cost["perplexity"] for cost in costs if cost["perplexity"] is not None], SKIPPED)


def threshold_of(run: Run, subject: str) -> float | None:
    """Return the threshold that a model's adaptive questions were asked with."""
    return calibrated(run.of(subject, CALIBRATION))
