"""Whether a view is enough: asked, told, and taken for an answer's sureness where the profile says so."""

import asyncio
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from dualfocus_engine.errors import EngineDead
from dualfocus_engine.families.profiles import EnoughCheck
from dualfocus_engine.method.questions import Question
from dualfocus_engine.method.results import Ending, FocusResult, Mode, Selection, Turn

from ..builders import asked, plain, turn
from ..fake_engine import WAIT, FakeEngine, Script, boxed, focus_on, never

QUESTION = Question((asked("What does the label say?", plain(size=(4000, 4000))),), enough=True)
HALF = boxed("[0.00, 0.00, 0.50, 0.50]")
# In nats a token: Eq. 7 makes 7.4 and 1.1 of them, the threshold is 2.01.
DOUBT, SURE = 2.0, 0.1


def _said(**likeliest: float) -> Turn:
    """A turn of one token, in which words have probabilities; tokens are characters here."""
    tops = {ord(word[0]): SimpleNamespace(logprob=math.log(share)) for word, share in likeliest.items()}
    return turn("Yes", token_ids=(ord("Y"),), logprobs=(-0.1,), top_logprobs=[tops])


def _engine(above: float | None = None, **script: Script) -> FakeEngine:
    views = {f"enough-{view}": _said(No=0.9, Yes=0.1) for view in ("macro", "micro", "micro-2", "micro-3")}
    answers = {name: turn(f"{name} answer", DOUBT) for name in ("macro", "micro", "micro-2", "micro-3")}
    deeper = {"grounding-2": HALF, "grounding-3": HALF}
    engine = FakeEngine(
        **{**views, **answers, **deeper, **{name.replace("_", "-"): step for name, step in script.items()}}
    )
    engine.profile = engine.profile.model_copy(update={"enough": EnoughCheck(above=above)})
    return engine


async def _answered(engine: FakeEngine, question: Question = QUESTION, **options: Any) -> FocusResult:
    async with asyncio.timeout(WAIT):
        return await focus_on(engine).answer(question, **options)


async def test_it_is_asked_behind_what_each_answer_saw() -> None:
    engine = _engine(enough_macro=_said(Yes=0.6, No=0.2), enough_micro=_said(Yes=0.2, no=0.1, No=0.1))
    result = await _answered(engine)
    assert result.enough is not None
    assert result.look.enough is not None
    assert (result.enough.share, result.look.enough.share) == (pytest.approx(0.75), pytest.approx(0.5))
    assert list(result.turns) == ["macro", "enough-macro", "grounding", "micro", "enough-micro"]
    wording = engine.profile.enough_text("What does the label say?")
    for name, seen in (("enough-macro", "macro"), ("enough-micro", "micro")):
        asked_about, answered = engine.prompts[name], engine.prompts[seen]
        assert "".join(map(chr, asked_about.token_ids)).endswith(f"user:#{wording};")
        assert [picture.key for picture in asked_about.pictures] == [picture.key for picture in answered.pictures]
        shared = "".join(map(chr, answered.token_ids)).rindex("#") + 1
        assert asked_about.token_ids[:shared] == answered.token_ids[:shared]


async def test_a_reply_in_which_neither_word_is_likely_says_nothing() -> None:
    result = await _answered(_engine(enough_macro=_said(maybe=0.9), enough_micro=turn(top_logprobs=[])))
    assert result.enough is not None
    assert result.look.enough is not None
    assert (result.enough.share, result.look.enough.share) == (None, None)


@pytest.mark.parametrize("mode", [Mode.DUAL, Mode.ADAPTIVE, Mode.SEARCH, Mode.REGIONS])
async def test_it_is_not_asked_unless_somebody_wants_it(mode: Mode) -> None:
    engine = _engine()
    await _answered(engine, replace(QUESTION, mode=mode, enough=False))
    assert not any(name.startswith("enough") for name in engine.started)


