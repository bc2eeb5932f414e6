"""The method: macro beside grounding, micro from the cached prefix, the less surprising answer (Figure 6)."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from dualfocus_engine.errors import BadQuestion
from dualfocus_engine.families.boxes import Box
from dualfocus_engine.families.profiles import Profile, profile_of
from dualfocus_engine.machine.platform import prepare_environment
from dualfocus_engine.machine.pool import in_thread
from dualfocus_engine.method.looks import Looks, Watcher
from dualfocus_engine.method.questions import Message, Question
from dualfocus_engine.method.results import Focused, Look, Mode, Scoring, Selection, Turn
from dualfocus_engine.method.selection import only_choice, select
from dualfocus_engine.method.tasks import one_error
from dualfocus_engine.pictures.pictures import Picture, open_picture
from dualfocus_engine.shipped import SHIPPED_MODEL

if TYPE_CHECKING:
    from dualfocus_engine.backend.vllm_engine import VllmEngine

_NO_SECOND_LOOK = (
    "The micro turn can't be run with this model and these flags ({reason}; what failed stands above). It needs two "
    "images in a prompt (--limit-mm-per-prompt '{{\"image\": 2}}' or more), a context that holds both and an answer "
    "(--max-model-len), and a chat template that shows earlier answers (--chat-template)."
)


class DualFocus:
    """Answers questions about pictures by two looks.

    `async with DualFocus("MODEL") as focus: result = await focus.ask("photo.jpg", "What does the sign say?")`

    `model` is a folder or a name on the model hub; None takes the one that ships. `profile` is one, or names one
    that ships or a file; None takes the model's own (`profile_of`). `flags` are vLLM's engine arguments by their Python
    names (`max_model_len=4096`), and `draft_boxes`: whether what every box holds is drafted (docs/performance.md).
    Any number of questions may be asked at once: vLLM batches their turns.
    """

    def __init__(self, model: str | None = None, profile: Profile | str | None = None, **flags: Any) -> None:
        self.model = model or str(SHIPPED_MODEL)
        self.profile = profile if isinstance(profile, Profile) else profile_of(self.model, profile)
        self._flags = flags
        self._engine: VllmEngine | None = None

    async def __aenter__(self) -> Self:
        """Start vLLM and run one question through all turns, so that the first real one is fast.

        Raises BadQuestion where the model can't be served so; nothing is left running then.
        """
        self.start()
        try:
            await self.warm_up()
        except BaseException:
            self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop vLLM."""
        self.stop()

    def start(self) -> None:
        """Start vLLM, inside a running event loop; blocks until the model is loaded."""
        prepare_environment()
        from dualfocus_engine.backend.launch import engine_args
        from dualfocus_engine.backend.vllm_engine import VllmEngine

        self._engine = VllmEngine.start(engine_args(self.model, **self._flags), self.profile)

    def stop(self) -> None:
        """Stop vLLM and its processes."""
        self.engine.stop()
        # Let go: vLLM's own destructor fails where it first runs as the interpreter ends.
        self._engine = None

    @property
    def engine(self) -> "VllmEngine":
        """The running engine; RuntimeError before it is started."""
        if self._engine is None:
            raise RuntimeError("The engine is not running: use `async with DualFocus(...)`.")
        return self._engine

    async def ask(self, image: bytes | str | Path | Image.Image, question: str, mode: Mode = Mode.DUAL) -> Focused:
        """Answer one question about one image. Raises what `answer` does, and BadPicture."""
        picture = await in_thread(self.engine.pictures.open, image)
        return await self.answer(Question((Message("user", question, (picture,)),), mode))

    async def ask_many(self, questions: Iterable[Question]) -> list[Focused]:
        """Answer many questions at once, in the order they were asked. Raises what `answer` does."""
        with one_error():
            async with asyncio.TaskGroup() as group:
                answers = [group.create_task(self.answer(question)) for question in questions]
        return [answer.result() for answer in answers]

    async def answer(self, question: Question, watcher: Watcher | None = None) -> Focused:
        """Run the turns that the question's mode asks for and choose between their answers.

        Whatever keeps the second look from an answer leaves the macro answer standing, and `selection` says why.
        Cancelling the call aborts all turns. Raises ContextFull where the macro prompt does not fit, EngineDead.
        """
        started = time.perf_counter()
        looks = Looks(self.engine, question, watcher)
        macro, look = await self._turns(looks, question, watcher)
        shared = None
        with looks.stages.time("select"):
            if question.scoring is Scoring.SHARED and only_choice(macro, look, question.options) is None:
                shared = await looks.shared(macro, look.micro)
            winner, selection = select(macro, look, shared, question.options)
        return Focused(winner, selection, macro, look, time.perf_counter() - started, shared, looks.stages)

    async def warm_up(self) -> None:
        """Ask about a grey picture through all turns: vLLM compiles its helpers on first use (5 to 20 s).

        Every data-parallel rank is asked, about a picture of its own.
        Raises BadQuestion where the micro turn fails even here: then every question's would.
        """
        greys = [open_picture(Image.new("RGB", (64, 64), (shade,) * 3)) for shade in range(1, 129)]
        for picture in {self.engine.rank(grey): grey for grey in greys}.values():
            await self._warm_up_with(picture)

    async def _warm_up_with(self, picture: Picture) -> None:
        question = Question((Message("user", "What is this?", (picture,)),))
        await self.answer(question)
        result = await self.answer(replace(question, mode=Mode.MICRO, box=Box(0.0, 0.0, 1.0, 1.0)))
        if result.look.failed is not None:
            raise BadQuestion(_NO_SECOND_LOOK.format(reason=result.look.failed.value))

    async def _turns(self, looks: Looks, question: Question, watcher: Watcher | None) -> tuple[Turn | None, Look]:
        if question.mode is Mode.MACRO:
            return await looks.first(watcher.writes if watcher else None), Look()
        if question.mode is Mode.MICRO:
            look = await looks.second()
            return (await looks.first() if look.failed else None), look
        with one_error():
            async with asyncio.TaskGroup() as group:
                # The second look goes first: the answer waits for it, and macro shares the image it computes.
                second = group.create_task(looks.second())
                first = await group.create_task(looks.first())
                if question.mode is Mode.ADAPTIVE and first.is_surer_than(self.profile.skip_below):
                    second.cancel()
        return first, Look(failed=Selection.SKIPPED) if second.cancelled() else second.result()
