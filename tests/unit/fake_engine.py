"""An engine that answers from a script, for focus.py's own decisions (tests/engine has the real one)."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from dualfocus_engine.families.profiles import Profile, load_profile
from dualfocus_engine.families.views import Views
from dualfocus_engine.focus import DualFocus
from dualfocus_engine.machine.pool import run_in_image_pool
from dualfocus_engine.method.prompts import NO_OPTIONS, Prompt, TurnOptions
from dualfocus_engine.method.questions import Message
from dualfocus_engine.method.results import Score, Turn, TurnDelta, kind_of
from dualfocus_engine.method.turn_engine import TurnRequest
from dualfocus_engine.pictures.picture_cache import PictureCache
from dualfocus_engine.pictures.pictures import Picture
from PIL import Image
from vllm import SamplingParams

from .builders import CLOSING, turn

Script = Turn | Exception | Callable[[], Awaitable[Turn]]
WAIT = 60.0  # a deadlock fails the test instead of hanging it


class FakeEngine:
    """Tokens are characters; what a turn gives is scripted by its name."""

    def __init__(self, **script: Script) -> None:
        self.script: dict[str, Script] = {
            "macro": turn("macro answer", mean_nll=1.0),
            "grounding": boxed("[0.20, 0.20, 0.60, 0.60]"),
            "micro": turn("micro answer", mean_nll=0.5),
        } | script
        self.started: list[str] = []
        self.finished: list[str] = []
        self.cancelled: list[str] = []
        self.prompts: dict[str, Prompt] = {}
        self.samplings: dict[str, Any] = {}
        self.has_started: dict[str, asyncio.Event] = {name: asyncio.Event() for name in self.script}
        self.template_kwargs: list[dict[str, Any]] = []
        self.rendering_fails: Exception | None = None
        self.stopped = False
        self.ranks = 1
        self.max_images = 999
        self.pictures_first = False
        self.default_max_tokens: int | None = 128
        self.default_temperature = 0.0
        self.closing_token = CLOSING
        self.scored: dict[str, list[int]] = {}
        self.scores: dict[str, Score | None] = {"macro": Score((-0.1,), 0), "micro": Score((-0.2,), 0)}
        self.profile: Profile = load_profile("llava-dualfocus")
        self.pictures = PictureCache(self.profile.pad_color, self.profile.image_size)
        self.views: Views | None = None
        self.context_length = 4096
        self.placeholder_tokens = frozenset({9})

    def rank(self, picture: Picture) -> int:
        return zlib.crc32(picture.key.encode()) % self.ranks

    def stop(self) -> None:
        self.stopped = True

    def as_words(self, texts: Sequence[str]) -> list[str]:
        return list(texts)

    def in_words(self, value: Any) -> Any:
        return value

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def grounding_sampling(self, boxes: int = 1, seed: int | None = None) -> Any:
        drawn = "" if seed is None else f" drawn by {seed}"
        return ("grounding sampling" if boxes == 1 else f"grounding sampling of {boxes}") + drawn

    def verdict_sampling(self) -> Any:
        return "verdict sampling"

    def answer_sampling(self) -> Any:
        return SamplingParams(max_tokens=self.default_max_tokens)

    async def prompt(self, messages: Sequence[Message], options: TurnOptions = NO_OPTIONS) -> Prompt:
        self.template_kwargs.append(dict(options.template_kwargs))
        pictures = tuple(picture for message in messages for picture in message.pictures)
        return Prompt(tuple(self.encode(_written(messages))), pictures, options)

    async def continuation(
        self, messages: Sequence[Message], follow_up: Message, options: TurnOptions = NO_OPTIONS
    ) -> Prompt:
        if self.rendering_fails is not None:
            raise self.rendering_fails
        return Prompt((CLOSING, *self.encode(_written([follow_up]))), follow_up.pictures, options)

    async def generate(self, request: TurnRequest) -> Turn:
        name = request.name
        assert request.is_answer is (kind_of(name) in ("macro", "micro"))
        if request.on_start is not None:
            request.on_start()
        self.started.append(name)
        self.prompts[name], self.samplings[name] = request.prompt, request.sampling
        self.has_started[name].set()
        step = self.script[name]
        try:
            await asyncio.sleep(0)
            if isinstance(step, Exception):
                raise step
            if request.on_accepted is not None:
                request.on_accepted()
            result = step if isinstance(step, Turn) else await step()
            if request.on_text is not None:
                words = result.text.split()
                for place, word in enumerate(words, 1):
                    request.on_text(TurnDelta(word, (), (), is_last=place == len(words)))
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        self.finished.append(name)
        return result

    async def encoder_input(self, picture: Picture) -> Image.Image:
        return await run_in_image_pool(self.pictures.encoder_input, picture)

    async def score(self, name: str, prompt: Prompt, answer: Sequence[int]) -> Score | None:
        self.prompts[f"{name}-score"] = prompt
        self.scored[name] = list(answer)
        return self.scores[name]

    def after(self, name: str, then: Turn | Exception) -> Callable[[], Awaitable[Turn]]:
        """A step that gives its result only once the turn `name` has started."""

        async def step() -> Turn:
            async with asyncio.timeout(WAIT):
                await self.has_started[name].wait()
            if isinstance(then, Exception):
                raise then
            return then

        return step


async def never() -> Turn:
    """A step that does not end by itself."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def time_is_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[Turn]]:
    """A step that does not end by itself, and with which a search's time is up, whenever its deadline was to be."""
    limits, timeout_at = [], asyncio.timeout_at

    def noted(when: float | None) -> asyncio.Timeout:
        limits.append(timeout_at(when))
        return limits[-1]

    async def step() -> Turn:
        limits[-1].reschedule(asyncio.get_running_loop().time())
        return await never()

    monkeypatch.setattr(asyncio, "timeout_at", noted)
    return step


def boxed(text: str) -> Turn:
    """A grounding turn that wrote `text`."""
    return turn(text, token_ids=(*map(ord, text), CLOSING), logprobs=(-0.1,) * (len(text) + 1))


def focus_on(engine: FakeEngine) -> DualFocus:
    """The method on a scripted engine."""
    focus = DualFocus("no-such-model", engine.profile.name)
    focus.profile = engine.profile
    focus._engine = engine  # type: ignore[assignment]
    return focus


def _written(messages: Sequence[Message]) -> str:
    return "".join(f"{message.role}:{'#' * len(message.pictures)}{message.text};" for message in messages)
