"""What a box's turn takes in steps: spelled out, stopped at its bracket, and opened; the answers are the same."""

from collections.abc import Callable
from copy import copy

import pytest
from dualfocus_engine import DualFocus, Question
from dualfocus_engine.families.box_format import BoxFormat
from dualfocus_engine.method.results import SecondLook
from dualfocus_engine.method.showing import show_pictures
from dualfocus_engine.method.turn_runner import TurnRunner
from PIL import Image

Photo = Callable[[str], Image.Image]
# `[0.20, 0.41, 0.37, 0.74]` in single characters; then the closing token.
BOX_LENGTH = 25
GRAMMAR = r"0\.[0-4]\d, 0\.[0-4]\d, 0\.[5-9]\d, 0\.[5-9]\d\]"
WAYS: dict[str, tuple[dict[str, str], int]] = {
    "stopped": ({"stop": "]", "closing": "]"}, 1),
    "opened and stopped": ({"opening": "[", "stop": "]", "closing": "]", "grammar": GRAMMAR}, 2),
}


async def second_look(focus: DualFocus, question: Question, box_format: BoxFormat) -> SecondLook:
    engine = copy(focus.engine)
    engine.profile = focus.profile.model_copy(update={"box_format": box_format})
    shown, _ = await show_pictures(engine, question)
    (look,) = await TurnRunner(engine, shown).run_second_look()
    return look


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("photographed", ["astronaut", "rocket", "camera", "coffee"])
async def test_a_box_that_is_stopped_takes_fewer_steps_and_the_answer_is_the_same(
    focus: DualFocus, photo: Photo, way: str, photographed: str
) -> None:
    question = Question.about(photo(photographed), "What is in it?")
    changes, saved = WAYS[way]
    spelled = await second_look(focus, question, focus.profile.box_format)
    changed = await second_look(focus, question, focus.profile.box_format.model_copy(update=changes))
    assert changed.box == spelled.box
    assert spelled.micro is not None
    assert changed.micro is not None
    assert changed.micro.prompt_token_ids == spelled.micro.prompt_token_ids
    assert changed.micro.token_ids == spelled.micro.token_ids
    # A step each. What vLLM stops at a text it aborts in its engine, which tells no count of it.
    assert spelled.grounding is not None
    assert changed.grounding is not None
    assert len(spelled.grounding.token_ids) == BOX_LENGTH
    assert len(changed.grounding.token_ids) == BOX_LENGTH - saved
