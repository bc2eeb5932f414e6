"""A server of fixed answers, and a folder of questions for it."""

import json
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from dualfocus_client.batch import main

from ..local_web import Page, body_of, respond

CHAT = "/v1/chat/completions"


class Model:
    """Answers each question by its own text in capitals; `pages` says what it does instead, an attempt at a time."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.pages: dict[str, list[Page]] = {}
        self.running = self.most = 0
        self.address = ""
        self._lock = threading.Lock()

    def page(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(body_of(request))
        text = body["messages"][0]["content"][1]["text"]
        with self._lock:
            self.bodies.append(body)
            self.asked.append(text)
            self.running += 1
            self.most = max(self.most, self.running)
            pages = self.pages.get(text)
            page = pages.pop(0) if pages else respond(body=json.dumps(completion(text)).encode())
        try:
            page(request)
        finally:
            with self._lock:
                self.running -= 1


def completion(text: str) -> dict[str, Any]:
    answers = {name: {"text": text.upper(), "perplexity": 1.5} for name in ("macro", "micro")}
    focus = {"winner": "micro", "selection": "lower_perplexity", "box": [0, 0, 1, 1], **answers}
    usage = {"prompt_tokens": 5}
    return {"choices": [{"message": {"content": text.upper()}}], "dualfocus": focus, "usage": usage}


def refusal(status: int, message: str = "no", **headers: str) -> Page:
    return respond(status, json.dumps({"error": {"message": message}}).encode(), **headers)


class Folder:
    """A file of questions and its answers."""

    def __init__(self, path: Path) -> None:
        self.questions, self.answers = path / "questions.jsonl", path / "questions.answers.jsonl"
        (path / "a.png").write_bytes(b"\x89PNG")

    def write(self, *lines: Any) -> None:
        self.questions.write_text("".join(line if isinstance(line, str) else f"{json.dumps(line)}\n" for line in lines))

    def ask_of(self, model: Model, *arguments: str) -> int:
        return main([str(self.questions), "--base-url", model.address, *arguments])

    def told(self) -> list[dict[str, Any]]:
        if not self.answers.exists():
            return []
        return [json.loads(line) for line in self.answers.read_bytes().split(b"\n")[:-1]]


def line(text: str, **fields: Any) -> dict[str, Any]:
    return {"image": "a.png", "question": text, **fields}
