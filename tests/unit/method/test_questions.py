"""What can be asked, and the conversations that the turns see."""

from collections.abc import Callable
from typing import Any

import pytest
from dualfocus_engine.errors import BadPicture, BadQuestion
from dualfocus_engine.families.profiles import load_profile
from dualfocus_engine.method.questions import Message, Question, grounding_turn, macro_turn, micro_turn
from dualfocus_engine.method.results import Mode
from PIL import Image

from ..builders import asked, encoded, plain

LLAVA = load_profile("llava-dualfocus")
PLAIN = LLAVA.model_copy(update={"system": None})
HINT = "Answer the question using a single word or phrase."
TEXT = f"What colour is the cup?\n{HINT}"
Q1 = "Please provide the bounding box coordinate of the region this question asks: What colour is the cup?"


def _question(*earlier: Message, **given: Any) -> Question:
    return Question((*earlier, asked(TEXT)), **given)


def test_macro_turn_is_what_the_client_sent() -> None:
    question = _question()
    assert macro_turn(question, PLAIN) == list(question.messages)


def test_grounding_turn_is_the_same_up_to_the_image_and_then_q1() -> None:
    question = _question(Message("user", "Hello"), Message("assistant", "Hi"))
    *earlier, last = grounding_turn(question, PLAIN)
    assert earlier == macro_turn(question, PLAIN)[:-1]
    assert last == Message("user", Q1, question.messages[-1].pictures)


def test_micro_turn_shows_the_crop_and_asks_as_the_client_did() -> None:
    crop = plain((0, 0, 0))
    turn = micro_turn(_question(), crop, LLAVA)
    assert turn.role == "user"
    assert turn.pictures == (crop,)
    assert turn.text.endswith(f"answer this question: {TEXT}")


@pytest.mark.parametrize("turn", [macro_turn, grounding_turn])
def test_profiles_system_prompt_stands_first(turn: Callable[..., list[Message]]) -> None:
    first, *rest = turn(_question(Message("user", "Hello"), Message("assistant", "Hi")), LLAVA)
    assert first == Message("system", LLAVA.system or "")
    assert [message.role for message in rest] == ["user", "assistant", "user"]


@pytest.mark.parametrize("turn", [macro_turn, grounding_turn])
def test_clients_system_prompt_is_kept(turn: Callable[..., list[Message]]) -> None:
    own = Message("system", "Be terse.")
    systems = [message for message in turn(_question(own), LLAVA) if message.role == "system"]
    assert systems == [own]


@pytest.mark.parametrize("turn", [macro_turn, grounding_turn])
def test_profile_without_a_system_prompt_adds_none(turn: Callable[..., list[Message]]) -> None:
    assert [message.role for message in turn(_question(), PLAIN)] == ["user"]


def test_what_to_ground_can_be_said_apart() -> None:
    question = _question(grounding_question=f"the cup\n{HINT}")
    assert grounding_turn(question, PLAIN)[-1].text.endswith("this question asks: the cup")
    assert macro_turn(question, PLAIN)[-1].text == TEXT
    assert TEXT in micro_turn(question, plain(), PLAIN).text


def test_last_picture_is_the_one_that_is_zoomed() -> None:
    first, second = plain((1, 1, 1)), plain((2, 2, 2))
    question = Question((asked("Which is darker?", first, second),))
    assert question.picture is second
    assert grounding_turn(question, PLAIN)[-1].pictures == (first, second)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param((), id="no message"),
        pytest.param((Message("user", "What?"),), id="no image"),
        pytest.param((asked(), Message("assistant", "Red.")), id="assistant last"),
        pytest.param((Message("user", "Hello"), Message("user", "What?")), id="no image anywhere"),
        pytest.param((Message("system", "What?", (plain(),)),), id="system with an image"),
    ],
)
def test_last_message_must_be_a_users_with_an_image(messages: tuple[Message, ...]) -> None:
    with pytest.raises(BadQuestion, match="at least one image"):
        Question(messages)


def test_image_of_an_earlier_turn_can_be_asked_about() -> None:
    first = plain((1, 1, 1))
    question = Question((asked("What?", first), Message("assistant", "A cup."), Message("user", "Whose?")))
    assert question.picture is first
    assert grounding_turn(question, PLAIN)[-1].text.endswith("this question asks: Whose?")


@pytest.mark.parametrize(("image_index", "index"), [(0, 0), (1, 1), (2, 2), (-1, 2), (-3, 0)])
def test_zoom_counts_the_pictures_of_the_whole_conversation(image_index: int, index: int) -> None:
    pictures = [plain((shade, 0, 0)) for shade in range(3)]
    messages = (asked("What?", pictures[0]), Message("assistant", "."), asked("Which?", *pictures[1:]))
    assert Question(messages, image_index=image_index).picture is pictures[index]


@pytest.mark.parametrize("image_index", [1, -2, 100])
def test_zoom_on_a_picture_there_is_not_is_refused(image_index: int) -> None:
    with pytest.raises(BadQuestion, match=rf"no image {image_index}: the conversation has 1"):
        Question((asked(),), image_index=image_index)


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_something_must_be_asked(text: str) -> None:
    with pytest.raises(BadQuestion, match="no question"):
        Question((asked(text),))


def test_plain_case_is_one_image_and_one_text(chelsea: Image.Image) -> None:
    question = Question.about(encoded(chelsea), "What animal is it?", Mode.MACRO)
    assert (question.asked, question.mode) == ("What animal is it?", Mode.MACRO)
    assert question.picture.size == chelsea.size
    assert len(question.messages) == 1


def test_two_looks_are_the_default() -> None:
    assert _question().mode is Mode.DUAL


def test_unreadable_image_is_said_before_anything_is_asked() -> None:
    with pytest.raises(BadPicture):
        Question.about(b"no image", "What is it?")
