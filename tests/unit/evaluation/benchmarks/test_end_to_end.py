"""Each benchmark from its files to its figures, killed in the middle, on a server that knows the answers."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from dualfocus_eval.asking.records import read_records
from dualfocus_eval.benchmarks import BENCHMARKS
from dualfocus_eval.command import main
from dualfocus_eval.samples import Sample

from unit.evaluation.fruit import ABOUT, completion
from unit.evaluation.layouts import COUNT, WRITERS
from unit.local_web import Page, body_of, respond, serving

BEFORE_THE_KILL = 9


class Scholar:
    """Its micro turn gives each question's right answer, its macro turn none; `asked` counts pictures and texts."""

    def __init__(self, name: str, data: Path) -> None:
        wording = next(iter(BENCHMARKS[name].wordings.values()))
        self._answers = {(wording(one), content(one)): one.answers[0] for one in BENCHMARKS[name].read(data)}
        self.asked: Counter[tuple[str, bytes]] = Counter()
        self.let_through = threading.Semaphore(BEFORE_THE_KILL)
        self.pages: dict[str, Page] = {"/v1/chat/completions": self._answer, **ABOUT}

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(body_of(request))
        image, text = body["messages"][0]["content"]
        question = text["text"], base64.b64decode(image["image_url"]["url"].partition(",")[2])
        told = completion(body["dualfocus"])
        told["choices"][0]["message"]["content"] = told["dualfocus"]["micro"]["text"] = self._answers[question]
        self.let_through.acquire()
        self.asked[question] += 1
        respond(body=json.dumps(told).encode())(request)


def content(sample: Sample) -> bytes:
    return sample.image if isinstance(sample.image, bytes) else sample.image.read_bytes()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_from_its_files_to_its_figures(name: str, tmp_path: Path) -> None:
    data, run = WRITERS[name](tmp_path / "data"), tmp_path / "run"
    scholar = Scholar(name, data)
    with serving(scholar.pages) as web:
        command = [name, "--data", str(data), "--base-url", web.address, "--out", str(run)]
        _killed_in_the_middle(command, run / "records.jsonl")
        answered = len(read_records(run))
        scholar.let_through = threading.Semaphore(COUNT * 2)
        assert main(command) == 0
    assert answered == BEFORE_THE_KILL
    assert len(read_records(run)) == len(scholar.asked) == COUNT
    assert sum(scholar.asked.values()) <= COUNT + 1, "more was asked again than was on its way"
    found = json.loads((run / "figures.json").read_text())["overall"]
    assert found["questions"] == COUNT
    assert found["micro"] == found["chosen"] == pytest.approx(1.0)
    assert found["macro"] < found["micro"]


def _killed_in_the_middle(command: list[str], records: Path) -> None:
    paths = os.pathsep.join(sys.path)
    start = "import sys; from dualfocus_eval.command import main; sys.exit(main(sys.argv[1:]))"
    killed = subprocess.Popen(
        [sys.executable, "-c", start, *command, "--concurrency", "1"], env={**os.environ, "PYTHONPATH": paths}
    )
    while killed.poll() is None and not (records.exists() and records.read_bytes().count(b"\n") == BEFORE_THE_KILL):
        pass
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
