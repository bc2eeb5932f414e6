"""`Mode.SEARCH`: looks deeper where the answers leave doubt, until one is sure enough."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.method.questions import Question
from dualfocus_engine.method.results import Ending, Scoring, SecondLook, Turn
from dualfocus_engine.method.turn_runner import TurnRunner

if TYPE_CHECKING:
    from vllm import SamplingParams

_NO_DEEPER = "The search ended with the second look, as mode dual does: {why}."


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
    return _NO_DEEPER.format(why=why)


async def search(
    runner: TurnRunner, question: Question, profile: Profile, macro: Turn, look: SecondLook, deadline: float | None
) -> Searched:
    """Go on from the first two looks until an answer is sure, or there is nothing further to see.

    What is finished by `deadline` stands. Raises EngineDead.
    """
    looks = [look]
    try:
        async with asyncio.timeout_at(deadline):
            while (ending := _ending(runner, question, profile, macro, looks)) is None:
                looks.append(await runner.look_deeper(len(looks) + 1, behind=len(looks)))
    except TimeoutError:
        ending = Ending.TIMED_OUT
    return Searched(tuple(looks), ending)


def _ending(
    runner: TurnRunner, question: Question, profile: Profile, macro: Turn, looks: Sequence[SecondLook]
) -> Ending | None:
    """Say why there is no further look; None where there is one."""
    if macro.tool_calls:
        return Ending.TOOL_CALL
    answers = [macro, *(look.micro for look in looks if look.micro is not None)]
    if any(answer.is_more_confident_than(_sure_below(question, profile)) for answer in answers):
        return Ending.SURE
    if looks[-1].failed is not None:
        return Ending.LOOK_FAILED
    if 1 + len(looks) >= (question.max_looks or profile.max_looks):
        return Ending.MAX_LOOKS
    return Ending.ALL_SHOWN if runner.shows_all(len(looks)) else None


def _sure_below(question: Question, profile: Profile) -> float:
    asked = (question.sure_below, profile.sure_below_perplexity, profile.skip_below_perplexity)
    return next(threshold for threshold in asked if threshold is not None)


def _doubt(look: SecondLook) -> tuple[bool, ...] | tuple[bool, bool, bool, float]:
    """Return what the looks are ranked by; of equal ones the first is the best."""
    if look.failed is not None or look.micro is None:
        return (True,)
    return (False, look.micro.is_empty, look.micro.is_unfinished, look.micro.mean_nll)
