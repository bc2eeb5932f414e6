"""The method: macro beside grounding, micro from the cached prefix, the answer of lower perplexity.

Figure 6 of "DualFocus: Integrating Macro and Micro Perspectives in Multi-modal Large Language Models"
(https://arxiv.org/abs/2402.14767). Equations, figures, tables and appendices that this project names are that paper's;
"the released code" is what its authors published beside it.
"""

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from PIL import Image

from dualfocus_engine.errors import ConfigError, EngineDead
from dualfocus_engine.families.boxes import Box
from dualfocus_engine.families.choosing import profile_of
from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.grounders.grounder import BoundedGrounder, Grounder
from dualfocus_engine.machine.platform import prepare_environment
from dualfocus_engine.machine.pool import run_in_image_pool
from dualfocus_engine.method.looks.enough import goes_on, is_enough, skips
from dualfocus_engine.method.looks.search import Searched, search, why_no_search
from dualfocus_engine.method.questions import Message, Question
from dualfocus_engine.method.results import (
    FocusResult,
    Mode,
    Scoring,
    SecondLook,
    Selection,
    Shared,
    Turn,
    Verdict,
)
from dualfocus_engine.method.selection import Choice, lower_loss, lower_perplexity, only_choice
from dualfocus_engine.method.showing import show_pictures
from dualfocus_engine.method.tasks import unwrap_exception_group
from dualfocus_engine.method.turn_runner import TurnListener, TurnRunner
from dualfocus_engine.pictures.pictures import Picture, open_picture
from dualfocus_engine.shipped import SHIPPED_MODEL

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from dualfocus_engine.backend.launch import EngineClient, SharedEngine
    from dualfocus_engine.backend.vllm_engine import VllmEngine

logger = logging.getLogger(__name__)

_NO_SECOND_LOOK = (
    "The micro turn can't be run with this model and these flags ({reason}; what failed stands above). It needs two "
    "images in a prompt (--limit-mm-per-prompt '{{\"image\": 2}}' or more), a context that holds both and an answer "
    "(--max-model-len), and a chat template that shows earlier answers (--chat-template)."
)
_Pair: TypeAlias = tuple[Turn | None, SecondLook]
_WARM_UP_TOKENS = 8
# A part that any family's views enlarge.
_WARM_UP_SIZE, _WARM_UP_BOX = (256, 256), Box(0.4, 0.4, 0.6, 0.6)


