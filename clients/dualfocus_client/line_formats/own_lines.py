"""Our own lines: an image and a question, and how the answer was found."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field

from dualfocus_client.client import CHAT, URL_SCHEMES, AskError, answer_body, chat_body, image_url
from dualfocus_client.line_formats.line_format import Kept, Question, fingerprint_of


@dataclass(frozen=True)
class OwnLines:
    """`mode` is for lines that name none, `model` for all; paths of images are seen from `folder`."""

    folder: Path
    mode: str
    model: str | None
    accepted: ClassVar[str] = (
        'accepted is a JSON object a line: {"image": a file beside the questions or a URL, "question": a text}, and if '
        'wanted "id" (a text or an integer), "mode" (dual, regions, search, adaptive, macro, micro, off), "dualfocus" '
        "(the request's field of that name); other fields are left alone. Or, where the first line is one of OpenAI's "
        "batch API (custom_id, method, url, body), all are"
    )

    def question(self, number: int, text: bytes) -> Question:
        """Read a question about an image. Raises ValueError."""
        line = _Line.model_validate_json(text)
        options = {"mode": line.mode or self.mode, **line.dualfocus}
        source = line.image if line.image.startswith(URL_SCHEMES) else str(self.folder / line.image)
        asked = fingerprint_of(line.id, line.image, line.question, options, self.model)
        return _Question(number, CHAT, asked, line, source, options, self.model)

    def kept(self, text: bytes) -> Kept:
        """Read an answer. Raises ValueError."""
        answer = _Answer.model_validate_json(text)
        return Kept(answer.line, answer.asked, answer.error)


class _Line(BaseModel):
    model_config = ConfigDict(strict=True)

    image: Annotated[str, Field(min_length=1)]
    question: Annotated[str, Field(min_length=1)]
    id: str | int | None = None
    mode: Literal["dual", "regions", "search", "adaptive", "macro", "micro", "off"] | None = None
    dualfocus: dict[str, Any] = {}


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True)

    line: int = Field(ge=1)
    asked: str = Field(pattern="^[0-9a-f]{16}$")
    error: str | None = None


@dataclass(frozen=True)
class _Question(Question):
    """`source` is the line's image for the client, `options` the request's `dualfocus` field."""

    given: _Line
    source: str
    options: dict[str, Any]
    model: str | None
    # A wrong key, no such model or route.
    refusals_of_all = (401, 403, 404)

    def fault(self) -> str | None:
        if self.source.startswith(URL_SCHEMES):
            return None
        with suppress(OSError):  # a name that is too long, say
            if Path(self.source).is_file():
                return None
        return f"image: there is no file {self.source}"

    def body(self) -> dict[str, Any]:
        body = chat_body(image_url(self.source), self.given.question, self.options)
        return body if self.model is None else {"model": self.model, **body}

    def answer(self, response: httpx.Response) -> dict[str, Any]:
        completion = answer_body(response)
        try:
            focus = completion.get("dualfocus") or {}
            return {
                "answer": completion["choices"][0]["message"]["content"],
                "winner": focus.get("winner"),
                "selection": focus.get("selection"),
                "box": focus.get("box"),
                "perplexity": {name: (focus.get(name) or {}).get("perplexity") for name in ("macro", "micro")},
                "usage": completion.get("usage"),
            }
        except (LookupError, TypeError, AttributeError) as error:
            raise AskError(f"The server's answer is no chat completion: {str(completion)[:200]}", 200) from error

    def failure(self, error: AskError) -> dict[str, Any]:
        return {"error": str(error)}

    def told(self, found: dict[str, Any]) -> dict[str, Any]:
        line = {"line": self.line, "id": self.given.id, "image": _short(self.given.image)}
        return {**line, "question": self.given.question, **found, "asked": self.fingerprint}


def _short(image: str) -> str:
    """Return an image as its question names it; of one that stands in the question itself, the beginning."""
    return f"{image[:64]}…" if image.startswith("data:") else image
