"""When the engine's processes end: as the server says, not by the signals that terminals and supervisors send to all.

A server that is told to stop finishes its questions first, and needs its engine for that. Leans on vLLM 0.32: its
engine's process and its workers have their handlers of SIGTERM before they make connectors.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from types import FrameType

# What the server sends in the place of SIGTERM.
_END = signal.SIGUSR1


def leave_signals_to_the_server() -> None:
    """In a process of the engine: ignore SIGINT, and SIGTERM for as long as who started it is there."""
    is_main = threading.current_thread() is threading.main_thread()
    if multiprocessing.parent_process() is None or not is_main or signal.getsignal(_END) is not signal.SIG_DFL:
        return
    parent, end = os.getppid(), signal.getsignal(signal.SIGTERM)

    def end_if_alone(number: int, frame: FrameType | None) -> None:
        if os.getppid() != parent and callable(end):
            end(number, frame)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_if_alone)
    signal.signal(_END, end)


def tell_to_end(processes: Iterable[BaseProcess]) -> None:
    """Have an engine's processes end as vLLM has it on SIGTERM; one that still loads its model ends at once."""
    for process in processes:
        if process.pid is not None and process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(process.pid, _END)
