"""What can be asked, and the conversations that the turns see."""

from typing import Any

import pytest
from dualfocus_engine.errors import BadPicture, BadQuestion
from dualfocus_engine.families.profiles import load_profile
from dualfocus_engine.method.questions import (
    Message,
    Question,
    Text,
    deeper_turn,
    grounding_turn,
    macro_turn,
    micro_turn,
)
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
    assert macro_turn(question) == list(question.messages)


def test_grounding_turn_is_the_same_up_to_the_image_and_then_q1() -> None:
    question = _question(Message("user", "Hello"), Message("assistant", "Hi"))
    *earlier, last = grounding_turn(question, PLAIN, pictures_first=False)
    assert earlier == macro_turn(question)[:-1]
    assert last == Message("user", Q1, question.messages[-1].pictures)


def test_micro_turn_shows_the_crop_and_asks_as_the_client_did() -> None:
    crop = plain((0, 0, 0))
    turn = micro_turn(_question(), (crop,), LLAVA, grounding(_question()))
    assert turn.role == "user"
    assert turn.pictures == (crop,)
    assert turn.text.endswith(f"answer this question: {TEXT}")


def grounding(question: Question) -> list[Message]:
    return grounding_turn(question, PLAIN, pictures_first=False)


def test_what_to_ground_can_be_said_apart() -> None:
    question = _question(grounding_question=f"the cup\n{HINT}")
    assert grounding(question)[-1].text.endswith("this question asks: the cup")
    assert macro_turn(question)[-1].text == TEXT
    assert TEXT in micro_turn(question, (plain(),), PLAIN, grounding(question)).text


def test_turns_about_a_crop_say_which_images_are_meant() -> None:
    """The crop may be of any of several pictures, and stand behind them all and behind other crops."""
    profile, crop = load_profile("qwen3-vl"), plain((0, 0, 0))
    one, two = _question(), Question((asked("What?", plain(), plain()),), image_index=0)
    said = micro_turn(one, (crop,), profile, one.messages).text
    assert said.startswith("The second image is an enlarged part of the first. Use it")
    assert micro_turn(two, (crop,), profile, two.messages).text.startswith(
        "The third image is an enlarged part of the first. "
    )
    further = [*one.messages, Message("assistant", "[…]"), deeper_turn(one, (crop,), profile, one.messages)]
    assert micro_turn(one, (crop,), profile, further).text.startswith(
        "The third image is an enlarged part of the first. "
    )
    assert micro_turn(one, (crop, crop), profile, one.messages).text.startswith(
        "The last 2 images are enlarged parts of the first. "
    )
    other = Question((asked("What?", plain(), plain()),))
    deeper = deeper_turn(other, (crop,), profile, other.messages).text
    assert deeper.startswith("This is an enlarged part of the second image. ")
    assert "coordinates in the second image" in deeper


def test_names_of_images_in_a_question_stay_words() -> None:
    asked_so = Question.about(Image.new("RGB", (8, 8)), "What does {crop} of {whole} mean?")
    said = micro_turn(asked_so, (plain(),), load_profile("qwen3-vl"), asked_so.messages).text
    assert said.endswith("What does {crop} of {whole} mean?")


def test_where_there_are_several_pictures_q1_says_which_is_meant() -> None:
    first, second = plain((1, 1, 1)), plain((2, 2, 2))
    question = Question((asked("What?", first), Message("assistant", "A cup."), asked("Which is darker?", second)))
    assert question.picture is second
    assert grounding(question)[-1].text.startswith("This is about picture 2 of 2. ")
    assert grounding(question)[-1].pictures == (second,)
    assert "picture" not in grounding(Question((asked("Which is darker?", first),)))[-1].text


@pytest.mark.parametrize(("image_index", "open_which"), [(None, True), (0, False), (-1, False)])
def test_several_pictures_in_the_last_message_leave_open_which_is_meant(
    image_index: int | None, open_which: bool
) -> None:
    question = Question((asked("Which is darker?", plain((1, 1, 1)), plain((2, 2, 2))),), image_index=image_index)
    assert question.leaves_open_which_picture is open_which
    assert not _question().leaves_open_which_picture


def test_parts_stay_as_they_were_sent() -> None:
    first, second = plain((1, 1, 1)), plain((2, 2, 2))
    parts = (Text("One:"), first, Text("Two:", {"lang": "en"}), second, Text("Which?"))
    message = Message.from_parts("user", parts)
    assert message.in_order == parts
    assert (message.text, message.pictures) == ("One:\nTwo:\nWhich?", (first, second))
    assert macro_turn(Question((message,))) == [message]


@pytest.mark.parametrize("pictures_first", [False, True])
def test_text_before_the_picture_stays_before_it_and_q1_follows(pictures_first: bool) -> None:
    """So that both turns share the picture; where the template puts pictures first anyway, Q1 stands alone."""
    picture = plain()
    question = Question((Message.from_parts("user", (Text(TEXT), picture)),))
    last = grounding_turn(question, PLAIN, pictures_first=pictures_first)[-1]
    q1 = PLAIN.grounding_text(TEXT)
    assert last.in_order == ((picture, Text(q1)) if pictures_first else (Text(TEXT), picture, Text(q1)))


@pytest.mark.parametrize("parts", [(plain(), Text("What?")), (Text(" "), plain(), Text("What?"))])
def test_a_picture_before_the_text_is_followed_by_q1_alone(parts: tuple[Any, ...]) -> None:
    last = grounding(Question((Message.from_parts("user", parts),)))[-1]
    assert [type(part).__name__ for part in last.in_order] == ["Picture", "Text"]


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
def test_last_message_must_be_a_users_or_a_tools_with_an_image(messages: tuple[Message, ...]) -> None:
    with pytest.raises(BadQuestion, match="an image in it"):
        Question(messages)


def test_image_of_an_earlier_turn_can_be_asked_about() -> None:
    first = plain((1, 1, 1))
    question = Question((asked("What?", first), Message("assistant", "A cup."), Message("user", "Whose?")))
    assert question.picture is first
    assert grounding(question)[-1].text.endswith("this question asks: Whose?")


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
def test_a_picture_without_words_is_asked_about_in_those_that_there_are(text: str) -> None:
    alone, system = asked(text), Message("system", "Read the sign.")
    before = (Message("user", "Read the plate."), Message("assistant", "Which?"))
    assert Question((alone,)).to_ground.strip() == ""
    assert Question((system, alone)).to_ground == "Read the sign."
    assert Question((Message("developer", "Read it."), alone)).to_ground == "Read it."
    assert Question((system, *before, alone)).to_ground == "Read the plate."
    assert Question((system, *before, alone), grounding_question="the door").to_ground == "the door"


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
