"""How large a question's pictures are shown, and where the context makes them smaller."""

from dataclasses import replace

import pytest
from dualfocus_engine.families.boxes import Box
from dualfocus_engine.families.profiles import load_profile
from dualfocus_engine.families.views import Grid, View, Views
from dualfocus_engine.method.questions import Message, Question
from dualfocus_engine.method.results import Mode, Selection
from dualfocus_engine.method.showing import show_pictures
from dualfocus_engine.pictures.pictures import open_picture
from PIL import Image
from vllm import SamplingParams

from ..builders import encoded, turn
from ..fake_engine import FakeEngine, focus_on

GRID = Views(rule=Grid(kind="grid", cell=10, most=100_000), crop=View(least=16, most=64))
JSON = '[{"bbox_2d": [%d, %d, %d, %d]}]'


def _engine(views: Views | None = GRID, context: int = 8192) -> FakeEngine:
    engine = FakeEngine()
    engine.profile = load_profile("qwen3-vl")
    engine.views, engine.context_length = views, context
    return engine


def _asked(*sizes: tuple[int, int], mode: Mode = Mode.DUAL, tokens: int | None = 100) -> Question:
    pictures = tuple(Question.about(Image.new("RGB", size), "").picture for size in sizes)
    sampling = SamplingParams(max_tokens=tokens)
    return Question((Message("user", "What is it?", pictures),), mode, sampling=sampling, image_index=0)


async def test_without_views_pictures_are_left_to_the_processor() -> None:
    question = _asked((640, 480))
    shown, notes = await show_pictures(_engine(None), question)
    assert (shown, notes) == (question, ())
    assert "@" not in shown.picture.key


async def test_a_picture_is_shown_at_its_grids_size_and_the_key_says_so() -> None:
    shown, notes = await show_pictures(_engine(), _asked((644, 476)))
    assert (shown.picture.shown, notes) == ((640, 480), ())
    assert shown.picture.key.endswith("@640x480")
    assert shown.picture.size == (644, 476), "what a crop is cut from stays as it is"


async def test_a_rule_that_alone_decides_on_crops_needs_no_limits_of_theirs() -> None:
    budget = load_profile("gemma4").views
    shown, notes = await show_pictures(_engine(budget), _asked((1600, 900)))
    assert (shown.picture.shown, notes) == ((1056, 576), ())


@pytest.mark.parametrize("ordered", [False, True])
async def test_every_picture_of_a_conversation_is_shown_at_a_size(ordered: bool) -> None:
    question = _asked((600, 400), (300, 300))
    if ordered:
        message = question.messages[0]
        question = replace(question, messages=(Message.from_parts("user", message.in_order),))
    shown, _ = await show_pictures(_engine(), question)
    assert [picture.shown for picture in shown.pictures] == [(600, 400), (300, 300)]
    assert [part.shown for part in shown.messages[0].in_order if hasattr(part, "shown")] == [(600, 400), (300, 300)]


async def test_the_client_may_ask_for_fewer_tokens() -> None:
    shown, notes = await show_pictures(_engine(), replace(_asked((1000, 1000)), whole_tokens=400))
    assert (shown.picture.shown, notes) == ((200, 200), ()), "asked for: nothing needs to be said"


async def test_what_the_context_can_not_hold_is_made_smaller_and_said() -> None:
    engine = _engine()
    shown, notes = await show_pictures(engine, _asked((1000, 1000)))
    assert shown.picture.shown is not None
    tokens = GRID.tokens(shown.picture.shown)
    # A token a character, in the scripted engine: what the turns say, the crop, the box and the answer.
    room = 8192 - 64 - 100 - engine.profile.max_box_tokens
    assert room - 900 < tokens < room
    assert notes == (
        f"A picture was shown at {shown.picture.shown[0]}x{shown.picture.shown[1]} pixels, not 1000x1000: "
        "the context of 8192 tokens holds no more.",
    )


