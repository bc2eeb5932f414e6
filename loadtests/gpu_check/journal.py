"""What the steps found, a JSON object a line, written as it is known: a run that is cut short keeps what it has."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = dict[str, Any]


@dataclass(frozen=True)
class Journal:
    """The file `results.jsonl` of a run's folder."""

    folder: Path

    @property
    def path(self) -> Path:
        """Where the lines stand."""
        return self.folder / "results.jsonl"

    def write(self, step: str, **found: Any) -> None:
        """Add what a step found, and print it."""
        line = json.dumps({"step": step, **found})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(f"gpu-check: {line}", flush=True)

    def lines(self, **wanted: Any) -> list[Line]:
        """Return the lines in which every wanted key has its value (None: whatever value)."""
        if not self.path.exists():
            return []
        found = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        return [line for line in found if all(_holds(line, key, value) for key, value in wanted.items())]

    def values(self, step: str, key: str) -> list[Any]:
        """Return what a step wrote under a key, in its order."""
        return [line[key] for line in self.lines(step=step) if key in line]


def _holds(line: Line, key: str, value: Any) -> bool:
    return key in line and value in (None, line[key])
