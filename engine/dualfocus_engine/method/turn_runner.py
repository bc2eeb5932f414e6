"""The turns of one question: the first look (macro), and the second (grounding, crop, micro)."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from dualfocus_engine.errors import BadQuestion, ContextFull, EngineDead
from dualfocus_engine.families.boxes import Box, Region, Size
from dualfocus_engine.families.regions import places_of
from dualfocus_engine.grounders.grounder import BoundedGrounder, GrounderFailed, GrounderTimedOut
from dualfocus_engine.method.looks.crops import enlarges, show_crops
from dualfocus_engine.method.multiple_choice import chosen_option
from dualfocus_engine.method.prompts import Prompt
from dualfocus_engine.method.questions import (
    Message,
    Question,
    grounding_options,
    grounding_turn,
    macro_turn,
    micro_turn,
    shared_turn,
)
from dualfocus_engine.method.results import (
    LookedAt,
    Mode,
    OnText,
    Score,
    Scoring,
    SecondLook,
    Selection,
    Shared,
    Turn,
    TurnDelta,
)
from dualfocus_engine.method.selection import released_texts
from dualfocus_engine.method.stages import GROUNDER, Stages
from dualfocus_engine.method.tasks import unwrap_exception_group
from dualfocus_engine.method.turn_engine import TurnEngine, TurnRequest
from dualfocus_engine.pictures.pictures import Picture

if TYPE_CHECKING:
    from vllm import SamplingParams

logger = logging.getLogger(__name__)


class TurnListener(Protocol):
    """Is called with what a question's turns are doing."""

    def on_turn_start(self, turn: str) -> None:
        """A turn starts, and its prompt fits the context: macro, grounding or micro."""

    def on_turn_accepted(self, turn: str) -> None:
        """The engine writes an answer: it has taken how macro or micro is to be sampled, a grammar among it."""

    def on_text(self, written: TurnDelta) -> None:
        """The macro turn wrote some more of its answer (in `Mode.MACRO` only: elsewhere it may yet lose)."""


@dataclass(frozen=True, slots=True)
class _Zoomed:
    """What the micro turn continues: the grounding turn, its prompt and reply, and the crops."""

    conversation: Sequence[Message]
    prompt: Prompt
    reply: Sequence[int]
    crops: Sequence[Picture]


