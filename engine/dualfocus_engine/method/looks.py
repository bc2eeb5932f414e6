"""The turns of one question: the first look (macro), and the second (grounding, crop, micro)."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from dualfocus_engine.errors import BadQuestion, ContextFull, EngineDead
from dualfocus_engine.families.boxes import Box, crop_region
from dualfocus_engine.method.options import chosen_option
from dualfocus_engine.method.questions import Message, Question, grounding_turn, macro_turn, micro_turn, shared_turn
from dualfocus_engine.method.results import Look, OnText, Selection, Shared, Turn
from dualfocus_engine.method.stages import Stages
from dualfocus_engine.pictures.pictures import Picture

if TYPE_CHECKING:
    from dualfocus_engine.backend.vllm_engine import VllmEngine
    from dualfocus_engine.method.prompts import Prompt

logger = logging.getLogger(__name__)


class Watcher(Protocol):
    """Is told what a question's turns are doing."""

    def begins(self, turn: str) -> None:
        """A turn begins, whose prompt fits the context: macro, grounding or micro."""

    def writes(self, text: str) -> None:
        """The macro turn wrote some more of its answer (in `Mode.MACRO` only: elsewhere it may yet lose)."""


@dataclass(frozen=True, slots=True)
class _Zoomed:
    """What the second look goes on from: the grounding turn, its prompt and reply, and the crop."""

    conversation: Sequence[Message]
    prompt: "Prompt"
    reply: Sequence[int]
    crop: Picture


class Looks:
    """Runs the turns of one question on an engine."""

    def __init__(self, engine: "VllmEngine", question: Question, watcher: Watcher | None = None) -> None:
        self._engine = engine
        self._profile = engine.profile
        self._question = question
        self._watcher = watcher
        self._sampling = question.sampling or engine.answer_sampling()
        self._zoomed: _Zoomed | None = None
        self.stages = Stages()

    async def first(self, on_text: OnText | None = None) -> Turn:
        """Answer from the whole picture. Raises ContextFull, EngineDead."""
        with self.stages.time("macro"):
            prompt = await self._engine.prompt(macro_turn(self._question, self._profile))
            return await self._engine.generate("macro", prompt, self._sampling, on_text, self._begins("macro"))

    async def second(self) -> Look:
        """Ground, crop and answer again (Eq. 6); an error ends the look, never the question."""
        look = Look()
        try:
            conversation = grounding_turn(self._question, self._profile)
            prompt = await self._engine.prompt(conversation)
            with self._engine.pictures.ahead(self._question.picture):
                look, reply = await self._locate(prompt)
            if look.region is None:
                return look
            with self.stages.time("crop"):
                crop = self._question.picture.crop(look.region)
                await self._engine.shown(crop)
            self._zoomed = _Zoomed(conversation, prompt, reply, crop)
            with self.stages.time("micro"):
                micro = await self._micro(crop)
            return replace(look, micro=micro, failed=Selection.CONTEXT_FULL if micro.is_cut else None)
        except EngineDead:
            raise
        except ContextFull:
            return replace(look, failed=Selection.CONTEXT_FULL)
        except BadQuestion:
            logger.warning("The second look could not be asked this way; the macro answer stands.")
            return replace(look, failed=Selection.MICRO_FAILED)
        except Exception:
            logger.exception("The second look failed; the macro answer stands.")
            return replace(look, failed=Selection.MICRO_FAILED)

    async def shared(self, macro: Turn | None, micro: Turn | None) -> Shared | None:
        """Score both answers under one prompt, the micro turn's place in it taken by the profile's `shared_prompt`.

        An answer that names an option by its letter is scored by the option's text (METHOD.md). None where one of them
        does not fit the context. Raises EngineDead.
        """
        assert macro is not None
        assert micro is not None
        assert self._zoomed is not None
        prompt = await self._zoom(shared_turn(self._question, self._zoomed.crop, self._profile))
        scores = [
            await self._engine.score(name, prompt, self._scored_tokens(turn), cached=True)
            for name, turn in (("macro", macro), ("micro", micro))
        ]
        one, other = scores
        return None if one is None or other is None else Shared(one, other)

    async def _locate(self, prompt: "Prompt") -> tuple[Look, Sequence[int]]:
        """Return where to look, and the tokens of the grounding answer that the micro turn continues."""
        notation, given = self._profile.notation, self._question.box
        if given is not None:
            return self._look(given, None), self._engine.encode(notation.write(given))
        sampling, begins = self._engine.grounding_sampling(), self._begins("grounding")
        with self.stages.time("grounding"):
            grounding = await self._engine.generate("grounding", prompt, sampling, on_start=begins, is_answer=False)
        return self._look(notation.read(grounding.text), grounding), grounding.token_ids

    def _look(self, box: Box | None, grounding: Turn | None) -> Look:
        if box is None:
            is_cut = grounding is not None and grounding.is_cut
            return Look(None, None, grounding, failed=Selection.CONTEXT_FULL if is_cut else Selection.NO_BOX)
        region = None if box.is_empty else crop_region(box, self._question.picture.size, self._profile.crop)
        return Look(box, region, grounding, failed=None if region else Selection.EMPTY_BOX)

    async def _micro(self, crop: Picture) -> Turn:
        prompt = await self._zoom(micro_turn(self._question, crop, self._profile))
        return await self._engine.generate("micro", prompt, self._sampling, on_start=self._begins("micro"))

    async def _zoom(self, follow_up: Message) -> "Prompt":
        """Return the prompt that continues the grounding turn with a user's turn about the crop."""
        zoomed = self._zoomed
        assert zoomed is not None
        rest = await self._engine.continuation(zoomed.conversation, follow_up)
        return zoomed.prompt.continued(zoomed.reply, rest)

    def _scored_tokens(self, turn: Turn) -> Sequence[int]:
        """Return what is scored of an answer: its tokens, or those of the option it names."""
        option = chosen_option(turn.text, self._question.options)
        return turn.token_ids if option is None else [*self._engine.encode(option), self._engine.closing_token]

    def _begins(self, turn: str) -> Callable[[], None] | None:
        return partial(self._watcher.begins, turn) if self._watcher is not None else None
