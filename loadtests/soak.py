"""A soak, `python -m loadtests.soak`: sixteen questions at once for minutes, each about a picture of its own.

It serves the model that ships as `dualfocus serve` does by itself, and writes into runs/soak/DATE what both processes
hold meanwhile and whether all comes back. Its exit status is 1 where something that must hold does not.
"""

import argparse
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import httpx
from dualfocus_engine.machine.cores import usable_cores
from dualfocus_engine.shipped import SHIPPED_MODEL

from loadtests.asking.calls import Json, ask_focus
from loadtests.asking.machine import describe
from loadtests.asking.questions import asked
from loadtests.asking.servers import Servers
from loadtests.results.figures import quantile
from loadtests.results.soak_figures import Sample, Verdict, summary, verdicts
from loadtests.results.soak_plot import draw

RUNS = Path("runs") / "soak"
AT_ONCE = 16
MINUTES = 15.0
_EVERY = 5.0  # seconds between samples
_MODEL = "small"
_SAMPLING = {"max_tokens": 32}
# Seconds that a question may take, and that the server gets to come to rest; reached only where it hangs.
_PATIENCE = 600.0
# A question that failed is not followed at once by the next: a server that is gone would fail thousands.
_AFTER_A_FAILURE = 1.0
_BLOCKS = re.compile(r'^vllm:cache_config_info{.*num_gpu_blocks="(\d+)"', re.MULTILINE)
_USAGE = re.compile(r"^vllm:kv_cache_usage_perc{.*} (\S+)$", re.MULTILINE)
_UNFINISHED = re.compile(r"^dualfocus_unfinished_turns (\S+)$", re.MULTILINE)


class Askers:
    """Ask until they are told to end, each its next question once it has its answer; no picture twice."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = count()
        self._ended = threading.Event()
        self._new: list[float] = []
        self.answered = 0
        self.failures: list[str] = []

    @contextmanager
    def at_work(self, at_once: int) -> Iterator[None]:
        """Ask so many at once while the block runs; all are answered at its end."""
        with ThreadPoolExecutor(at_once) as threads:
            try:
                for _ in range(at_once):
                    threads.submit(self._ask_on)
                yield
            finally:
                self._ended.set()

    def _ask_on(self) -> None:
        with httpx.Client(base_url=self._url, timeout=_PATIENCE) as http:
            while not self._ended.is_set():
                self.ask_one(http)

    def ask_one(self, http: httpx.Client) -> None:
        """Ask the next question, and note how long it took or why it failed."""
        question = asked(next(self._numbers))
        started = time.perf_counter()
        try:
            ask_focus(lambda _, body: _post(http, body), _MODEL, question, "dual", _SAMPLING)
        except Exception as error:  # whatever it is, it is this question's, and is written down
            self.failures.append(f"{type(error).__name__}: {error}")
            self._ended.wait(_AFTER_A_FAILURE)
        else:
            self._new.append(time.perf_counter() - started)

    def lately(self) -> list[float]:
        """Return the seconds that each question took which was answered since this was last called."""
        new, self._new = self._new, []
        self.answered += len(new)
        return new


def _post(http: httpx.Client, body: Json) -> Json:
    answer = http.post("/v1/chat/completions", json=body)
    if answer.status_code != 200:
        raise RuntimeError(f"status {answer.status_code} {answer.text:.300}")
    told: Json = answer.json()
    return told


class Watch:
    """Looks at a server: at its memory from outside, at its turns and KV blocks in its metrics."""

    def __init__(self, url: str, process: int, askers: Askers) -> None:
        self._http = httpx.Client(base_url=url, timeout=_PATIENCE)
        self._process, self._askers = process, askers
        self._began = self._last = time.monotonic()

    def begin(self) -> None:
        """Count time from now on."""
        self._began = self._last = time.monotonic()

    def look(self) -> Sample:
        """Return how things stand."""
        new, metrics, now = self._askers.lately(), self._http.get("/metrics").text, time.monotonic()
        since, self._last = now - self._last, now
        server, engine = memory(self._process)
        return Sample(
            seconds=now - self._began,
            answered=self._askers.answered,
            server=server,
            engine=engine,
            kv_blocks=kv_blocks(metrics),
            unfinished_turns=int(_number(_UNFINISHED, metrics)),
            rate=len(new) / since if since else 0.0,
            p50=quantile(new, 0.5) if new else None,
            p95=quantile(new, 0.95) if new else None,
        )

    def at_rest(self) -> Sample:
        """Ask one question more, and return how things stand once the server has nothing left to do.

        vLLM counts its KV blocks when a step ends: those of a lone question's last step are an idle server's.
        """
        self._askers.ask_one(self._http)
        until = time.monotonic() + _PATIENCE
        while (sample := self.look()).unfinished_turns and time.monotonic() < until:
            time.sleep(0.1)
        return sample


def memory(process: int) -> tuple[int, int]:
    """Return the resident bytes of a server's process, and of those that it started: the engine's."""
    held = {each: _resident(each) for each in _session(process)}
    server = held.pop(process, 0)
    return server, sum(held.values())


def _session(leader: int) -> list[int]:
    """Return the processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # Behind the name, which may hold anything: state, parent, group, session.
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == leader:
            found.append(int(stat.parent.name))
    return found


