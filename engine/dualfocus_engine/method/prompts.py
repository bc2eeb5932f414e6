"""Prompts as token ids: a turn that continues another is built from ids, never from text tokenized again.

The micro turn's begins with the grounding turn's (`Prompt.continued`), so the engine finds it in its prefix cache.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dualfocus_engine.pictures.pictures import Picture

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """What all turns of a question are run with, besides its text: vLLM's own fields of a request.

    `template_kwargs` are given to the chat template over the profile's. Prefixes are shared only among turns of one
    `cache_salt` and one adapter. A lower `priority` goes first, where the engine heeds it. `processor_kwargs` are told
    to the model's picture processor. `thinks` is false where a grammar holds from an answer's first token on.
    """

    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    cache_salt: str | None = None
    priority: int = 0
    lora_request: "LoRARequest | None" = None
    processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    thinks: bool = True

    def with_template_kwargs(self, more: Mapping[str, Any]) -> "TurnOptions":
        """Return the options with more for the template, over what it was given."""
        return replace(self, template_kwargs={**self.template_kwargs, **more})


NO_OPTIONS = TurnOptions()


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids with one placeholder an image, the pictures of the placeholders in their order, and how it is run.

    `replied` of its tokens are turns of this question that were replied to: their thoughts are none of the next one.
    """

    token_ids: tuple[int, ...]
    pictures: tuple[Picture, ...]
    options: TurnOptions = NO_OPTIONS
    replied: int = 0

    def opened(self, opening: Sequence[int]) -> "Prompt":
        """Return this prompt with the first tokens of the reply written already."""
        return replace(self, token_ids=self.token_ids + tuple(opening))

    def with_patch(self, place: int, crop: Picture) -> "Prompt":
        """Return this prompt with a crop as a further patch of one of its pictures."""
        before, picture, after = self.pictures[:place], self.pictures[place], self.pictures[place + 1 :]
        return replace(self, pictures=(*before, picture.with_patch(crop), *after))

    def continued(self, reply: Sequence[int], follow_up: "Prompt") -> "Prompt":
        """Return this prompt, the model's reply to it, and what follows the reply.

        The reply keeps its generated tokens; its closing token is not doubled where the follow-up opens with it.
        """
        closed = bool(reply and follow_up.token_ids and reply[-1] == follow_up.token_ids[0])
        body = tuple(reply[:-1] if closed else reply)
        before, pictures = self.token_ids + body, self.pictures + follow_up.pictures
        return Prompt(before + follow_up.token_ids, pictures, follow_up.options, len(before))
