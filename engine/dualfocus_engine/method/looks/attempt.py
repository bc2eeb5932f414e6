"""A look behind the first while it is taken: where the model is asked, and what the next turns continue."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from dualfocus_engine.method.prompts import Prompt
from dualfocus_engine.method.questions import Message
from dualfocus_engine.method.results import SecondLook, name_of
from dualfocus_engine.pictures.pictures import Picture


@dataclass(frozen=True, slots=True)
class Aim:
    """Where the model is asked where to look: the conversation, its prompt, and the picture or crop it is about."""

    conversation: Sequence[Message]
    prompt: Prompt
    seen: Picture


@dataclass(frozen=True, slots=True)
class Zoomed:
    """What the micro turn continues: the grounding turn, its prompt and reply, and the crops."""

    conversation: Sequence[Message]
    prompt: Prompt
    reply: Sequence[int]
    crops: Sequence[Picture]


@dataclass(slots=True)
class Attempt:
    """A look behind the first, as far as it has come; `number` counts them from 1."""

    number: int
    look: SecondLook = field(default_factory=SecondLook)
    zoomed: Zoomed | None = None  # once there is something to show

    def turn(self, name: str) -> str:
        """Return the name of one of its turns."""
        return name_of(name, self.number)
