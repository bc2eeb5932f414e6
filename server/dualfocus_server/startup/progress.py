"""Says what start-up is doing, and that it still is."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_EVERY = 2.0


def say(text: str) -> None:
    """Print one line for the operator, at once."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Name a step of the start-up, print a line every two seconds while it lasts, and its duration at the end."""
    started = time.monotonic()
    done = threading.Event()

    def tick() -> None:
        while not done.wait(_EVERY):
            say(f"{name} … {time.monotonic() - started:.0f} s")

    say(f"{name} …")
    # A thread: loading a model holds the event loop.
    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
    say(f"{name}: {time.monotonic() - started:.1f} s")
