"""The step that asks Qwen2.5-VL-7B's shape about a picture of 4000 x 3000: one look beside two."""

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dualfocus_training.models.families import ensure_tiny
from dualfocus_training.models.families.qwen.qwen2_5_vl import write_seven_billion
from dualfocus_training.models.made_once import make_once

from loadtests.gpu_check.journal import Journal
from loadtests.gpu_check.settings import Settings, read_settings
from loadtests.large_picture import ONE_LOOK, THOUSAND_TOKENS, Cost, Way, measure

_FOLDER = Path("runs/models/qwen2.5-vl-7b")
_ROUNDS = 12


class _Teller:
    """Writes each answer's cost down, and before the first how long the engine took to start."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._began = journal, time.monotonic()

    def on_start(self) -> None:
        self._journal.write("large", start_s=round(time.monotonic() - self._began, 1))

    def on_answer(self, number: int, way: Way, cost: Cost) -> None:
        self._journal.write("large", looks=1 if way is ONE_LOOK else 2, round=number, cost=asdict(cost))


def flags_of(settings: Settings) -> dict[str, Any]:
    """Return how the engine is started."""
    shape = {"dtype": "float32"} if settings.tiny else {"dtype": "bfloat16", "load_format": "dummy"}
    return {**shape, **({"enforce_eager": True} if settings.eager else {})}


def main() -> None:
    """Measure until all rounds are asked, or the step is stopped."""
    settings = read_settings()
    model = ensure_tiny("qwen2.5-vl") if settings.tiny else make_once(_FOLDER, write_seven_billion)
    teller, rounds = _Teller(settings.journal), 1 if settings.tiny else _ROUNDS
    asyncio.run(measure(model, (ONE_LOOK, THOUSAND_TOKENS), rounds, teller, **flags_of(settings)))


if __name__ == "__main__":
    main()
