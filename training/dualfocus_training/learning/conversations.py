"""The one format of training data: conversations about pictures, a JSON object a line (Section 3.2).

Scenes and curated Visual Genome both come out as these: the two rounds (Q1, A1, Q2, A2) with the
crop made beforehand, and ordinary question-and-answer samples beside them. Messages have the form
that chat templates take; pictures are named in the order in which the messages show them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dualfocus_engine.families.boxes import Box
from dualfocus_engine.families.profiles import Crops, Profile
from dualfocus_eval.boxes import Box as SceneBox

USER, ASSISTANT = "USER: ", " ASSISTANT: "
IMAGE_LINE = "<image>\n"

Message = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """Names of picture files, and messages; what assistants say is what is learned."""

    images: list[str]
    messages: list[Message]


def two_rounds(profile: Profile, image: str, crop: str, question: str, answer: str, box: Box) -> Conversation:
    """The conversation of Section 3.2: (Q1, A1) about the image, then (Q2, A2) about image and crop."""
    return Conversation(
        [image, crop],
        [
            asks(profile.grounding_text(question)),
            says(profile.box_format.write(box)),
            asks(profile.micro_text(question)),
            says(answer),
        ],
    )


def macro(image: str, question: str, answer: str) -> Conversation:
    """An ordinary VQA sample."""
    return Conversation([image], [asks(question), says(answer)])


def asks(text: str, pictures: int = 1) -> Message:
    """A user's message: the next pictures, then the text."""
    shown: list[Message] = [{"type": "image"}] * pictures
    return {"role": "user", "content": [*shown, {"type": "text", "text": text}]}


def says(text: str) -> Message:
    """An assistant's message."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def to_line(conversation: Conversation) -> str:
    """The conversation as a line of JSON."""
    return json.dumps(asdict(conversation), ensure_ascii=False) + "\n"


def count_pictures(messages: Sequence[Message]) -> int:
    """How many pictures messages show."""
    return sum(part["type"] == "image" for message in messages for part in message["content"])


def is_two_rounds(conversation: Conversation) -> bool:
    """Whether it is that of Section 3.2: two answers, each behind a message with one more picture."""
    roles = [message["role"] for message in conversation.messages if message["role"] != "system"]
    shown = [count_pictures([message]) for message in conversation.messages if message["role"] == "user"]
    return roles == ["user", "assistant"] * 2 and shown == [1, 1]


def read_conversations(path: Path) -> Iterator[Conversation]:
    """The conversations of a file; a message's content may be one text there. Raises ValueError naming a line that is
    none.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                conversation = _checked(Conversation(**json.loads(line)))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: {error!r}") from error
            yield conversation


def _checked(conversation: Conversation) -> Conversation:
    """The conversation, its contents as parts; raises ValueError where it can't be learned."""
    messages = [message | {"content": _parts(message["content"])} for message in conversation.messages]
    roles = [message["role"] for message in messages]
    turns = roles[roles[:1] == ["system"] :]
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
        raise ValueError(f"user and assistant don't take turns, a system message before them at most: {roles}")
    if count_pictures(messages) != len(conversation.images):
        raise ValueError(f"it shows {count_pictures(messages)} pictures and names {len(conversation.images)}")
    return Conversation(conversation.images, messages)


def _parts(content: str | list[Message]) -> list[Message]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


@dataclass(frozen=True)
class Wording:
    """How the small model's turns read as plain text, after its profile."""

    profile: Profile

    def macro(self, question: str) -> str:
        """The prompt of the macro turn, after the image: the question alone."""
        return question + ASSISTANT

    def grounding(self, question: str) -> str:
        """The prompt of the grounding turn (Q1), after the image."""
        return self.profile.grounding_text(question) + ASSISTANT

    def regions(self, question: str) -> str:
        """The same where a box for each thing is asked for."""
        return self.profile.grounding_text(question, regions=True) + ASSISTANT

    def deeper(self, question: str) -> str:
        """The prompt of a grounding turn after a crop: its box refers to that crop."""
        return self.profile.deeper_text(question) + ASSISTANT

    def micro(self, question: str, crops: int = 1) -> str:
        """The prompt of the micro turn (Q2), after so many crops."""
        return self.profile.micro_text(question, Crops(crops)) + ASSISTANT

    def enough(self, question: str) -> str:
        """The prompt, after a picture or a crop, that asks whether what is shown is enough to answer."""
        return self.profile.enough_text(question) + ASSISTANT

    def verdict(self, enough: bool) -> str:
        """Whether it is, as the model says it."""
        check = self.profile.enough
        return (check.yes if enough else check.no)[0]

    def box(self, box: SceneBox) -> str:
        """A box as the model writes it (A1)."""
        return self.profile.box_format.write(Box(*box.as_tuple()))

    def boxes(self, boxes: Sequence[SceneBox]) -> str:
        """Several boxes as the model writes them."""
        return ", ".join(map(self.box, boxes))

    @property
    def phrases(self) -> tuple[str, ...]:
        """The fixed text around a question: roles, and the instructions of all turns."""
        profile = self.profile
        groundings = profile.grounding_prompt, profile.regions_prompt, profile.deeper_prompt
        micros = profile.micro_prompt, profile.several_crops_prompt, profile.enough.prompt
        texts = (text.split("{question}")[0].strip() for text in (*groundings, *micros) if text)
        return USER, ASSISTANT, *filter(None, texts)