async def test_the_question_that_is_grounded_in_place_of_the_one_asked_takes_room_too() -> None:
    asked = _asked((1000, 1000))
    long = replace(asked, grounding_question="a" * 4000)
    shown, longer = [(await show_pictures(_engine(), question))[0].picture.shown for question in (asked, long)]
    assert shown is not None
    assert longer is not None
    assert longer < shown


async def test_an_answer_is_given_a_quarter_of_the_context_at_most() -> None:
    long, _ = await show_pictures(_engine(), _asked((1000, 1000), tokens=None))
    short, _ = await show_pictures(_engine(), _asked((1000, 1000), tokens=10))
    assert None not in (long.picture.shown, short.picture.shown)
    fewer = GRID.tokens(short.picture.shown or (0, 0)) - GRID.tokens(long.picture.shown or (0, 0))
    assert 1014 - 250 < fewer < 1014 + 250, "1,024 are kept where nothing is said"


async def test_one_look_needs_no_room_for_the_other() -> None:
    views = GRID.model_copy(update={"crop": View(least=16, most=1024)})
    both, _ = await show_pictures(_engine(views), _asked((1000, 1000)))
    one, _ = await show_pictures(_engine(views), _asked((1000, 1000), mode=Mode.MACRO))
    assert GRID.tokens(one.picture.shown or (0, 0)) > GRID.tokens(both.picture.shown or (0, 0)) + 900


async def test_small_pictures_leave_their_share_to_the_others() -> None:
    shown, notes = await show_pictures(_engine(), _asked((1000, 1000), (100, 100), (1000, 1000)))
    first, small, last = (GRID.tokens(picture.shown or (0, 0)) for picture in shown.pictures)
    assert (small, first == last, len(notes)) == (100, True, 2)
    assert first > 2500


async def test_a_crop_is_shown_as_its_view_says_and_what_shows_nothing_new_is_not_looked_at() -> None:
    engine = _engine(GRID.model_copy(update={"crop": View(least=16, most=1024)}))
    engine.script["grounding"] = turn(JSON % (100, 100, 200, 200))
    result = await focus_on(engine).answer(_asked((1000, 1000), tokens=16))
    assert result.look.crop_box is not None
    crop = engine.prompts["micro"].pictures[-1]
    assert (crop.region, GRID.tokens(crop.shown or (0, 0))) == (result.look.crop_box, 1024)
    engine.script["grounding"] = turn(JSON % (0, 0, 1000, 1000))
    result = await focus_on(engine).answer(_asked((1000, 1000), tokens=16))
    assert (result.winner, result.selection, result.look.micro) == ("macro", Selection.NOTHING_TO_ENLARGE, None)
    assert result.look.box == Box(0, 0, 1, 1)


async def test_a_crop_never_takes_more_than_its_part_of_a_small_context() -> None:
    views = GRID.model_copy(update={"crop": View(least=16, most=5000)})
    shown, _ = await show_pictures(_engine(views, 4096), _asked((100, 100)))
    assert shown.crop_tokens == 1024
    shown, _ = await show_pictures(_engine(views, 4096), replace(_asked((100, 100)), crop_tokens=100))
    assert shown.crop_tokens == 100


@pytest.mark.parametrize("views", [None, GRID])
async def test_what_of_a_file_is_not_looked_at_is_said_in_the_answer(views: Views | None) -> None:
    frame = Image.new("RGB", (160, 120))
    file = encoded(frame, "GIF", save_all=True, append_images=[Image.new("RGB", (160, 120), (9, 9, 9))])
    still = open_picture(frame)
    question = Question(
        (Message("user", "What is it?", (open_picture(file), open_picture(file), still)),), image_index=0
    )
    result = await focus_on(_engine(views)).answer(question)
    assert result.notes == ("Of the GIF file the first frame alone is looked at.",)
    assert (await focus_on(_engine(views)).answer(Question((Message("user", "What is it?", (still,)),)))).notes == ()
