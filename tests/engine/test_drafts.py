"""Drafted boxes on the real engine: fewer steps, the same tokens, and nothing else changed."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from dualfocus_engine import ConfigError, DualFocus, Question
from dualfocus_engine.backend.engine_core.ec_connector import ec_transfer_config
from dualfocus_engine.machine.platform import is_cpu_build
from dualfocus_engine.method.prompts import Prompt
from dualfocus_engine.method.questions import grounding_turn, macro_turn
from dualfocus_engine.method.results import Turn
from dualfocus_engine.method.turn_engine import TurnRequest
from dualfocus_training.models.untrained import ensure_untrained
from PIL import Image
from vllm import SamplingParams

BOXES = 200
# A box in the profile's notation, its closing token included.
BOX_LENGTH = 25
# On a GPU a token verified beside others is not summed up in the order in which it is alone: where two choices lie
# this close, another may win, in so many of BOXES at the most.
NEAR = 0.05
DIFFERING, EXACT = (0, 1e-5) if is_cpu_build() else (2, 1e-3)
Photo = Callable[[str], Image.Image]


@pytest.fixture(scope="module")
async def drafting(small_engine: dict[str, Any]) -> AsyncIterator[DualFocus]:
    """The model to start with, its boxes drafted."""
    async with DualFocus(str(ensure_untrained()), draft_boxes=True, **small_engine) as running:
        yield running


def plain(sampling: SamplingParams) -> SamplingParams:
    """The same sampling, of a request whose box is not drafted."""
    undrafted = sampling.clone()
    undrafted.extra_args = None
    return undrafted


async def box(focus: DualFocus, prompt: Prompt, sampling: SamplingParams) -> Turn:
    """Ask for a box with the log-probabilities of its tokens; the server asks without."""
    told = sampling.clone()
    told.logprobs = 0
    return await focus.engine.generate(TurnRequest("grounding", prompt, told, is_answer=False))


def chosen_apart(one: Turn, other: Turn) -> float:
    """How far the log-probabilities of the first two tokens that differ lie apart: behind the same text, both best."""
    pairs = zip(one.token_ids, other.token_ids, strict=False)
    place = next(place for place, (ours, theirs) in enumerate(pairs) if ours != theirs)
    return abs(one.logprobs[place] - other.logprobs[place])


async def test_a_drafted_box_is_the_one_that_would_have_been_spelled_out(drafting: DualFocus, photo: Photo) -> None:
    sampling, question = drafting.engine.grounding_sampling(), Question.about(photo("coffee"), "What?")
    seen, differing = set(), 0
    for number in range(BOXES):
        asked = grounding_turn(
            replace(question, grounding_question=f"What is number {number}?"), drafting.profile, pictures_first=True
        )
        prompt = await drafting.engine.prompt(asked)
        drafted, spelled = await box(drafting, prompt, sampling), await box(drafting, prompt, plain(sampling))
        if drafted.token_ids == spelled.token_ids:
            assert len(drafted.logprobs) == BOX_LENGTH
            assert drafted.logprobs == pytest.approx(spelled.logprobs, abs=EXACT)
        else:
            differing += 1
            assert chosen_apart(drafted, spelled) <= NEAR
        assert drafted.completion_tokens == BOX_LENGTH
        assert drafted.engine_steps is not None
        assert spelled.engine_steps is not None
        # With the prompt's own steps: one where the image is known.
        assert drafted.engine_steps <= 10
        assert spelled.engine_steps >= BOX_LENGTH
        seen.add(drafted.text)
    assert differing <= DIFFERING
    assert len(seen) > BOXES / 10, "boxes have to differ, or little was compared"


async def test_a_question_with_a_drafted_box_is_answered_as_without(
    drafting: DualFocus, focus: DualFocus, photo: Photo
) -> None:
    for name in ("astronaut", "rocket"):
        drafted, spelled = await drafting.ask(photo(name), "What is it?"), await focus.ask(photo(name), "What is it?")
        assert drafted.look.box == spelled.look.box
        assert [turn.token_ids for turn in drafted.turns.values()] == [
            turn.token_ids for turn in spelled.turns.values()
        ]


@pytest.mark.parametrize("hot", [{"temperature": 0.7}, {"temperature": 1.3, "top_p": 0.9, "top_k": 50}])
async def test_sampled_answers_beside_a_drafted_box_stay_what_they_are(
    drafting: DualFocus, photo: Photo, hot: dict[str, float]
) -> None:
    engine = drafting.engine
    for number in range(10):
        question = Question.about(photo("chelsea"), f"What is number {number}?")
        grounding = await engine.prompt(grounding_turn(question, drafting.profile, pictures_first=True))
        macro = await engine.prompt(macro_turn(question))
        sampling = SamplingParams(seed=number, max_tokens=30, **hot)
        alone = (
            await engine.generate(TurnRequest("macro", macro, sampling)),
            await box(drafting, grounding, plain(engine.grounding_sampling())),
        )
        beside = await asyncio.gather(
            engine.generate(TurnRequest("macro", macro, sampling)),
            box(drafting, grounding, engine.grounding_sampling()),
        )
        assert [turn.token_ids for turn in beside] == [turn.token_ids for turn in alone]
        assert beside[1].engine_steps <= 11


async def test_a_request_that_only_looks_like_one_is_not_drafted(drafting: DualFocus, photo: Photo) -> None:
    """A client may run the turns itself, and sample its boxes."""
    question = Question.about(photo("camera"), "What is it?")
    prompt = await drafting.engine.prompt(grounding_turn(question, drafting.profile, pictures_first=True))
    sampling = plain(drafting.engine.grounding_sampling())
    sampling.temperature, sampling.seed = 1.0, 7
    alone = await box(drafting, prompt, sampling)
    beside, _ = await asyncio.gather(
        box(drafting, prompt, sampling), box(drafting, prompt, drafting.engine.grounding_sampling())
    )
    assert beside.token_ids == alone.token_ids


async def test_boxes_are_drafted_only_where_asked(focus: DualFocus, drafting: DualFocus) -> None:
    assert focus.engine.grounding_sampling().extra_args is None
    told = drafting.engine.grounding_sampling().extra_args
    assert told is not None
    assert [len(box) for box in told.values()] == [BOX_LENGTH]


async def test_what_a_client_writes_beside_it_drafts_nothing(drafting: DualFocus, photo: Photo) -> None:
    """Whatever key it guesses, in one engine's time or another's: `extra_args` is what `vllm_xargs` becomes."""
    (key,) = drafting.engine.grounding_sampling().extra_args or {}
    guesses = (
        "dualfocus_box",
        "box_key",
        key[:-1],
        ec_transfer_config(draft_boxes=True)["ec_connector_extra_config"]["box_key"],
    )
    prompt = await drafting.engine.prompt(
        grounding_turn(Question.about(photo("camera"), "What?"), drafting.profile, pictures_first=True)
    )
    for guess, value in itertools.product(guesses, (1.5, "x", [], ["x"], [2**63], [[1]], {"a": 1})):
        sampling = plain(drafting.engine.grounding_sampling())
        sampling.extra_args = {guess: value}
        assert (await box(drafting, prompt, sampling)).engine_steps >= BOX_LENGTH


@pytest.mark.parametrize(
    ("flag", "value"),
    [("speculative_config", {"method": "ngram"}), ("ec_transfer_config", {}), ("pipeline_parallel_size", 2)],
)
def test_a_flag_that_keeps_boxes_from_being_drafted_is_refused_beside_it(flag: str, value: Any) -> None:
    focus = DualFocus(str(ensure_untrained()), draft_boxes=True, **{flag: value})
    with pytest.raises(ConfigError, match=f"--{flag.replace('_', '-')}"):
        focus.start()
