"""A question about a picture, as the engine takes it: a conversation whose last turn is the user's."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from dualfocus_engine.errors import BadQuestion
from dualfocus_engine.families.boxes import Box
from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.method.multiple_choice import options_of
from dualfocus_engine.method.results import Mode, Scoring
from dualfocus_engine.pictures.pictures import Picture, open_picture

if TYPE_CHECKING:
    from vllm import SamplingParams


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; pictures stand before the text, as every family here was trained."""

    role: str
    text: str
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation with pictures that ends in a user's turn; the last picture is zoomed, or the one of `image_index`.

    `grounding_question` is what to ground instead of the question's text; `box` makes the grounding turn unnecessary.
    `sampling` is what macro and micro answers are drawn with; None takes the profile's defaults. `image_index` counts
    the conversation's pictures from 0, or from -1 backwards. `scoring` is how the answers are compared.
    Raises BadQuestion where there is nothing to look at or nothing asked.
    """

    messages: tuple[Message, ...]
    mode: Mode = Mode.DUAL
    grounding_question: str | None = None
    box: Box | None = None
    sampling: "SamplingParams | None" = None
    image_index: int = -1
    scoring: Scoring = Scoring.OWN

    def __post_init__(self) -> None:
        if not self.messages or self.messages[-1].role != "user" or not self.pictures:
            raise BadQuestion("The last message must be a user's, with at least one image in it or before it.")
        if not -len(self.pictures) <= self.image_index < len(self.pictures):
            raise BadQuestion(
                f"There is no image {self.image_index}: the conversation has {len(self.pictures)}, from 0 on."
            )
        if not self.asked.strip():
            raise BadQuestion("The last message has no question in text.")

    @classmethod
    def about(cls, image: bytes | str | Path | Image.Image, text: str, mode: Mode = Mode.DUAL) -> "Question":
        """Return the plain case: one image, one question. Raises BadPicture."""
        return cls((Message("user", text, (open_picture(image),)),), mode=mode)

    @property
    def asked(self) -> str:
        """The question's text."""
        return self.messages[-1].text

    @property
    def picture(self) -> Picture:
        """The picture that is zoomed."""
        return self.pictures[self.image_index]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures of the conversation, in order."""
        return tuple(picture for message in self.messages for picture in message.pictures)

    @property
    def options(self) -> dict[str, str]:
        """The texts of a multiple choice by letter, where shared scoring goes by them."""
        return options_of(self.asked) if self.scoring is Scoring.SHARED else {}


def macro_turn(question: Question, profile: Profile) -> list[Message]:
    """Return the macro turn's conversation: as the client sent it."""
    return _with_system(question, profile, question.asked)


def grounding_turn(question: Question, profile: Profile) -> list[Message]:
    """Return the grounding turn's conversation: the same up to the image, then Q1."""
    return _with_system(question, profile, profile.grounding_text(question.grounding_question or question.asked))


def micro_turn(question: Question, crop: Picture, profile: Profile) -> Message:
    """Return the user's turn that continues the grounding conversation: the crop, then Q2."""
    return Message("user", profile.micro_text(question.asked), (crop,))


def shared_turn(question: Question, crop: Picture, profile: Profile) -> Message:
    """Return the user's turn that both answers are scored under, in the micro turn's place."""
    return Message("user", profile.shared_text(question.asked), (crop,))


def _with_system(question: Question, profile: Profile, text: str) -> list[Message]:
    *earlier, last = question.messages
    messages = [*earlier, replace(last, text=text)]
    if profile.system and all(message.role != "system" for message in messages):
        messages.insert(0, Message("system", profile.system))
    return messages
