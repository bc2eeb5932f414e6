"""`python -m loadtests.ceiling`: what a question takes of the server's own processes.

The engine answers at once (`instant_worker.py`), HTTP and pictures are real: what is left is what bounds a node however
many GPUs it has. CPU seconds are the kernel's count of the server's processes, the engine's not among them, and of the
threads of one that answers requests; the stages are py-spy's samples of that one, which say little where the machine
has other work.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import psutil
from dualfocus_engine.shipped import SHIPPED_MODEL

from loadtests.asking.machine import describe
from loadtests.asking.servers import Servers
from loadtests.ceiling.loop_hold import PATH as LONGEST_HOLD
from loadtests.ceiling.pictures import SIZES, jpeg_url
from loadtests.ceiling.stages import shares
from loadtests.ceiling.threads import by_purpose, cpu_by_thread, thread_names

_WORKER = "loadtests.ceiling.instant_worker.InstantWorker"
_MIDDLEWARE = "loadtests.ceiling.loop_hold.LoopHold"
_FLAGS = ["--worker-cls", _WORKER, "--middleware", _MIDDLEWARE]
_PATIENCE = 600.0
_WARMING = 32
_QUESTION = "What number is on the red circle?"


def main() -> None:
    """Measure and print a JSON object: for each round, by the number of API processes, a group for each size."""
    args = _parse()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as logs, ExitStack() as held:
        askers = {count: held.enter_context(_serving(count, Path(logs))) for count in args.api_server_count}
        rounds = [_measure(askers, args.questions, args.at_once) for _ in range(args.rounds)]
    print(json.dumps({"machine": describe(), "at_once": args.at_once, "rounds": rounds}, indent=2))


@contextmanager
def _serving(count: int, logs: Path) -> Iterator["_Asker"]:
    """Run a server of so many API processes."""
    flags = [*_FLAGS, "--api-server-count", str(count)]
    own_logs = logs / str(count)
    own_logs.mkdir()
    servers = Servers(str(SHIPPED_MODEL), "small", {"plain": flags}, own_logs)
    try:
        servers.need(["plain"])
        yield _Asker(servers.urls["plain"], servers.processes["plain"])
    finally:
        servers.stop_all()


def _measure(askers: Mapping[int, "_Asker"], questions: int, at_once: int) -> dict[int, dict[str, Any]]:
    """Measure the servers in turn, so that what else the machine does weighs on all of them."""
    return {count: {size: asker.measure(size, questions, at_once) for size in SIZES} for count, asker in askers.items()}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.ceiling", description=__doc__)
    parser.add_argument("--questions", type=int, default=400, help="questions for each size of picture")
    parser.add_argument("--at-once", type=int, default=16, help="questions at a time")
    parser.add_argument(
        "--api-server-count", type=int, nargs="+", default=[1], metavar="N", help="servers of N API processes"
    )
    parser.add_argument("--rounds", type=int, default=1, help="times that all servers are asked, in turn")
    return parser.parse_args()


class _Asker:
    """Asks one server, and reads from the kernel what its processes took."""

    def __init__(self, url: str, process: int) -> None:
        self._http = httpx.Client(base_url=url, timeout=_PATIENCE)
        answering = api_processes(process)
        self._processes, self._looked_at = {process, *answering}, (answering or [process])[0]
        self._numbers = count()

    def measure(self, size: str, questions: int, at_once: int) -> dict[str, Any]:
        """Ask questions about pictures of a size: once for the seconds, then for the stages and the longest hold."""
        self._ask(self._bodies(size, _WARMING), at_once)
        bodies = self._bodies(size, questions)
        threads = cpu_by_thread(self._looked_at)
        taken, began = self._cpu_seconds(), perf_counter()
        self._ask(bodies, at_once)
        seconds, taken = perf_counter() - began, self._cpu_seconds() - taken
        purposes = by_purpose(threads, cpu_by_thread(self._looked_at), thread_names(self._looked_at))
        self._http.get(LONGEST_HOLD)
        with _profiled(self._looked_at) as stacks:
            self._ask(self._bodies(size, questions), at_once)
        longest_hold = self._http.get(LONGEST_HOLD).json()
        each = 1000 * taken / questions
        return {
            "megabytes": round(sum(map(len, bodies)) * 0.75e-6 / questions, 2),
            "questions": questions,
            "questions_a_second": round(questions / seconds, 1),
            "cpu_ms_a_question": round(each, 1),
            "longest_hold_ms": round(longest_hold, 1),
            "by_thread_ms": {purpose: round(1000 * took / questions, 1) for purpose, took in purposes.items()},
            "by_stage_ms": {stage: round(share * each, 1) for stage, share in shares(stacks).items()},
        }

    def _cpu_seconds(self) -> float:
        return sum(map(cpu_seconds, self._processes))

    def _bodies(self, size: str, questions: int) -> list[bytes]:
        return [_body(jpeg_url(size, next(self._numbers))) for _ in range(questions)]

    def _ask(self, bodies: Sequence[bytes], at_once: int) -> None:
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(self._post, bodies))

    def _post(self, body: bytes) -> None:
        response = self._http.post(
            "/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}
        ).raise_for_status()
        assert response.json()["dualfocus"]["micro"], "the second look failed: the figures would be of one look"


def _body(url: str) -> bytes:
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": _QUESTION}]
    return json.dumps({"messages": [{"role": "user", "content": parts}], "max_tokens": 16}).encode()


@contextmanager
def _profiled(process: int) -> Iterator[list[str]]:
    """Let py-spy look at a process while the block runs; its stacks are there at its end."""
    stacks: list[str] = []
    with tempfile.NamedTemporaryFile("r") as written:
        line = ["py-spy", "record", "--nonblocking", "--format", "raw", "--pid", str(process), "--output", written.name]
        spying = subprocess.Popen([str(Path(sys.executable).with_name(line[0])), *line[1:]], stdout=subprocess.DEVNULL)
        try:
            yield stacks
        finally:
            spying.send_signal(signal.SIGINT)
            spying.wait()
        stacks += Path(written.name).read_text(encoding="utf-8").splitlines()


def api_processes(server: int) -> list[int]:
    """Return the processes that answer a server's requests, where they are others than itself."""
    children = psutil.Process(server).children()
    return [child.pid for child in children if "APIServer" in " ".join(child.cmdline())]


def cpu_seconds(process: int) -> float:
    """Return the seconds of CPU that a process and its threads have taken."""
    # Behind the name, which may hold anything: user and system time are the 14th and 15th of all fields.
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
