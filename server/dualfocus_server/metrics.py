"""The server's own metrics, in the `dualfocus_` namespace beside vLLM's."""

from collections.abc import Callable

from prometheus_client import Gauge

UNFINISHED_TURNS = Gauge("dualfocus_unfinished_turns", "Turns that the engine has not finished.")


def watch_unfinished_turns(count: Callable[[], int]) -> None:
    """Read the number of unfinished turns from the engine at each scrape."""
    UNFINISHED_TURNS.set_function(count)
