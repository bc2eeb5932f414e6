"""Several places in one second look; on a scripted engine."""

import asyncio
from dataclasses import replace

import pytest
from dualfocus_engine.families.boxes import Box, Region
from dualfocus_engine.families.profiles import Crops, load_profile
from dualfocus_engine.families.views import Grid, View, Views
from dualfocus_engine.method.questions import Question
from dualfocus_engine.method.results import FocusResult, LookedAt, Mode, Scoring, Selection

from ..builders import asked, plain, turn
from ..fake_engine import WAIT, FakeEngine, boxed, focus_on

IMAGE = plain(size=(1000, 1000))
QUESTION = Question((asked("Which is larger?", IMAGE),), Mode.REGIONS)
TWO = '[{"bbox_2d": [100, 100, 200, 200]}, {"bbox_2d": [700, 700, 900, 900]}]'
# Qwen3-VL's profile widens boxes by a tenth of the picture on every side.
FIRST, SECOND = Region(0, 0, 300, 300), Region(600, 600, 1000, 1000)


def _engine(profile: str = "qwen3-vl", wrote: str = TWO, views: Views | None = None) -> FakeEngine:
    engine = FakeEngine(grounding=boxed(wrote))
    engine.profile, engine.views = load_profile(profile), views
    return engine


async def _answered(engine: FakeEngine, question: Question = QUESTION) -> FocusResult:
    async with asyncio.timeout(WAIT):
        return await focus_on(engine).answer(question)


async def test_each_place_is_a_crop_of_its_own_in_one_micro_turn() -> None:
    engine = _engine()
    engine.script["micro"] = turn("micro answer", 0.5, picture_tokens=(900, 100, 200))
    result = await _answered(engine)
    assert (result.winner, set(engine.finished)) == ("micro", {"macro", "grounding", "micro"})
    assert [picture.region for picture in engine.prompts["micro"].pictures] == [None, FIRST, SECOND]
    boxes = Box(0.1, 0.1, 0.2, 0.2), Box(0.7, 0.7, 0.9, 0.9)
    assert result.look.regions == (LookedAt(boxes[0], FIRST, 100), LookedAt(boxes[1], SECOND, 200))
    assert (result.look.box, result.look.crop_box) == (Box(0.1, 0.1, 0.9, 0.9), Region(0, 0, 1000, 1000))


async def test_the_turns_are_asked_in_the_words_for_several() -> None:
    engine = _engine()
    await _answered(engine)
    written = {name: "".join(map(chr, prompt.token_ids)) for name, prompt in engine.prompts.items()}
    assert written["grounding"].endswith(engine.profile.grounding_text(QUESTION.asked, regions=True) + ";")
    assert written["micro"].endswith(engine.profile.micro_text(QUESTION.asked, Crops(2)) + ";")
    assert "each thing" in written["grounding"]
    assert "enlarged parts" in written["micro"]
    assert engine.samplings["grounding"] == "grounding sampling of 4"


@pytest.mark.parametrize(("mode", "wrote"), [(Mode.DUAL, TWO), (Mode.REGIONS, TWO[:33] + "]")])
async def test_one_place_is_asked_about_as_ever(mode: Mode, wrote: str) -> None:
    engine = _engine(wrote=wrote)
    result = await _answered(engine, replace(QUESTION, mode=mode))
    assert result.look.crop_box == FIRST
    assert [at.crop for at in result.look.regions] == [FIRST]
    assert "an enlarged part" in "".join(map(chr, engine.prompts["micro"].token_ids))


async def test_crops_share_the_image_tokens_of_one() -> None:
    views = Views(rule=Grid(kind="grid", cell=10, most=100_000), crop=View(least=16, most=3600))
    for wrote, tokens in ((TWO, 1800), ("[" + TWO[34:], 3200)):  # alone it is shown twice as large as in the picture
        engine = _engine(wrote=wrote, views=views)
        engine.context_length = 1 << 16
        await _answered(engine)
        last = engine.prompts["micro"].pictures[-1]
        assert last.region == SECOND
        assert 0.95 * tokens < views.tokens(last.shown or (0, 0)) <= 1.05 * tokens


async def test_places_that_would_be_shown_no_larger_are_left_out() -> None:
    views = Views(rule=Grid(kind="grid", cell=10, most=100_000), crop=View(least=16, most=2500))
    engine = _engine(wrote='[{"bbox_2d": [150, 150, 200, 200]}, {"bbox_2d": [500, 500, 900, 900]}]', views=views)
    engine.context_length = 1 << 16
    result = await _answered(engine)
    assert [at.crop for at in result.look.regions] == [Region(50, 50, 300, 300)], "the other takes 3,600 of its own"


@pytest.mark.parametrize(("images", "most", "crops"), [(999, 1, 1), (999, 4, 2), (3, 4, 2), (2, 4, 1)], ids=str)
async def test_crops_are_as_many_as_the_profile_and_the_engine_take(images: int, most: int, crops: int) -> None:
    engine = _engine()
    engine.max_images, engine.profile = images, engine.profile.model_copy(update={"max_regions": most})
    result = await _answered(engine)
    assert len(engine.prompts["micro"].pictures) == 1 + crops
    assert result.look.box == Box(0.1, 0.1, 0.9, 0.9), "what holds both"


@pytest.mark.parametrize("profile", ["llava-dualfocus", "dualfocus-released", "paper"])
async def test_what_was_trained_to_write_one_box_keeps_its_words_and_its_box(profile: str) -> None:
    engine = _engine(profile, "[0.10, 0.10, 0.20, 0.20], [0.70, 0.70, 0.90, 0.90]")
    result = await _answered(engine)
    dual = _engine(profile, "[0.10, 0.10, 0.20, 0.20], [0.70, 0.70, 0.90, 0.90]")
    expected = await _answered(dual, replace(QUESTION, mode=Mode.DUAL))
    assert result.look == expected.look
    assert engine.prompts["micro"].token_ids == dual.prompts["micro"].token_ids
    assert engine.samplings["grounding"] == "grounding sampling"


@pytest.mark.parametrize("wrote", ["nothing", "[]"])
async def test_without_a_box_macro_stands(wrote: str) -> None:
    result = await _answered(_engine(wrote=wrote))
    assert (result.winner, result.selection, result.look.regions) == ("macro", Selection.NO_BOX, ())


async def test_both_answers_can_be_scored_behind_all_crops() -> None:
    engine = _engine()
    await _answered(engine, replace(QUESTION, scoring=Scoring.SHARED))
    assert engine.prompts["macro-score"].pictures == engine.prompts["micro"].pictures