async def test_what_keeps_it_from_being_asked_leaves_the_answers() -> None:
    result = await _answered(_engine(enough_macro=RuntimeError("broken"), enough_micro=RuntimeError("broken")))
    assert (result.selection, result.enough, result.look.enough) == (Selection.LOWER_PERPLEXITY, None, None)
    with pytest.raises(EngineDead):
        await _answered(_engine(enough_micro=EngineDead()))


@pytest.mark.parametrize(
    ("above", "share", "options", "selection"),
    [
        (0.8, 0.9, {}, Selection.SKIPPED),
        (0.95, 0.9, {}, Selection.LOWER_PERPLEXITY),
        (None, 0.9, {}, Selection.LOWER_PERPLEXITY),
        (0.8, 0.9, {"skip_below": 1.5}, Selection.LOWER_PERPLEXITY),
    ],
)
async def test_adaptive_goes_by_it_where_the_profile_does(
    above: float | None, share: float, options: dict[str, float], selection: Selection
) -> None:
    engine = _engine(above, enough_macro=_said(Yes=share, No=1 - share), micro=turn("part", 1.9))
    result = await _answered(engine, replace(QUESTION, mode=Mode.ADAPTIVE, enough=False, **options))
    assert result.selection is selection
    assert "enough-micro" not in engine.started


async def test_adaptive_goes_by_perplexity_where_the_model_did_not_say() -> None:
    engine = _engine(0.8, enough_macro=_said(maybe=0.9), macro=turn("whole", SURE))
    assert (await _answered(engine, replace(QUESTION, mode=Mode.ADAPTIVE))).selection is Selection.SKIPPED
    engine = _engine(0.8, macro=turn("whole", SURE))
    result = await _answered(engine, replace(QUESTION, mode=Mode.ADAPTIVE))
    assert result.selection is Selection.LOWER_PERPLEXITY, "it said that it is not enough"


async def test_a_requests_threshold_for_its_search_goes_before_the_models_word_in_adaptive_mode_too() -> None:
    question = replace(QUESTION, mode=Mode.ADAPTIVE, candidates=3, enough=False)
    engine = _engine(0.8, enough_micro=_said(Yes=0.9, No=0.1), micro=turn("part", 1.9))
    assert (await _answered(engine, question)).ending is Ending.ENOUGH
    by_perplexity = await _answered(engine, replace(question, sure_below=1.05))
    assert by_perplexity.ending is not Ending.ENOUGH
    assert engine.started.count("enough-micro") == 1


async def test_an_answer_that_was_cut_is_none_however_enough_the_view() -> None:
    cut = turn("who", SURE, finish_reason="length")
    engine = _engine(0.8, enough_macro=_said(Yes=0.9, No=0.1), macro=cut)
    assert (await _answered(engine, replace(QUESTION, mode=Mode.ADAPTIVE))).selection is Selection.OTHER_CUT


async def test_a_search_ends_at_the_view_that_is_enough() -> None:
    engine = _engine(0.8, enough_micro_2=_said(Yes=0.9, No=0.1), micro=turn("sure", SURE))
    result = await _answered(engine, replace(QUESTION, mode=Mode.SEARCH))
    assert (result.ending, len(result.looks)) == (Ending.ENOUGH, 2)
    by_perplexity = await _answered(engine, replace(QUESTION, mode=Mode.SEARCH, sure_below=2.01))
    assert (by_perplexity.ending, len(by_perplexity.looks)) == (Ending.SURE, 1), "the request's own threshold"


async def test_macro_stands_at_the_deadline_also_where_the_view_is_still_judged() -> None:
    engine = _engine(0.8, enough_macro=never, grounding=never)
    now = asyncio.get_running_loop().time()
    result = await _answered(engine, replace(QUESTION, mode=Mode.ADAPTIVE), deadline=now)
    assert (result.text, result.selection) == ("macro answer", Selection.TIMED_OUT)
    assert set(engine.cancelled) <= {"enough-macro", "grounding"}
