"""How much of a GPU's memory is used, watched while something runs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from loadtests.gpu_check.journal import Journal
from loadtests.gpu_check.steps.machine import cards

_INTERVAL_S = 1.0
# Peaks that are less above the last one are not written down, in MiB.
_GRAIN = 64


@contextmanager
def watched_memory(journal: Journal, step: str, share: float) -> Iterator[None]:
    """Write down each new peak of the first GPU's used memory, beside the share of it that vLLM is given."""
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(journal, step, share, over))
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(journal: Journal, step: str, share: float, over: threading.Event) -> None:
    peak = 0
    while not over.wait(_INTERVAL_S) and (found := cards()):
        used = int(found[0]["memory.used"])
        if used > peak + _GRAIN:
            peak = used
            total = int(found[0]["memory.total"])
            journal.write(step, memory={"peak_mib": peak, "total_mib": total, "share": share})
