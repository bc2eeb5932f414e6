"""A server of fixed answers, and a folder of questions for it, in either format of lines."""

import json
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Protocol

from dualfocus_client.batch import main

from ..local_web import Page, body_of, respond

CHAT, RESPONSES, MESSAGES, COMPLETIONS = "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions"
ROUTES = (CHAT, RESPONSES, MESSAGES, COMPLETIONS)


class Model:
    """Answers each question by its own text in capitals; `pages` says what it does instead, an attempt at a time."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.routes: list[str] = []
        self.pages: dict[str, list[Page]] = {}
        self.running = self.most = 0
        self.address = ""
        self._lock = threading.Lock()

    def page(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(body_of(request))
        text = _text_of(body)
        with self._lock:
            self.routes.append(request.path)
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


def _text_of(body: dict[str, Any]) -> str:
    if "prompt" in body:
        return str(body["prompt"])
    messages = body["input"] if "input" in body else body["messages"]
    return str(messages[0]["content"][1]["text"])


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


class Form(Protocol):
    """A format of lines, as those who use it write and read them."""

    def line(self, text: str) -> dict[str, Any]:
        """A question."""

    def answer(self, told: dict[str, Any]) -> str | None:
        """What a line of answers has for an answer."""

    def error(self, told: dict[str, Any]) -> str | None:
        """What a line of answers says went wrong."""


class OwnForm:
    def line(self, text: str) -> dict[str, Any]:
        return line(text)

    def answer(self, told: dict[str, Any]) -> str | None:
        return told.get("answer")

    def error(self, told: dict[str, Any]) -> str | None:
        return told.get("error")


class OpenAIForm:
    def line(self, text: str) -> dict[str, Any]:
        return request(text)

    def answer(self, told: dict[str, Any]) -> str | None:
        return None if told["error"] else told["response"]["body"]["choices"][0]["message"]["content"]

    def error(self, told: dict[str, Any]) -> str | None:
        return told["error"] and told["error"]["message"]


def line(text: str, **fields: Any) -> dict[str, Any]:
    """A question in our own format."""
    return {"image": "a.png", "question": text, **fields}


def request(text: str, url: str = CHAT, **fields: Any) -> dict[str, Any]:
    """A question in OpenAI's format; `fields` are more of its body."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}
    messages = [{"role": "user", "content": [picture, {"type": "text", "text": text}]}]
    named = {RESPONSES: "input", COMPLETIONS: "prompt"}.get(url, "messages")
    body = {named: text if url == COMPLETIONS else messages, **fields}
    return {"custom_id": f"my {text}", "method": "POST", "url": url, "body": body}
