"""Prompts as token ids: a turn that continues another is built from ids, never from text tokenized again.

The micro turn's begins with the grounding turn's (`TurnRunner._continue`), so the engine finds it in its prefix cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dualfocus_engine.pictures.pictures import Picture


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids with one placeholder an image, and the pictures of the placeholders in their order."""

    token_ids: tuple[int, ...]
    pictures: tuple[Picture, ...]

    def opened(self, opening: Sequence[int]) -> "Prompt":
        """Return this prompt with the first tokens of the reply written already."""
        return Prompt(self.token_ids + tuple(opening), self.pictures)

    def continued(self, reply: Sequence[int], follow_up: "Prompt") -> "Prompt":
        """Return this prompt, the model's reply to it, and what follows the reply.

        The reply keeps its generated tokens; its closing token is not doubled where the follow-up opens with it.
        """
        closed = bool(reply and follow_up.token_ids and reply[-1] == follow_up.token_ids[0])
        body = tuple(reply[:-1] if closed else reply)
        return Prompt(self.token_ids + body + follow_up.token_ids, self.pictures + follow_up.pictures)