class TurnRunner:
    """Runs the turns of one question on an engine."""

    def __init__(
        self,
        engine: TurnEngine,
        question: Question,
        listener: TurnListener | None = None,
        grounder: BoundedGrounder | None = None,
    ) -> None:
        self._engine = engine
        self._profile = engine.profile
        self._question = question
        self._listener = listener
        self._grounder = grounder
        self._samplings = _samplings_of(question.sampling or engine.answer_sampling())
        self._crops: Sequence[Picture] = ()
        self._zoomed: _Zoomed | None = None
        self.stages = Stages()

    def why_no_second_look(self) -> Selection | None:
        """Return what keeps the question from a second look before one is begun; None where nothing does."""
        question = self._question
        if not question.to_ground.strip():
            return Selection.NOTHING_ASKED
        if question.box is None and self._grounder is None and not self._profile.grounds:
            return Selection.NO_GROUNDING
        if question.leaves_open_which_picture:
            return Selection.SEVERAL_PICTURES
        is_full = len(question.pictures) >= self._engine.max_images and self._profile.micro_images > 1
        return Selection.IMAGE_LIMIT if is_full else None

    async def run_macro(self, on_text: OnText | None = None) -> Sequence[Turn]:
        """Answer from the whole picture; of one answer, `on_text` is told. Raises ContextFull, EngineDead."""
        with self.stages.time("macro"):
            prompt = await self._engine.prompt(macro_turn(self._question), self._question.turns)
            return await self._answer("macro", prompt, on_text)

    async def run_second_look(self) -> Sequence[SecondLook]:
        """Ground, crop and answer again (Eq. 6), one look an answer; an error ends the looks, never the question."""
        look = SecondLook()
        try:
            conversation = grounding_turn(self._question, self._profile, pictures_first=self._engine.pictures_first)
            rendered = await self._engine.prompt(conversation, grounding_options(self._question, self._profile))
            prompt = rendered.opened(self._engine.encode(self._profile.box_format.opening))
            with self._engine.pictures.ahead(self._question.picture):
                look, reply = await self._locate(prompt)
            if not self._crops:
                return [look] * len(self._samplings)
            with self.stages.time("crop"):
                await asyncio.gather(*map(self._engine.encoder_input, self._crops))
            self._zoomed = _Zoomed(conversation, prompt, reply, self._crops)
            with self.stages.time("micro"):
                micros = await self._run_micro(self._crops)
            return [_looked(look, micro) for micro in micros]
        except EngineDead:
            raise
        except ContextFull:
            failed = Selection.CONTEXT_FULL
        except GrounderTimedOut:
            failed = Selection.GROUNDER_TIMED_OUT
        except GrounderFailed as error:
            logger.warning("The grounder failed (%s); the macro answer stands.", error)
            failed = Selection.GROUNDER_FAILED
        except BadQuestion:
            logger.warning("The second look could not be asked this way; the macro answer stands.")
            failed = Selection.MICRO_FAILED
        except Exception:
            logger.exception("The second look failed; the macro answer stands.")
            failed = Selection.MICRO_FAILED
        return [replace(look, failed=failed)] * len(self._samplings)

    async def score_both(self, macro: Turn, micro: Turn) -> Shared | None:
        """Score both answers under one prompt: the micro turn's, its text by the profile's words for that.

        An answer that names an option by its letter is scored by the option's text, as in the released code. By the
        rule of `Scoring.RELEASED` the box's tokens come before each answer's. None where one of them does not fit the
        context. Raises EngineDead.
        """
        assert self._zoomed is not None  # a micro turn ran
        prompt = await self._continue(self._zoomed, shared_turn(self._question, self._zoomed.crops, self._profile))
        box = await self._box_score(self._zoomed) if self._question.scoring is Scoring.RELEASED else ()
        tokens = self._tokens_to_score(macro, micro)
        scores = [await self._engine.score(name, prompt, tokens[name], cached=True) for name in ("macro", "micro")]
        both = [Score(box + score.logprobs, score.cached_tokens) for score in scores if score is not None]
        return Shared(*both) if len(both) == len(scores) else None

    async def _box_score(self, zoomed: _Zoomed) -> tuple[float, ...]:
        """Return the log-probabilities of the grounding answer that micro continues, its closing token included."""
        closing = self._engine.closing_token
        body = zoomed.reply[:-1] if zoomed.reply and zoomed.reply[-1] == closing else zoomed.reply
        score = await self._engine.score("grounding", zoomed.prompt, [*body, closing], cached=True)
        assert score is not None  # micro's prompt, which holds it, fitted
        return score.logprobs

    async def _locate(self, prompt: Prompt) -> tuple[SecondLook, Sequence[int]]:
        """Return where to look, and the tokens of the grounding answer that the micro turn continues."""
        if self._question.box is not None:
            return self._look_at([self._question.box], None), self._written(self._question.box)
        if self._grounder is not None:
            box = await self._ask(self._grounder)
            return self._look_at([box] if box else [], None), self._written(box) if box is not None else []
        box_format = self._profile.box_format
        request = TurnRequest(
            "grounding",
            prompt,
            self._engine.grounding_sampling(self._most_regions),
            on_start=self._on_start("grounding"),
            is_answer=False,
        )
        with self.stages.time("grounding"):
            grounding = await self._engine.generate(request)
        is_closed = box_format.stop is not None and grounding.stop_reason == box_format.stop
        written = grounding.text + (box_format.closing if is_closed else "")
        reply = self._engine.encode(written) if is_closed else grounding.token_ids
        return self._look_at(self._read(box_format.opening + written), grounding), reply

    def _read(self, written: str) -> Sequence[Box]:
        box_format = self._profile.box_format
        if self._question.mode is Mode.REGIONS:
            return box_format.read_all(written, self._shown_size)
        box = box_format.read(written, self._shown_size)
        return [] if box is None else [box]

    @property
    def _most_regions(self) -> int:
        """Crops that may be shown: as many as the profile says, and the engine takes beside the pictures."""
        if self._question.mode is not Mode.REGIONS or not self._profile.box_format.lists:
            return 1
        beside = 0 if self._profile.crop_alone else len(self._question.pictures)
        return min(self._profile.max_regions, self._engine.max_images - beside)

    async def _ask(self, grounder: BoundedGrounder) -> Box | None:
        asked = self._profile.bare(self._question.to_ground)
        with self.stages.time(GROUNDER):
            return await grounder.locate(self._engine.pictures, self._question.picture, asked)

    def _written(self, box: Box) -> Sequence[int]:
        """Return the tokens of a box that the model did not write itself, in its own notation."""
        box_format = self._profile.box_format
        return self._engine.encode(box_format.write(box, self._shown_size).removeprefix(box_format.opening))

    @property
    def _shown_size(self) -> Size:
        """The size in pixels that the picture's boxes are written in."""
        return self._question.picture.shown or self._question.picture.size

    def _look_at(self, boxes: Sequence[Box], grounding: Turn | None) -> SecondLook:
        if not boxes:
            is_cut = grounding is not None and grounding.is_cut
            return SecondLook(None, None, grounding, failed=Selection.CONTEXT_FULL if is_cut else Selection.NO_BOX)
        picture = self._question.picture
        places = places_of(boxes, picture.size, self._profile.crop, self._most_regions)
        if not places:
            return SecondLook(Box.around(boxes), None, grounding, failed=Selection.EMPTY_BOX)
        regions = [place.crop for place in places]
        crops = show_crops(self._engine.views, picture, regions, self._question.crop_tokens)
        shown = [(place.box, crop) for place, crop in zip(places, crops, strict=True) if enlarges(crop, picture)]
        box = Box.around(place.box for place in places)
        if not shown:
            return SecondLook(box, None, grounding, failed=Selection.NOTHING_TO_ENLARGE)
        self._crops = [crop for _, crop in shown]
        looked_at = tuple(LookedAt(box, crop.region) for box, crop in shown if crop.region is not None)
        return SecondLook(box, Region.around(at.crop for at in looked_at), grounding, regions=looked_at)

    async def _run_micro(self, crops: Sequence[Picture]) -> Sequence[Turn]:
        assert self._zoomed is not None
        prompt = await self._continue(self._zoomed, micro_turn(self._question, crops, self._profile))
        # It was asked to answer: what it calls all the same is no answer.
        return [replace(micro, tool_calls=()) for micro in await self._answer("micro", prompt)]

    async def _continue(self, zoomed: _Zoomed, follow_up: Message) -> Prompt:
        """Return the prompt that continues the grounding turn, token for token, with a turn about the crop.

        Where the crop is a patch of the picture, the picture's tokens are others: what follows them is computed anew.
        """
        if self._profile.crop_alone:
            return await self._engine.prompt([follow_up], self._question.turns)
        rest = await self._engine.continuation(zoomed.conversation, follow_up, self._question.turns)
        prompt = zoomed.prompt
        if self._profile.crop_in_picture:
            (crop,) = zoomed.crops
            prompt = prompt.with_patch(self._question.picture_index, crop)
        return prompt.continued(zoomed.reply, rest)

    def _tokens_to_score(self, macro: Turn, micro: Turn) -> Mapping[str, Sequence[int]]:
        """Return what is scored of both answers: their tokens, or those of the option that one names."""
        options, turns = self._question.options, {"macro": macro, "micro": micro}
        if self._question.scoring is Scoring.RELEASED:
            texts = zip(turns, released_texts(macro, micro, options), strict=True)
            return {name: self._closed(text) for name, text in texts}
        named = {name: chosen_option(turn.text, options) for name, turn in turns.items()}
        return {name: turns[name].answer_ids if text is None else self._closed(text) for name, text in named.items()}

    def _closed(self, text: str) -> list[int]:
        return [*self._engine.encode(text), self._engine.closing_token]

    async def _answer(self, turn: str, prompt: Prompt, on_text: OnText | None = None) -> Sequence[Turn]:
        """Run a turn that answers, as often as answers are drawn, and read it."""
        accepted = partial(self._listener.on_turn_accepted, turn) if self._listener is not None else None
        on_text = on_text if len(self._samplings) == 1 else None
        on_starts = [self._on_start(turn), *[None] * (len(self._samplings) - 1)]  # a turn is told of once
        requests = [
            TurnRequest(turn, prompt, sampling, on_text, on_start, on_accepted=accepted)
            for sampling, on_start in zip(self._samplings, on_starts, strict=True)
        ]
        with unwrap_exception_group():
            async with asyncio.TaskGroup() as group:
                turns = [group.create_task(self._engine.generate(request)) for request in requests]
        return [self._question.read(turn.result()) for turn in turns]

    def _on_start(self, turn: str) -> Callable[[], None] | None:
        return partial(self._listener.on_turn_start, turn) if self._listener is not None else None


def _samplings_of(sampling: "SamplingParams") -> list["SamplingParams"]:
    """Return how each of the `n` answers is sampled: as vLLM does it, with seeds that follow each other."""
    if sampling.n == 1:
        return [sampling]
    each = [sampling.clone() for _ in range(sampling.n)]
    for place, one in enumerate(each):
        one.n, one.seed = 1, None if sampling.seed is None else sampling.seed + place
    return each


def _looked(look: SecondLook, micro: Turn) -> SecondLook:
    tokens = micro.picture_tokens[-len(look.regions) :] or (0,) * len(look.regions)
    regions = tuple(at._replace(tokens=shown) for at, shown in zip(look.regions, tokens, strict=True))
    return replace(look, micro=micro, failed=Selection.CONTEXT_FULL if micro.is_cut else None, regions=regions)