class DualFocus:
    """Answers questions about pictures by two looks.

    `async with DualFocus("MODEL") as focus: result = await focus.ask("photo.jpg", "What does the sign say?")`

    `model` is a folder or a name on the model hub; None takes the one that ships. `profile` is one, or names one
    that ships or a file; None takes the model's own (`profile_of`). `flags` are vLLM's engine arguments by their Python
    names (`max_model_len=4096`), and `draft_boxes`: whether what every box holds is drafted (docs/performance.md).
    `grounder` says where to look in the place of the model, in `grounder_timeout` seconds (None: no limit); where it is
    an async context manager, the caller enters and leaves it.
    Any number of questions may be asked at once: vLLM batches their turns.
    """

    def __init__(
        self,
        model: str | None = None,
        profile: Profile | str | None = None,
        *,
        grounder: Grounder | None = None,
        grounder_timeout: float | None = 30.0,
        **flags: Any,
    ) -> None:
        self.model = model or str(SHIPPED_MODEL)
        where = flags.get("revision"), flags.get("hf_token")
        self.profile = profile if isinstance(profile, Profile) else profile_of(self.model, profile, *where)
        self._grounder = BoundedGrounder(grounder, grounder_timeout) if grounder is not None else None
        self._flags = flags
        self._engine: VllmEngine | None = None

    async def __aenter__(self) -> Self:
        """Start vLLM and run one question through all turns, so that the first real one is fast.

        Raises ConfigError where the model can't be served so; nothing is left running then.
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

    def start(self, client: "EngineClient | None" = None) -> None:
        """Start vLLM, inside a running event loop; blocks until the model is loaded.

        With `client`, an engine that another process has started is asked (`start_shared`).
        """
        prepare_environment()
        from dualfocus_engine.backend.launch import engine_args
        from dualfocus_engine.backend.vllm_engine import VllmEngine

        args = client.args if client else engine_args(self.model, **self._flags)
        self._engine = VllmEngine.start(args, self.profile, client)

    def start_shared(self, count: int, start: "Callable[[EngineClient], BaseProcess]") -> "SharedEngine":
        """Start an engine for `count` processes, which `start` starts; raises what `launch_shared` does."""
        prepare_environment()
        from dualfocus_engine.backend.launch import engine_args, launch_shared

        return launch_shared(engine_args(self.model, **self._flags), self.profile, count, start)

    def with_profile(self, profile: Profile) -> "DualFocus":
        """Return the method in another profile's words, on the same running engine: for an adapter trained in them.

        Raises ConfigError where its pictures are padded or resized otherwise.
        """
        other = copy(self)
        other.profile, other._engine = profile, self.engine.with_profile(profile)
        return other

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

    async def ask(self, image: bytes | str | Path | Image.Image, question: str, mode: Mode = Mode.DUAL) -> FocusResult:
        """Answer one question about one image. Raises what `answer` does, and BadPicture."""
        picture = await run_in_image_pool(self.engine.pictures.open, image)
        return await self.answer(Question((Message("user", question, (picture,)),), mode))

    async def ask_many(self, questions: Iterable[Question]) -> list[FocusResult]:
        """Answer many questions at once, in the order they were asked. Raises what `answer` does."""
        with unwrap_exception_group():
            async with asyncio.TaskGroup() as group:
                answers = [group.create_task(self.answer(question)) for question in questions]
        return [answer.result() for answer in answers]

    async def answer(
        self, question: Question, listener: TurnListener | None = None, deadline: float | None = None
    ) -> FocusResult:
        """Answer a question once. Raises what `answers` does."""
        return (await self.answers(question, listener, deadline))[0]

    async def answers(
        self, question: Question, listener: TurnListener | None = None, deadline: float | None = None
    ) -> tuple[FocusResult, ...]:
        """Run the turns that the question's mode asks for and choose between their answers.

        As many answers are drawn as the sampling's `n`: all from one box, the i-th between the i-th of macro and micro.
        Whatever keeps the second look from an answer leaves the macro answer standing, and `selection` says why; once
        macro has answered, so does `deadline` (the event loop's time).
        Cancelling the call aborts all turns. Raises ContextFull where the macro prompt does not fit, EngineDead.
        """
        started = time.perf_counter()
        question, notes = await show_pictures(self.engine, question)
        runner = TurnRunner(self.engine, question, listener, self._grounder)
        pairs = await self._run_turns(runner, question, listener, deadline)
        searched = None
        if goes_on(question):
            if (why_none := self._why_no_search(question)) is not None:
                notes = (*notes, why_none)
            else:
                searched = await self._search(runner, question, pairs, deadline)
                pairs = [(macro, searched.best) for macro, _ in pairs]
        with runner.stages.time("select"):
            chosen = await asyncio.gather(*(self._choose(runner, question, *pair, deadline) for pair in pairs))
        seconds = time.perf_counter() - started
        looks, ending = searched or ((), None)
        return tuple(
            FocusResult(*choice, *pair, seconds, shared, runner.stages, notes, looks, ending, runner.enough)
            for pair, (choice, shared) in zip(pairs, chosen, strict=True)
        )

    def _why_no_search(self, question: Question) -> str | None:
        return why_no_search(question, question.sampling or self.engine.answer_sampling(), self.profile)

    async def _search(
        self, runner: TurnRunner, question: Question, pairs: Sequence[_Pair], deadline: float | None
    ) -> Searched:
        ((macro, look),) = pairs
        assert macro is not None
        return await search(runner, question, self.profile, macro, look, deadline)

    async def _choose(
        self, runner: TurnRunner, question: Question, macro: Turn | None, look: SecondLook, deadline: float | None
    ) -> tuple[Choice, Shared | None]:
        """Choose an answer; where scoring both under one prompt takes until the deadline, macro's stands."""
        choice = only_choice(macro, look, question.options, question.scoring)
        if choice is not None:
            return choice, None
        assert macro is not None
        assert look.micro is not None
        if question.scoring is Scoring.OWN:
            return lower_perplexity(macro, look.micro), None
        try:
            async with asyncio.timeout_at(deadline):
                shared = await runner.score_both(macro, look.micro)
        except TimeoutError:
            return ("macro", Selection.TIMED_OUT), None
        except EngineDead:
            raise
        except Exception:
            logger.exception("Both answers could not be scored under one prompt; they are chosen from without.")
            shared = None
        if question.scoring is Scoring.RELEASED:
            return lower_loss(shared), shared
        if shared is None:
            return only_choice(macro, look, question.options) or lower_perplexity(macro, look.micro), None
        return lower_perplexity(*shared), shared

    async def warm_up(self) -> None:
        """Ask about a plain picture through all turns: vLLM compiles its helpers on first use (5 to 20 s).

        Every data-parallel rank is asked, about a picture of its own.
        Raises ConfigError where the micro turn fails even here: then every question's would.
        """
        for picture in self._picture_of_each_rank():
            await self._warm_up_with(picture)

    def _picture_of_each_rank(self) -> Iterable[Picture]:
        by_rank: dict[int, Picture] = {}
        for shade in itertools.count(1):
            colour = (shade % 128, shade // 128 % 256, 0)
            picture = open_picture(Image.new("RGB", _WARM_UP_SIZE, colour))
            by_rank.setdefault(self.engine.rank(picture), picture)
            if len(by_rank) == self.engine.ranks:
                break
        return by_rank.values()

    async def _warm_up_with(self, picture: Picture) -> None:
        # What is compiled for one answer is compiled for all: a model that never ends one is not waited for.
        sampling = self.engine.answer_sampling()
        sampling.max_tokens = _WARM_UP_TOKENS
        question = Question((Message("user", "What is this?", (picture,)),), sampling=sampling)
        await self.answer(question)
        result = await self.answer(replace(question, mode=Mode.MICRO, box=_WARM_UP_BOX))
        if result.look.failed is not None:
            raise ConfigError(_NO_SECOND_LOOK.format(reason=result.look.failed.value))

    def _is_enough(self, macro: Turn, question: Question, whole: Verdict | None) -> Selection | None:
        if macro.tool_calls:
            return Selection.TOOL_CALL
        skips = question.mode is Mode.ADAPTIVE and self._is_sure(macro, question, whole)
        return Selection.SKIPPED if skips else None

    def _is_sure(self, macro: Turn, question: Question, whole: Verdict | None) -> bool:
        """Whether a macro answer may stand: the profile goes by perplexity, or by whether the picture is enough."""
        if skips(question, self.profile.enough) and (told := is_enough([whole], self.profile.enough)) is not None:
            return told and macro.is_more_confident_than(math.inf)
        threshold = self.profile.skip_below_perplexity if question.skip_below is None else question.skip_below
        return macro.is_more_confident_than(threshold)

    async def _run_turns(
        self, runner: TurnRunner, question: Question, listener: TurnListener | None, deadline: float | None
    ) -> list[_Pair]:
        if question.mode is Mode.MACRO:
            return [(macro, SecondLook()) for macro in await runner.run_macro(listener.on_text if listener else None)]
        if (obstacle := runner.why_no_second_look()) is not None:
            return [(macro, SecondLook(failed=obstacle)) for macro in await runner.run_macro()]
        if question.mode is Mode.MICRO:
            looks = await runner.run_second_look()
            if not any(look.failed for look in looks):
                return [(None, look) for look in looks]
            macros = await runner.run_macro()
            return [(macro if look.failed else None, look) for macro, look in zip(macros, looks, strict=True)]
        return await self._run_both(runner, question, deadline)

    async def _run_both(self, runner: TurnRunner, question: Question, deadline: float | None) -> list[_Pair]:
        """Run both looks side by side; the second ends where macro answers need none, or at `deadline`."""
        with unwrap_exception_group():
            async with asyncio.TaskGroup() as group:
                # The second look goes first: the answer waits for it, and macro shares the image it computes.
                second_look = group.create_task(runner.run_second_look())
                asking = [group.create_task(runner.ask_of_whole())] if runner.asks_of_whole else []
                answers = await group.create_task(runner.run_macro())
                for judging in asking:
                    await _is_late(judging, deadline, 1)
                    judging.cancel()
                ended = self._are_enough(answers, question, runner.enough)
                ended = ended or await _is_late(second_look, deadline, len(answers))
                if ended:
                    second_look.cancel()
        if ended and second_look.cancelled():
            return [(macro, SecondLook(failed=why)) for macro, why in zip(answers, ended, strict=True)]
        return list(zip(answers, second_look.result(), strict=True))

    def _are_enough(self, macros: Sequence[Turn], question: Question, whole: Verdict | None) -> list[Selection]:
        """Say why each macro answer needs no second one; nothing where one of them does."""
        reasons = [self._is_enough(macro, question, whole) for macro in macros]
        named = [reason for reason in reasons if reason is not None]
        return named if len(named) == len(reasons) else []


async def _is_late(task: "asyncio.Task[Any]", deadline: float | None, answers: int) -> list[Selection]:
    """Wait for the second look, say, until `deadline`; say so of each answer where it has not ended by then."""
    left = None if deadline is None else max(deadline - asyncio.get_running_loop().time(), 0.0)
    done, _ = await asyncio.wait({task}, timeout=left)
    return [] if done else [Selection.TIMED_OUT] * answers
