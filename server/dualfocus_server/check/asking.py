"""Asks about the pictures: an engine that was started for it, or a running server through HTTP."""

import base64
import io
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import httpx
from dualfocus_engine import Box, DualFocus, Mode, Profile, Question, Region, load_profile, profile_names
from dualfocus_engine.families.box_format import BoxFormat
from dualfocus_engine.families.choosing import profile_of
from dualfocus_engine.families.views import Views
from dualfocus_engine.method.showing import show_pictures
from dualfocus_engine.method.turn_runner import TurnRunner
from dualfocus_engine.shipped import SHIPPED_MODEL
from PIL import Image
from pydantic import BaseModel, ValidationError

from dualfocus_server.check.drawing import Drawn

# Enough for a number and a sentence around it, and for thoughts to be seen.
_ANSWER_TOKENS = 128
_CHAT, _MODELS = "/v1/chat/completions", "/v1/models"


# Returns None where no box can be read; raises DualFocusError.
Locate = Callable[[Drawn, BoxFormat], Awaitable[Box | None]]


class CantAsk(Exception):
    """The server can't be reached, refuses, or is none of DualFocus's; the message says which."""


class Said(BaseModel):
    """What a turn wrote."""

    text: str
    finish_reason: str


class Cost(BaseModel):
    """The tokens of a turn's prompt; not every server says which of them are pictures'."""

    prompt_tokens: int
    cached_tokens: int
    image_tokens: int | None = None


class Reply(BaseModel):
    """What is looked at of an answer's `dualfocus` field (docs/api.md)."""

    selection: str
    box: tuple[float, float, float, float] | None
    crop: Region | None
    grounding: Said | None
    macro: Said | None
    micro: Said | None
    turns: dict[str, Cost]
    notes: list[str] = []


@dataclass(frozen=True)
class Answered:
    """A picture and what was answered about it."""

    drawn: Drawn
    reply: Reply


class Asker(Protocol):
    """Asks a model; `views` are its profile's, with the limits of the loaded image processor where those are known.

    `locate` asks where a thing is in another box format; None where only the profile's own can be asked for.
    """

    model: str
    profile: Profile
    views: Views | None
    locate: Locate | None

    async def ask(self, drawn: Drawn) -> Reply:
        """Ask about a picture by two looks. Raises CantAsk, DualFocusError."""


class EngineAsker:
    """Asks an engine that runs in this process."""

    def __init__(self, focus: DualFocus) -> None:
        self.model, self.profile, self.views = focus.model, focus.engine.profile, focus.engine.views
        self.locate: Locate | None = self._locate
        self._focus = focus

    async def ask(self, drawn: Drawn) -> Reply:
        # Only now: it imports vLLM, which whoever asks a server need not have.
        from dualfocus_server.answering.report import focus_report

        result = await self._focus.answer(self._question(drawn, _ANSWER_TOKENS))
        return Reply.model_validate(focus_report([result], Mode.DUAL).model_dump())

    async def _locate(self, drawn: Drawn, box_format: BoxFormat) -> Box | None:
        """Run the second look alone, with the profile's box format changed."""
        engine = copy(self._focus.engine)
        engine.profile = self.profile.model_copy(update={"box_format": box_format})
        question, _ = await show_pictures(engine, self._question(drawn, 1))
        (look,) = await TurnRunner(engine, question).run_second_look()
        return look.box

    def _question(self, drawn: Drawn, answer_tokens: int) -> Question:
        sampling = self._focus.engine.answer_sampling()
        sampling.max_tokens = answer_tokens
        return replace(Question.about(drawn.picture, drawn.question), sampling=sampling)


class ServerAsker:
    """Asks a running server."""

    locate: Locate | None = None  # a server asks in its own profile's words

    def __init__(self, http: httpx.AsyncClient, model: str, profile: Profile) -> None:
        self.model, self.profile, self.views = model, profile, profile.views
        self._http = http

    @classmethod
    async def of(cls, http: httpx.AsyncClient, profile: str | None = None) -> Self:
        """Return the asker of a server's first model; `profile` names its profile where the server can't.

        Raises CantAsk, ConfigError.
        """
        models = await _body(http.get(_MODELS))
        try:
            card = models["data"][0]
            said = (card.get("dualfocus") or {}).get("profile")
            return cls(http, card["id"], load_profile(profile) if profile else _profile_named(said))
        except (LookupError, TypeError, AttributeError) as error:
            raise CantAsk(f"What the server lists at {_MODELS} is not a model.") from error

    async def ask(self, drawn: Drawn) -> Reply:
        image = {"type": "image_url", "image_url": {"url": _data_url(drawn.picture)}}
        content = [image, {"type": "text", "text": drawn.question}]
        asked = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_completion_tokens": _ANSWER_TOKENS,
            "dualfocus": {"mode": "dual"},
        }
        answered = await _body(self._http.post(_CHAT, json=asked))
        try:
            return Reply.model_validate(answered.get("dualfocus"))
        except ValidationError as error:
            raise CantAsk(f"The answer has no `dualfocus` field of docs/api.md: is it DualFocus? {error}") from error


def _profile_named(name: str | None) -> Profile:
    """Return the profile that a server says it has. Raises CantAsk."""
    shipped_models = profile_of(str(SHIPPED_MODEL))
    if name == shipped_models.name:
        return shipped_models
    if name not in profile_names():
        said = "does not say which profile it has" if name is None else f"has a profile of its own, {name!r}"
        raise CantAsk(f"The server {said}: name it with --profile, a YAML file or one that ships.")
    return load_profile(name)


async def _body(answering: Awaitable[httpx.Response]) -> dict[str, Any]:
    try:
        response = await answering
    except httpx.HTTPError as error:
        raise CantAsk(f"The server gives no answer: {str(error) or type(error).__name__}") from error
    try:
        body = response.json()
    except ValueError as error:
        raise CantAsk(f"The server answered {response.status_code} and no JSON.") from error
    if response.is_success and isinstance(body, dict):
        return body
    raise CantAsk(f"The server answered {response.status_code}: {body}")


def _data_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
