"""The turns of one question: the first look (macro), and the second (grounding, crop, micro)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from dualfocus_engine.errors import BadQuestion, ContextFull, EngineDead
from dualfocus_engine.families.boxes import Box
from dualfocus_engine.grounders.grounder import BoundedGrounder, GrounderFailed, GrounderTimedOut
from dualfocus_engine.method.looks.aiming import aimed_at
from dualfocus_engine.method.looks.attempt import Aim, Attempt, Zoomed
from dualfocus_engine.method.looks.crops import shows_all
from dualfocus_engine.method.looks.enough import ends_search, skips, verdict
from dualfocus_engine.method.looks.grounding import box_reply, most_regions, past_thoughts, read_boxes, reply_of
from dualfocus_engine.method.looks.scoring import score_under
from dualfocus_engine.method.prompts import Prompt, TurnOptions
from dualfocus_engine.method.questions import (
    Message,
    Question,
    deeper_turn,
    enough_of_crops,
    enough_turn,
    grounding_options,
    grounding_turn,
    macro_turn,
    micro_turn,
    shared_turn,
)
from dualfocus_engine.method.results import (
    OnText,
    SecondLook,
    Selection,
    Shared,
    Turn,
    TurnDelta,
    Verdict,
)
from dualfocus_engine.method.stages import GROUNDER, Stages
from dualfocus_engine.method.tasks import unwrap_exception_group
from dualfocus_engine.method.turn_engine import TurnEngine, TurnRequest

if TYPE_CHECKING:
    from vllm import SamplingParams

logger = logging.getLogger(__name__)

# Stands for an earlier reply where a conversation is rendered for what follows it: prompts hold the reply's own tokens.
_REPLIED = Message("assistant", "…")
# Boxes that have as much in common, of what both cover, are of one place.
_SAME_PLACE = 0.5


class TurnListener(Protocol):
    """Is called with what a question's turns are doing."""

    def on_turn_start(self, turn: str) -> None:
        """A turn starts, and its prompt fits the context: macro, grounding or micro, grounding-2 …"""

    def on_turn_accepted(self, turn: str) -> None:
        """The engine writes an answer: it has taken how macro or micro is to be sampled, a grammar among it."""

    def on_text(self, written: TurnDelta) -> None:
        """The macro turn wrote some more of its answer (in `Mode.MACRO` only: elsewhere it may yet lose)."""


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
        self._first_aim: Aim | None = None
        self._zoomed: dict[int, Zoomed] = {}  # by the number of the look
        self.stages = Stages()
        # Of the whole picture, where it was asked (`ask_of_whole`).
        self.enough: Verdict | None = None

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

    @property
    def asks_of_whole(self) -> bool:
        """Whether the model is asked if the whole picture is enough."""
        return self._asks_of_crops or skips(self._question, self._profile.enough)

    async def ask_of_whole(self) -> None:
        """Ask whether the whole picture is enough to answer; nothing is known where it can't be asked.

        Raises EngineDead.
        """
        conversation = enough_turn(self._question, self._profile, pictures_first=self._engine.pictures_first)
        options = grounding_options(self._question, self._profile)
        self.enough = await self._judged("macro", partial(self._engine.prompt, conversation, options))

    @property
    def _asks_of_crops(self) -> bool:
        return self._question.enough or ends_search(self._question, self._profile.enough)

    async def _judged(self, turn: str, prompt_of: Callable[[], Awaitable[Prompt]]) -> Verdict | None:
        try:
            asked = past_thoughts(self._engine, await prompt_of())
            return await verdict(self._engine, f"enough-{turn}", asked)
        except EngineDead:
            raise
        except Exception:
            logger.exception("Whether a view is enough could not be asked; it is left out.")
            return None

    async def run_second_look(self) -> Sequence[SecondLook]:
        """Ground, crop and answer again (Eq. 6), one look an answer; an error ends the looks, never the question."""
        return await self._look(Attempt(1), self._aim())

    async def look_deeper(self, number: int, behind: int) -> SecondLook:
        """Go on behind the crop of an earlier look: ask where in it, and answer from there.

        The conversation holds where was looked and what was shown, never an answer. What the look is shown is cut from
        the original. An error ends the look, never the question.
        """
        zoomed = self._zoomed[behind]
        if len(zoomed.prompt.pictures) + len(zoomed.crops) >= self._engine.max_images:
            return SecondLook(failed=Selection.IMAGE_LIMIT)
        (look,) = await self._look(Attempt(number), self._deeper_aim(zoomed))
        return look

    async def look_elsewhere(self, looks: list[SecondLook], boxes: int) -> None:
        """Draw that many other boxes from the first grounding turn, and look at their places in one batch.

        Each becomes one of `looks`, which are as far as they came where this is cancelled. A box that covers half or
        more of what is looked at already gets no answer. An error ends a look, never the question.
        """
        attempts = [Attempt(len(looks) + place) for place in range(1, boxes + 1)]
        looks += [SecondLook(failed=Selection.TIMED_OUT)] * boxes
        with unwrap_exception_group():
            async with asyncio.TaskGroup() as group:
                for seed, attempt in enumerate(attempts, self._samplings[0].seed or 0):
                    group.create_task(self._draw(attempt, seed % 2**63))
            async with asyncio.TaskGroup() as group:
                for attempt in self._other_places(looks, attempts):
                    group.create_task(self._answer_from(looks, attempt))

    async def _draw(self, attempt: Attempt, seed: int) -> None:
        await self._guarded(attempt, self._ground_anew(attempt, seed))

    async def _ground_anew(self, attempt: Attempt, seed: int) -> Sequence[Turn]:
        aim = await self._aim()
        self._point(attempt, aim, *await self._ground(attempt, aim, seed))
        return []

    def _other_places(self, looks: list[SecondLook], attempts: Sequence[Attempt]) -> Sequence[Attempt]:
        """Return the attempts whose boxes are of other places than those before; the others have ended."""
        boxes, other = [look.box for look in looks if look.box is not None], []
        for attempt in attempts:
            box = attempt.look.box
            if attempt.zoomed is None or box is None:
                looks[attempt.number - 1] = attempt.look
            elif any(box.overlap(before) >= _SAME_PLACE for before in boxes):
                looks[attempt.number - 1] = replace(attempt.look, failed=Selection.SAME_PLACE)
            else:
                boxes.append(box)
                other.append(attempt)
        return other

    async def _answer_from(self, looks: list[SecondLook], attempt: Attempt) -> None:
        assert attempt.zoomed is not None
        micros = await self._guarded(attempt, self._run_micro(attempt, attempt.zoomed))
        looks[attempt.number - 1] = self._looked(attempt.look, micros[0]) if micros else attempt.look

    @property
    def draws_boxes(self) -> bool:
        """Whether the model is asked where to look, and can be asked again."""
        return self._grounder is None and self._profile.grounds

    def shows_all(self, number: int) -> bool:
        """Whether a look's crop was shown with all its pixels: to enlarge a part of it would show nothing new."""
        return all(shows_all(crop, self._profile.image_size) for crop in self._zoomed[number].crops)

    async def _look(self, attempt: Attempt, aim: Awaitable[Aim]) -> Sequence[SecondLook]:
        micros = await self._guarded(attempt, self._run_look(attempt, aim))
        return [self._looked(attempt.look, micro) for micro in micros] or [attempt.look] * len(self._samplings)

    async def _run_look(self, attempt: Attempt, aim: Awaitable[Aim]) -> Sequence[Turn]:
        found = await aim
        with self._engine.pictures.ahead(self._question.picture):
            await self._locate(attempt, found)
        return await self._run_micro(attempt, attempt.zoomed) if attempt.zoomed is not None else []

    async def _guarded(self, attempt: Attempt, work: Awaitable[Sequence[Turn]]) -> Sequence[Turn]:
        """Do a part of a look; what goes wrong with it is said in the look."""
        try:
            return await work
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
        attempt.look = replace(attempt.look, failed=failed)
        return []

    async def _aim(self) -> Aim:
        """Return where the model is asked first; other boxes of the same question are drawn behind the same prompt."""
        if self._first_aim is None:
            question, profile = self._question, self._profile
            conversation = grounding_turn(question, profile, pictures_first=self._engine.pictures_first)
            rendered = await self._engine.prompt(conversation, grounding_options(question, profile))
            self._first_aim = Aim(conversation, rendered.opened(self._opening), question.picture)
        return self._first_aim

    async def _deeper_aim(self, zoomed: Zoomed) -> Aim:
        asked = deeper_turn(self._question, zoomed.crops, self._profile, zoomed.conversation)
        prompt = await self._continue(zoomed, asked, grounding_options(self._question, self._profile))
        conversation = [*zoomed.conversation, _REPLIED, asked]
        return Aim(conversation, prompt.opened(self._opening), zoomed.crops[0])

    @property
    def _opening(self) -> Sequence[int]:
        return self._engine.encode(self._profile.box_format.opening)

    async def score_both(self, macro: Turn, micro: Turn) -> Shared | None:
        """Score both answers under one prompt: the micro turn's, its text by the profile's words for that.

        An answer that names an option by its letter is scored by the option's text, as in the released code. By the
        rule of `Scoring.RELEASED` the box's tokens come before each answer's. None where one of them does not fit the
        context. Raises EngineDead.
        """
        zoomed = self._zoomed[1]  # a micro turn ran
        asked = shared_turn(self._question, zoomed.crops, self._profile, zoomed.conversation)
        prompt = await self._continue(zoomed, asked, grounding_options(self._question, self._profile))
        answered = past_thoughts(self._engine, prompt)  # an answer's thoughts are none of its tokens
        return await score_under(self._engine, self._question, answered, zoomed, macro, micro)

    async def _locate(self, attempt: Attempt, aim: Aim) -> None:
        """Find where to look, and what of it is shown; the micro turn continues the grounding answer."""
        boxes = await self._given_box() if aim.seen is self._question.picture else None
        if boxes is None:
            boxes, reply = await self._ground(attempt, aim)
        else:
            aim = replace(aim, prompt=past_thoughts(self._engine, aim.prompt))
            reply = [token for box in boxes for token in box_reply(self._engine, aim.seen, box)]
        self._point(attempt, aim, boxes, reply)

    def _point(self, attempt: Attempt, aim: Aim, boxes: Sequence[Box], reply: Sequence[int]) -> None:
        """Say what of the picture is shown for boxes, and what the micro turn continues."""
        attempt.look, crops = aimed_at(
            self._engine, self._question, boxes, attempt.look.grounding, aim.seen, self._most_regions
        )
        if crops:
            attempt.zoomed = Zoomed(aim.conversation, aim.prompt, reply, crops)
            self._zoomed[attempt.number] = attempt.zoomed

    async def _given_box(self) -> Sequence[Box] | None:
        """Return where to look as the client or the grounder says; None where the model is asked."""
        if self._question.box is not None:
            return [self._question.box]
        if self._grounder is None:
            return None
        box = await self._ask(self._grounder)
        return [] if box is None else [box]

    async def _ground(self, attempt: Attempt, aim: Aim, seed: int | None = None) -> tuple[Sequence[Box], Sequence[int]]:
        """Ask the model where to look: the boxes it wrote, and the tokens of its answer."""
        name = attempt.turn("grounding")
        sampling = self._engine.grounding_sampling(self._most_regions, seed)
        request = TurnRequest(name, aim.prompt, sampling, on_start=self._on_start(name), is_answer=False)
        with self.stages.time("grounding"):
            grounding = await self._engine.generate(request)
        attempt.look = SecondLook(grounding=grounding)
        written, reply = reply_of(self._engine, aim.prompt, grounding)
        return read_boxes(self._profile, self._question, written, aim.seen), reply

    @property
    def _most_regions(self) -> int:
        return most_regions(self._engine, self._question)

    async def _ask(self, grounder: BoundedGrounder) -> Box | None:
        asked = self._profile.bare(self._question.to_ground)
        with self.stages.time(GROUNDER):
            return await grounder.locate(self._engine.pictures, self._question.picture, asked)

    async def _run_micro(self, attempt: Attempt, zoomed: Zoomed) -> Sequence[Turn]:
        with self.stages.time("crop"):
            await asyncio.gather(*map(self._engine.encoder_input, zoomed.crops))
        name = attempt.turn("micro")
        with self.stages.time("micro"), unwrap_exception_group():
            asked = micro_turn(self._question, zoomed.crops, self._profile, zoomed.conversation)
            prompt = await self._continue(zoomed, asked)
            async with asyncio.TaskGroup() as group:
                answering = group.create_task(self._answer(name, prompt))
                judging = (
                    group.create_task(self._judged(name, partial(self._check, zoomed))) if self._asks_of_crops else None
                )
        if judging is not None:
            attempt.look = replace(attempt.look, enough=judging.result())
        # It was asked to answer: what it calls all the same is no answer.
        return [replace(micro, tool_calls=()) for micro in answering.result()]

    async def _check(self, zoomed: Zoomed) -> Prompt:
        """Return the prompt that asks whether the crops are enough, behind what the micro turn is shown."""
        asked = enough_of_crops(self._question, zoomed.crops, self._profile)
        return await self._continue(zoomed, asked, grounding_options(self._question, self._profile))

    async def _continue(self, zoomed: Zoomed, follow_up: Message, options: TurnOptions | None = None) -> Prompt:
        """Return the prompt that continues the grounding turn, token for token, with a turn about the crop.

        Where the crop is a patch of the picture, the picture's tokens are others: what follows them is computed anew.
        """
        options = options or self._question.turns
        if self._profile.crop_alone:
            return await self._engine.prompt([*self._question.instructions, follow_up], options)
        rest = await self._engine.continuation(zoomed.conversation, follow_up, options)
        prompt = zoomed.prompt
        if self._profile.crop_in_picture:
            (crop,) = zoomed.crops
            prompt = prompt.with_patch(self._question.picture_index, crop)
        return prompt.continued(zoomed.reply, rest)

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

    def _looked(self, look: SecondLook, micro: Turn) -> SecondLook:
        crops = len(look.regions)
        if self._profile.crop_in_picture:
            tokens = _tokens_of_patch(self._question.picture_index, look, micro)
        else:
            tokens = micro.picture_tokens[-crops:] or (0,) * crops
        regions = tuple(at._replace(tokens=shown) for at, shown in zip(look.regions, tokens, strict=True))
        return replace(look, micro=micro, failed=Selection.CONTEXT_FULL if micro.is_cut else None, regions=regions)

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


def _tokens_of_patch(place: int, look: SecondLook, micro: Turn) -> Sequence[int]:
    """Return the image tokens of a crop that is a patch of its picture; 0 where it was not shown without."""
    shown = [turn.picture_tokens[place] for turn in (micro, look.grounding) if turn and turn.picture_tokens]
    return [shown[0] - shown[1] if len(shown) == 2 else 0]