def _resident(process: int) -> int:
    try:
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
    except OSError:  # it has ended
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def kv_blocks(metrics: str) -> int:
    """Return how many KV blocks are in use, from a server's metrics; vLLM keeps one for itself that it does not count.

    Raises ValueError where the metrics do not say.
    """
    return round(_number(_USAGE, metrics) * (_number(_BLOCKS, metrics) - 1))


def _number(pattern: re.Pattern[str], metrics: str) -> float:
    found = pattern.search(metrics)
    if found is None:
        raise ValueError(f"the server's metrics have no {pattern.pattern}")
    return float(found[1])


def soak(folder: Path, minutes: float, flags: Sequence[str] = ()) -> Json:
    """Soak a server for so many minutes; returns its samples and figures, or why there are none."""
    samples: list[Sample] = []
    servers = Servers(str(SHIPPED_MODEL), _MODEL, {"all": flags}, folder, threads=max(1, usable_cores() - 1))
    try:
        servers.need(["plain"])
        url, askers = servers.urls["plain"], Askers(servers.urls["plain"])
        watch = Watch(url, servers.processes["plain"], askers)
        found = _figures(watch, askers, minutes, samples)
    finally:
        servers.stop_all()
    return found | {"failed_with": askers.failures[:10], "samples": [asdict(sample) for sample in samples]}


def _figures(watch: Watch, askers: Askers, minutes: float, samples: list[Sample]) -> Json:
    """Add the samples, and return the figures; where the server does not last, why there are none."""
    try:
        idle = watch.at_rest()
        _sample(watch, askers, minutes, samples)
        return summary(samples, len(askers.failures), idle, watch.at_rest())
    except (httpx.HTTPError, ValueError) as error:
        return {"ended_early": f"{type(error).__name__}: {error}", "failures": len(askers.failures)}


def _sample(watch: Watch, askers: Askers, minutes: float, samples: list[Sample]) -> None:
    watch.begin()
    with askers.at_work(AT_ONCE):
        while not samples or samples[-1].seconds < 60 * minutes:
            time.sleep(_EVERY)
            samples.append(watch.look())
            if len(samples) % 12 == 0:
                _say(_line(samples[-1]))


def _line(sample: Sample) -> str:
    held = f"server {sample.server / 1e9:.2f} GB, engine {sample.engine / 1e9:.2f} GB"
    return f"{sample.seconds / 60:.0f} min, {sample.answered} questions, {sample.rate:.1f} a second, {held}"


def _format_verdict(verdict: Verdict) -> str:
    return f"{'holds' if verdict.holds else 'FAILS'}: {verdict.name}: {verdict.found:g} (at most {verdict.most:g})"


def _say(text: str) -> None:
    print(f"soak: {text}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Soak, write `soak.json` and `soak.png`, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.soak", description="Ask for minutes; watch the memory.")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    arguments = parser.parse_args(argv)
    # Told to end, it ends as it would by itself: no server is left behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    folder = RUNS / datetime.now(UTC).date().isoformat()
    folder.mkdir(parents=True, exist_ok=True)
    made_on = {"machine": describe(), "minutes": arguments.minutes, "at_once": AT_ONCE}
    found = soak(folder, arguments.minutes)
    if "ended_early" in found:
        _say(f"ended early: {found['ended_early']}; a log in {folder} may say why")
    judged = verdicts(found)
    written = made_on | {"verdicts": {each.name: each.holds for each in judged}} | found
    (folder / "soak.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    draw([Sample(**sample) for sample in found["samples"]], folder / "soak.png")
    for verdict in judged:
        _say(_format_verdict(verdict))
    _say(f"written: {folder / 'soak.json'}, {folder / 'soak.png'}")
    return 0 if all(verdict.holds for verdict in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
