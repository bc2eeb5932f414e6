"""The method: macro beside grounding, micro from the cached prefix, the less surprising answer (Figure 6)."""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from dualfocus_engine.boxes import Box, Region, crop_region
from dualfocus_engine.errors import ContextFull, EngineDead
from dualfocus_engine.platform import prepare_environment
from dualfocus_engine.profiles import Profile, profile_of
from dualfocus_engine.questions import Message, Question, grounding_turn, macro_turn, micro_turn
from dualfocus_engine.results import Focused, Look, Mode, Selection, Turn
from dualfocus_engine.selection import select
from dualfocus_engine.starter import ensure_starter

if TYPE_CHECKING:
    from dualfocus_engine.prompts import Prompt
    from dualfocus_engine.vllm_engine import VllmEngine

logger = logging.getLogger(__name__)


class DualFocus:
    """Answers questions about pictures by two looks.

    `async with DualFocus("MODEL") as focus: result = await focus.ask("photo.jpg", "What does the sign say?")`

    `model` is a folder or a name on the model hub; None takes the model to start with. `profile` names one that
    ships or a file; None takes the model's own. `flags` are vLLM's engine arguments by their Python names
    (`max_model_len=4096`). Any number of questions may be asked at once: vLLM batches their turns.
    """

    def __init__(self, model: str | None = None, profile: str | None = None, **flags: Any) -> None:
        self.model = model or str(ensure_starter())
        self.profile: Profile = profile_of(self.model, profile)
        self._flags = flags
        self._engine: VllmEngine | None = None

    async def __aenter__(self) -> Self:
        """Start vLLM and run one question through all turns, so that the first real one is fast."""
        self.start()
        await self.warm_up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop vLLM."""
        self.engine.stop()

    def start(self) -> None:
        """Start vLLM, inside a running event loop; blocks until the model is loaded."""
        prepare_environment()
        from dualfocus_engine.vllm_engine import VllmEngine, engine_args

        self._engine = VllmEngine.start(engine_args(self.model, **self._flags), self.profile)

    @property
    def engine(self) -> "VllmEngine":
        """The running engine; RuntimeError before it is started."""
        if self._engine is None:
            raise RuntimeError("The engine is not running: use `async with DualFocus(...)`.")
        return self._engine

    async def ask(self, image: bytes | str | Path | Image.Image, question: str, mode: Mode = Mode.DUAL) -> Focused:
        """Answer one question about one image. Raises what `answer` does, and BadPicture."""
        return await self.answer(Question.about(image, question, mode))

    async def ask_many(self, questions: Iterable[Question]) -> list[Focused]:
        """Answer many questions at once, in the order they were asked. Raises what `answer` does."""
        return await _together(*(self.answer(question) for question in questions))

    async def answer(self, question: Question) -> Focused:
        """Run the turns that the question's mode asks for and choose between their answers.

        Whatever keeps the second look from an answer leaves the macro answer standing, and `selection` says why.
        Cancelling the call aborts all turns. Raises ContextFull where the macro prompt does not fit, EngineDead.
        """
        started = time.perf_counter()
        macro, look = await self._turns(question)
        winner, selection = select(macro, look)
        return Focused(winner, selection, macro, look, time.perf_counter() - started)

    async def warm_up(self) -> None:
        """Ask about a grey picture through all turns: vLLM compiles its helpers on first use (5 to 20 s)."""
        question = Question.about(Image.new("RGB", (64, 64), (128, 128, 128)), "What is this?")
        await self.answer(question)
        await self.answer(replace(question, mode=Mode.MICRO, box=Box(0.0, 0.0, 1.0, 1.0)))

    async def _turns(self, question: Question) -> tuple[Turn | None, Look]:
        if question.mode is Mode.MACRO:
            return await self._macro(question), Look()
        if question.mode is Mode.MICRO:
            look = await self._second_look(question)
            return (await self._macro(question) if look.failed else None), look
        # The second look goes first: the answer waits for it, and macro shares the image it computes.
        look, macro = await _together(self._second_look(question), self._macro(question))
        return macro, look

    async def _macro(self, question: Question) -> Turn:
        prompt = await self.engine.prompt(macro_turn(question, self.profile))
        return await self.engine.generate("macro", prompt, question.sampling or self.engine.answer_sampling())

    async def _second_look(self, question: Question) -> Look:
        """Ground, crop and answer again (Eq. 6); an error ends the look, never the question."""
        look = Look()
        try:
            conversation = grounding_turn(question, self.profile)
            prompt = await self.engine.prompt(conversation)
            look, reply = await self._locate(question, prompt)
            if look.region is None:
                return look
            micro = await self._micro(question, conversation, prompt, reply, look.region)
            return replace(look, micro=micro)
        except EngineDead:
            raise
        except ContextFull:
            return replace(look, failed=Selection.CONTEXT_FULL)
        except Exception:
            logger.exception("The second look failed; the macro answer stands.")
            return replace(look, failed=Selection.MICRO_FAILED)

    async def _locate(self, question: Question, prompt: "Prompt") -> tuple[Look, Sequence[int]]:
        """Return where to look, and the tokens of the grounding answer that the micro turn continues."""
        notation = self.profile.notation
        if question.box is not None:
            return self._look(question, question.box, None), self.engine.encode(notation.write(question.box))
        grounding = await self.engine.generate("grounding", prompt, self.engine.grounding_sampling())
        return self._look(question, notation.read(grounding.text), grounding), grounding.token_ids

    def _look(self, question: Question, box: Box | None, grounding: Turn | None) -> Look:
        if box is None:
            return Look(None, None, grounding, failed=Selection.NO_BOX)
        region = None if box.is_empty else crop_region(box, question.picture.size, self.profile.crop)
        return Look(box, region, grounding, failed=None if region else Selection.EMPTY_BOX)

    async def _micro(
        self,
        question: Question,
        conversation: Sequence[Message],
        prompt: "Prompt",
        reply: Sequence[int],
        region: Region,
    ) -> Turn:
        crop = await asyncio.to_thread(question.picture.crop, region)
        follow_up = await self.engine.continuation(conversation, micro_turn(question, crop, self.profile))
        sampling = question.sampling or self.engine.answer_sampling()
        return await self.engine.generate("micro", prompt.continued(reply, follow_up), sampling)


async def _together(*calls: Any) -> list[Any]:
    """Run calls at once; the first error cancels the rest and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
