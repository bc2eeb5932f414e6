"""A small benchmark and a server that answers it by rule, for tests of how any benchmark is asked."""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from statistics import fmean
from typing import Any

from dualfocus_eval.benchmarks.reading import Entry, distinct
from dualfocus_eval.boxes import Box
from dualfocus_eval.samples import Benchmark, Sample, Scored
from PIL import Image

from unit.local_web import Page, body_of, respond

TARGET = Box(0.0, 0.0, 0.5, 0.5)
ABOUT: dict[str, Page] = {
    "/v1/models": respond(body=json.dumps({"data": [{"id": "small", "dualfocus": {"profile": "tiny"}}]}).encode()),
    "/version": respond(body=b'{"version": "0.1", "vllm": "0.32"}'),
}


def write_data(folder: Path, count: int = 12) -> None:
    """Write questions: the first half about red fruit, the rest about green ones."""
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (20, 10)).save(folder / "fruit.png")
    lines = [{"id": str(n), "question": f"Which fruit is number {n}?"} for n in range(count)]
    (folder / "fruit.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def read(folder: Path) -> Iterator[Sample]:
    """Read what `write_data` wrote."""
    return distinct(_samples(folder))


def _samples(folder: Path) -> Iterator[tuple[Entry, Sample]]:
    lines = (folder / "fruit.jsonl").read_text().splitlines()
    for number, line in enumerate(map(json.loads, lines)):
        colour = "red" if 2 * number < len(lines) else "green"
        picture, entry = folder / "fruit.png", Entry(f"line {number + 1}", line)
        yield entry, Sample(line["id"], picture, line["question"], ("apple",), category=colour, box=TARGET)


def accuracy(scored: Sequence[Scored]) -> dict[str, float]:
    """The share of right answers."""
    return {"accuracy": fmean(one.score for one in scored)}


FRUIT = Benchmark(
    name="fruit",
    summary="which fruit it is",
    files="a folder with fruit.jsonl",
    licence="none",
    read=read,
    wordings={
        "llava": lambda sample: f"{sample.question}\nAnswer in one word.",
        "lmms-eval": lambda sample: sample.question,
    },
    score=lambda sample, reply: float(reply in sample.answers),
    figures=accuracy,
)


class Grocer:
    """Answers by rule: macro says "pear", micro "apple"; a given box, or shared scoring, changes the choice.

    `asked` counts each question's first askings, `bodies` holds all requests; `refuses` are numbers that fail.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.refuses: set[str] = set()
        self.let_through = threading.Semaphore(1_000_000)
        self.pages: dict[str, Page] = {"/v1/chat/completions": self._answer, **ABOUT}

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(body_of(request))
        self.bodies.append(body)
        number = body["messages"][0]["content"][1]["text"].split("?")[0].split()[-1]
        options = body["dualfocus"]
        self.asked[number] += "box" not in options
        self.let_through.acquire()
        if number in self.refuses:
            return respond(400, b'{"error": {"message": "no such fruit"}}')(request)
        return respond(body=json.dumps(completion(options)).encode())(request)


# Its steps are told, the micro turn's are not.
MACRO_TURN = {"seconds": 0.5, "computed_tokens": 60, "encoder_runs": 1, "engine_steps": 3}


def completion(options: dict[str, Any]) -> dict[str, Any]:
    """The answer to a question."""
    is_dual = options["mode"] == "dual"
    moved = "box" in options and options["scoring"] == "own"
    reply = "pear" if not is_dual or moved else "apple"
    focus = {
        "winner": "micro" if is_dual else "macro",
        "selection": "lower_perplexity" if is_dual else "only_answer",
        "box": [0.0, 0.0, 0.5, 1.0] if is_dual else None,
        "crop": [0, 0, 10, 10] if is_dual else None,
        "macro": {"text": "pear", "perplexity": 2.0},
        "micro": {"text": "apple", "perplexity": 1.5} if is_dual else None,
        "turns": {"macro": MACRO_TURN, **({"micro": {"computed_tokens": 40, "encoder_runs": 1}} if is_dual else {})},
        "seconds": 2.0,
    }
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    return {"choices": [{"message": {"content": reply}}], "usage": usage, "dualfocus": focus}
