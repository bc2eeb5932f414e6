"""A question about a picture, as the engine takes it: a conversation whose last turn is the user's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from dualfocus_engine.errors import BadQuestion
from dualfocus_engine.families.boxes import Box, Size
from dualfocus_engine.families.profiles import Crops, Profile
from dualfocus_engine.method.multiple_choice import options_of
from dualfocus_engine.method.prompts import NO_OPTIONS, TurnOptions
from dualfocus_engine.method.results import Mode, Scoring, Turn
from dualfocus_engine.pictures.pictures import Picture, open_picture

if TYPE_CHECKING:
    from vllm import SamplingParams

_ASKING = ("user", "tool")  # whose words a model answers
_DRAWING = (Mode.DUAL, Mode.SEARCH, Mode.ADAPTIVE)  # modes in which other boxes may be drawn


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of a message's text, with what else the client wrote beside it for the chat template to read."""

    text: str
    fields: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: its pictures, then its text, or `parts` in an order of their own (`from_parts`).

    `fields` are what else it says to the chat template: the tools that were called, which call is answered.
    """

    role: str
    text: str
    pictures: tuple[Picture, ...] = ()
    parts: tuple[Text | Picture, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_parts(cls, role: str, parts: Iterable[Text | Picture], **fields: Any) -> "Message":
        """Return the message of texts and pictures that stay in the order given; `text` joins its texts by lines."""
        parts = tuple(parts)
        texts = [part.text for part in parts if isinstance(part, Text)]
        return cls(role, "\n".join(texts), tuple(part for part in parts if isinstance(part, Picture)), parts, fields)

    def shown_at(self, sizes: "Mapping[Picture, Size]") -> "Message":
        """Return the message with each of its pictures shown at the size given for it."""
        parts = [part.shown_at(sizes[part]) if isinstance(part, Picture) else part for part in self.parts]
        return replace(self, pictures=tuple(part.shown_at(sizes[part]) for part in self.pictures), parts=tuple(parts))

    @property
    def in_order(self) -> tuple[Text | Picture, ...]:
        """Its parts as they are shown to the model."""
        if self.parts or (self.fields and not self.text):
            return self.parts
        return (*self.pictures, Text(self.text))

    @property
    def begins_with_text(self) -> bool:
        """Whether text stands before one of its pictures."""
        last_picture = max((n for n, part in enumerate(self.in_order) if isinstance(part, Picture)), default=0)
        return any(isinstance(part, Text) and part.text.strip() for part in self.in_order[:last_picture])


def as_it_is(turn: Turn) -> Turn:
    """Return a turn as the answer that it is: nothing of it is a thought or a call."""
    return turn


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation with pictures that ends in a user's turn, or in what tools have given.

    `image_index` says which picture is zoomed: it counts the conversation's from 0, or from -1 backwards. Where it is
    None, that is the only one of the last message, or where that has none the conversation's last.
    `grounding_question` is what to ground instead of what is asked; `box` makes the grounding turn unnecessary.
    `sampling` is what macro and micro answers are drawn with; None takes the profile's defaults. `scoring` is how the
    answers are compared; `skip_below` is the perplexity below which `Mode.ADAPTIVE` takes macro's, None the profile's.
    `turns` are vLLM's fields of a request, the same for all turns. `read` tells of an answer's turn what of it is the
    answer, what the model thought, and which tools it called.
    `whole_tokens` and `crop_tokens` are the most image tokens that a picture and the crop are shown in, where that is
    less than the profile's views say. `sure_below` is the perplexity below which an answer ends `Mode.SEARCH`, and
    `max_looks` how many it takes at most, macro counted; None the profile's. `candidates` is for how many boxes a look
    may be taken where the second one leaves doubt: that one's, and others drawn from the grounding turn. `enough` has
    the model asked of each view whether it is enough to answer (the profile's `enough` asks where it is to decide).
    Raises BadQuestion where there is nothing to look at, and over candidates where the model is not asked for a box.
    """

    messages: tuple[Message, ...]
    mode: Mode = Mode.DUAL
    grounding_question: str | None = None
    box: Box | None = None
    sampling: "SamplingParams | None" = None
    image_index: int | None = None
    scoring: Scoring = Scoring.OWN
    skip_below: float | None = None
    whole_tokens: int | None = None
    crop_tokens: int | None = None
    sure_below: float | None = None
    max_looks: int | None = None
    enough: bool = False
    candidates: int = 1
    turns: TurnOptions = NO_OPTIONS
    read: Callable[[Turn], Turn] = as_it_is

    def __post_init__(self) -> None:
        if not self.messages or self.messages[-1].role not in _ASKING or not self.pictures:
            raise BadQuestion("The last message must be a user's or a tool's, with an image in it or before it.")
        index, count = self.image_index, len(self.pictures)
        if index is not None and not -count <= index < count:
            raise BadQuestion(f"There is no image {index}: the conversation has {count}, from 0 on.")
        if self.candidates > 1 and (self.mode not in _DRAWING or self.box is not None):
            modes = ", ".join(_DRAWING)
            raise BadQuestion(f"candidates are drawn in the modes {modes}, and without a box.", "dualfocus.candidates")

    @classmethod
    def about(cls, image: bytes | str | Path | Image.Image, text: str, mode: Mode = Mode.DUAL) -> "Question":
        """Return the plain case: one image, one question. Raises BadPicture."""
        return cls((Message("user", text, (open_picture(image),)),), mode=mode)

    @property
    def asked(self) -> str:
        """What is asked: the last message's text; where it has none the last user's before it, else the system's."""
        by_users = [message.text for message in reversed(self.messages) if message.role == "user"]
        by_system = [message.text for message in reversed(self.instructions)]
        return next((text for text in (*by_users, *by_system) if text.strip()), "")

    @property
    def instructions(self) -> list[Message]:
        """The messages that are nobody's turn, and hold for all."""
        return [message for message in self.messages if message.role in ("system", "developer")]

    @property
    def to_ground(self) -> str:
        """What the grounding turn asks for; blank where nothing is asked in words."""
        return self.grounding_question or self.asked

    @property
    def picture(self) -> Picture:
        """The picture that is zoomed."""
        return self.pictures[self.picture_index]

    @property
    def picture_index(self) -> int:
        """Which of the conversation's pictures is zoomed, from 0."""
        return len(self.pictures) - 1 if self.image_index is None else self.image_index % len(self.pictures)

    @property
    def leaves_open_which_picture(self) -> bool:
        """Whether the last message (or what several tools gave) has several pictures, and none is named to zoom."""
        return self.image_index is None and sum(len(message.pictures) for message in self._last) > 1

    @property
    def _last(self) -> Iterable[Message]:
        """The last message; where it is a tool's, with those of the tools called beside it."""
        if self.messages[-1].role == "user":
            return self.messages[-1:]
        return takewhile(lambda message: message.role == "tool", reversed(self.messages))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures of the conversation, in order."""
        return tuple(picture for message in self.messages for picture in message.pictures)

    def shown_at(self, sizes: Mapping[Picture, Size]) -> "Question":
        """Return the question with each of its pictures shown at the size given for it."""
        return replace(self, messages=tuple(message.shown_at(sizes) for message in self.messages))

    @property
    def options(self) -> dict[str, str]:
        """The texts of a multiple choice by letter, where the scoring goes by them."""
        return {} if self.scoring is Scoring.OWN else options_of(self.asked)


def macro_turn(question: Question) -> list[Message]:
    """Return the macro turn's conversation: as the client sent it."""
    return list(question.messages)


