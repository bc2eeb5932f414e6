"""Whether what a model was shown is enough to answer, from one step's log-probabilities behind the cached view."""

import math
from collections.abc import Iterable

from dualfocus_engine.families.profiles import EnoughCheck
from dualfocus_engine.method.prompts import Prompt
from dualfocus_engine.method.questions import Question
from dualfocus_engine.method.results import Mode, Turn, Verdict
from dualfocus_engine.method.turn_engine import TurnEngine, TurnRequest


def skips(question: Question, check: EnoughCheck) -> bool:
    """Whether the model's word that a picture is enough skips the second look: a request's threshold goes first."""
    return check.above is not None and question.mode is Mode.ADAPTIVE and question.skip_below is None


def ends_search(question: Question, check: EnoughCheck) -> bool:
    """Whether the model's word that a view is enough ends a search: a request's threshold goes first."""
    return check.above is not None and question.sure_below is None and goes_on(question)


def goes_on(question: Question) -> bool:
    """Whether there may be more than two looks."""
    return question.mode is Mode.SEARCH or question.candidates > 1


def is_enough(verdicts: Iterable[Verdict | None], check: EnoughCheck) -> bool | None:
    """Return whether one of some views is enough; None where the model said of none."""
    shares = [said.share for said in verdicts if said is not None and said.share is not None]
    return any(share >= (check.above or 0.0) for share in shares) if shares else None


async def verdict(engine: TurnEngine, name: str, prompt: Prompt) -> Verdict:
    """Return p(yes) against p(no) of what continues a prompt. Raises ContextFull, EngineDead."""
    turn = await engine.generate(TurnRequest(name, prompt, engine.verdict_sampling(), is_answer=False))
    return Verdict(_share(engine, engine.profile.enough, turn), turn)


def _share(engine: TurnEngine, check: EnoughCheck, turn: Turn) -> float | None:
    if not turn.top_logprobs:
        return None
    likeliest = {token: math.exp(choice.logprob) for token, choice in turn.top_logprobs[0].items()}
    yes, no = (
        math.fsum(likeliest.get(token, 0.0) for token in _first_tokens(engine, words))
        for words in (check.yes, check.no)
    )
    return yes / (yes + no) if yes + no > 0 else None


def _first_tokens(engine: TurnEngine, words: Iterable[str]) -> set[int]:
    return {tokens[0] for word in words if (tokens := engine.encode(word))}
