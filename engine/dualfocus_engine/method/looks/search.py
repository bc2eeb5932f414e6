"""What is looked at where two answers leave doubt, until one is sure: other places, and parts of what was enlarged."""

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.method.looks.enough import ends_search, is_enough
from dualfocus_engine.method.questions import Question
from dualfocus_engine.method.results import Ending, Mode, Scoring, SecondLook, Turn
from dualfocus_engine.method.turn_runner import TurnRunner

if TYPE_CHECKING:
    from vllm import SamplingParams

_NO_FURTHER = "The search ended with the second look, as mode dual does: {why}."


class Searched(NamedTuple):
    """The looks behind the first, in order, and why there was no further one."""

    looks: tuple[SecondLook, ...]
    ending: Ending

    @property
    def best(self) -> SecondLook:
        """The look whose answer is compared with macro's: whole before cut, then the least perplexity (Eq. 8)."""
        return min(self.looks, key=_doubt)


def why_no_search(question: Question, sampling: "SamplingParams", profile: Profile) -> str | None:
    """Say what keeps a question from more than two looks; None where nothing does."""
    if sampling.n > 1:
        why = "several answers were asked for (n)"
    elif question.scoring is not Scoring.OWN:
        why = "other scoring than each answer's own compares two"
    elif profile.crop_alone:
        why = "the model takes one picture a prompt"
    elif profile.crop_in_picture:
        why = "the crop is a patch of its picture, which takes one"
    elif not profile.grounds:
        why = "the model can't say where something is"
    else:
        return None
    return _NO_FURTHER.format(why=why)


async def search(
    runner: TurnRunner, question: Question, profile: Profile, macro: Turn, look: SecondLook, deadline: float | None
) -> Searched:
    """Go on from the first two looks until an answer is sure, or there is nothing further to see.

    Other places come first, where several boxes may be drawn; then, in `Mode.SEARCH`, parts of the best one.
    What is finished by `deadline` stands. Raises EngineDead.
    """
    going_on = _Search(runner, question, profile, macro, look)
    try:
        async with asyncio.timeout_at(deadline):
            ending = await going_on.run()
    except TimeoutError:
        ending = Ending.TIMED_OUT
    return Searched(tuple(going_on.looks), ending)


class _Search:
    """The looks behind the first as they are taken; `looks` holds those that have ended also where it is cut short."""

    def __init__(self, runner: TurnRunner, question: Question, profile: Profile, macro: Turn, look: SecondLook) -> None:
        self._runner = runner
        self._question = question
        self._macro = macro
        self._check = profile.enough
        self._sure_below = _sure_below(question, profile)
        self._max_looks = question.max_looks or profile.max_looks
        self.looks = [look]

    async def run(self) -> Ending:
        ending = self._ended()
        if ending is None and self._question.candidates > 1 and self._runner.draws_boxes:
            await self._runner.look_elsewhere(self.looks, self._boxes)
            ending = self._ended()
        if ending is None and self._question.mode is not Mode.SEARCH:
            ending = Ending.NO_OTHER_PLACE
        behind = 1 + self.looks.index(min(self.looks, key=_doubt))
        while ending is None:
            ending = self._ended_behind(behind)
            if ending is None:
                self.looks.append(await self._runner.look_deeper(len(self.looks) + 1, behind))
                behind = len(self.looks)
                ending = self._ended()
        return ending

    @property
    def _boxes(self) -> int:
        """Other boxes to draw: a search takes no more looks than it may."""
        more = self._question.candidates - 1
        return min(more, self._max_looks - 2) if self._question.mode is Mode.SEARCH else more

    @property
    def _answers(self) -> list[Turn]:
        return [self._macro, *(look.micro for look in self.looks if look.micro is not None)]

    def _ended(self) -> Ending | None:
        """Say what ends it whatever else there is to see."""
        if self._macro.tool_calls:
            return Ending.TOOL_CALL
        if (ending := self._settled()) is not None:
            return ending
        return Ending.LOOK_FAILED if all(look.failed is not None for look in self.looks) else None

    def _settled(self) -> Ending | None:
        """Say what leaves no doubt: that a view is enough, where the profile goes by that, else a perplexity."""
        if ends_search(self._question, self._check):
            views = [self._runner.enough, *(look.enough for look in self.looks)]
            if (told := is_enough(views, self._check)) is not None:
                return Ending.ENOUGH if told else None
        is_sure = any(answer.is_more_confident_than(self._sure_below) for answer in self._answers)
        return Ending.SURE if is_sure else None

    def _ended_behind(self, number: int) -> Ending | None:
        """Say why there is no look into a look's crop."""
        if self.looks[number - 1].failed is not None:
            return Ending.LOOK_FAILED
        if len(self._answers) >= self._max_looks:
            return Ending.MAX_LOOKS
        return Ending.ALL_SHOWN if self._runner.shows_all(number) else None


def _sure_below(question: Question, profile: Profile) -> float:
    asked = (question.sure_below, profile.sure_below_perplexity, profile.skip_below_perplexity)
    return next(threshold for threshold in asked if threshold is not None)


def _doubt(look: SecondLook) -> tuple[bool, ...] | tuple[bool, bool, bool, bool, float]:
    """Return what the looks are ranked by; of equal ones the first is the best."""
    if look.failed is not None or look.micro is None:
        return (True,)
    return (False, look.micro.is_empty, look.micro.is_unfinished, look.micro.is_masked, look.micro.mean_nll)