def grounding_turn(question: Question, profile: Profile, *, pictures_first: bool) -> list[Message]:
    """Return the grounding turn's conversation: the same up to the picture, then Q1.

    What tools gave stays, and Q1 follows it. Where the model is shown the last message's text before its picture, the
    message stays whole and Q1 follows it, so that both turns share the picture. `pictures_first`: the chat template
    puts pictures first, whatever is sent.
    """
    regions = question.mode is Mode.REGIONS
    which = question.picture_index, len(question.pictures)
    asked = profile.grounding_text(question.to_ground, *which, regions=regions)
    return _asked_beside(question, asked, pictures_first=pictures_first)


def enough_turn(question: Question, profile: Profile, *, pictures_first: bool) -> list[Message]:
    """Return the conversation that asks whether the whole picture is enough, the same up to the picture."""
    asked = profile.enough_text(question.asked or question.to_ground)
    return _asked_beside(question, asked, pictures_first=pictures_first)


def _place_of(question: Question, crops: Sequence[Picture], conversation: Sequence[Message]) -> Crops:
    """Return where crops stand that a conversation is continued with."""
    behind = sum(len(message.pictures) for message in conversation)
    return Crops(len(crops), behind, question.picture_index)


def enough_of_crops(question: Question, crops: Sequence[Picture], profile: Profile) -> Message:
    """Return the turn that asks whether the crops are enough, in the micro turn's place."""
    return _crops_turn(crops, profile, profile.enough_text(question.asked or question.to_ground))


def _asked_beside(question: Question, asked: str, *, pictures_first: bool) -> list[Message]:
    """Return the question's conversation with something else asked about its picture."""
    *earlier, last = question.messages
    if last.role == "tool":
        return [*question.messages, Message("user", asked)]
    if last.begins_with_text and not pictures_first:
        return [*earlier, Message.from_parts("user", (*last.in_order, Text(asked)))]
    return [*earlier, Message("user", asked, last.pictures)]


def grounding_options(question: Question, profile: Profile) -> TurnOptions:
    """Return what the grounding turn is run with: what its profile tells the template goes before the client's."""
    return question.turns.with_template_kwargs(profile.grounding_template_kwargs)


def deeper_turn(
    question: Question, crops: Sequence[Picture], profile: Profile, conversation: Sequence[Message]
) -> Message:
    """Return the turn that asks where in a crop to look: the crop as the micro turn has it, then Q1 for it."""
    text = profile.deeper_text(question.to_ground, _place_of(question, crops, conversation))
    return Message(profile.crop_role, text, tuple(crops))


def micro_turn(
    question: Question, crops: Sequence[Picture], profile: Profile, conversation: Sequence[Message]
) -> Message:
    """Return the turn that continues the grounding conversation: the crops, then Q2."""
    place = _place_of(question, crops, conversation)
    return _crops_turn(crops, profile, profile.micro_text(question.asked or question.to_ground, place))


def shared_turn(
    question: Question, crops: Sequence[Picture], profile: Profile, conversation: Sequence[Message]
) -> Message:
    """Return the turn that both answers are scored under, in the micro turn's place."""
    asked, place = question.asked or question.to_ground, _place_of(question, crops, conversation)
    if question.scoring is Scoring.RELEASED:
        text = profile.released_text(asked, place, has_options=bool(question.options))
    else:
        text = profile.shared_text(asked, place)
    return _crops_turn(crops, profile, text)


def _crops_turn(crops: Sequence[Picture], profile: Profile, text: str) -> Message:
    """Return a message about the crops; it holds none that is shown as a patch of the picture."""
    return Message(profile.crop_role, text, () if profile.crop_in_picture else tuple(crops))
