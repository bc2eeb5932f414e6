"""What a run is told, and its steps with it."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from loadtests.gpu_check.journal import Journal

_RUNS = Path("runs") / "gpu-check"


@dataclass(frozen=True)
class Settings:
    """The run's folder, how many seconds it has, and with what shapes and how vLLM is started."""

    folder: Path
    seconds: float = 570.0
    tiny: bool = False
    eager: bool = False

    @property
    def journal(self) -> Journal:
        """Where results are written."""
        return Journal(self.folder)

    @property
    def flags(self) -> list[str]:
        """What a step's process is told of them."""
        told = {"--tiny": self.tiny, "--eager": self.eager}
        return ["--out", str(self.folder), *(flag for flag, is_set in told.items() if is_set)]


def read_settings(argv: Sequence[str] | None = None) -> Settings:
    """Read the command line; makes the run's folder."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.gpu_check", description="Prove and measure on a GPU (docs/performance.md)."
    )
    parser.add_argument("--seconds", type=float, default=Settings.seconds, help="for the whole run (%(default)s)")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs, no compilation: starts in half the time")
    parser.add_argument("--out", type=Path, help="the run's folder; runs/gpu-check/DATE if left out")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes in place of 7B: the same code, on a CPU too")
    told = parser.parse_args(argv)
    folder = (told.out or _RUNS / datetime.now(UTC).strftime("%Y-%m-%d-%H%M")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return Settings(folder, told.seconds, told.tiny, told.eager)
