"""Two rounds in one sequence for any image-text model of transformers (Section 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from dualfocus_engine.families.profiles import Profile
from PIL import Image
from torch import Tensor, nn

from dualfocus_training.learning.conversations import (
    IMAGE_LINE,
    Conversation,
    Message,
    asks,
    count_pictures,
    is_two_rounds,
)
from dualfocus_training.learning.objective import TargetBatch, Targets, answer_losses, padded_targets


@dataclass
class RoundsBatch:
    """The model's inputs, padded on the right, and what is learned of them."""

    inputs: dict[str, Tensor]
    targets: TargetBatch

    def to(self, device: torch.device) -> "RoundsBatch":
        moved = {name: value.to(device) for name, value in self.inputs.items()}
        return RoundsBatch(moved, self.targets.to(device))


class RoundsLearner(nn.Module):
    """Any image-text model under Eq. 4."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: RoundsBatch) -> dict[str, Tensor]:
        """The terms of Eq. 4, each the mean over the conversations of a batch."""
        logits = self.model(**batch.inputs, use_cache=False).logits
        losses = answer_losses(logits[:, :-1][batch.targets.learned], nn.Identity(), batch.targets)
        return {name: loss / len(logits) for name, loss in losses.items()}


@dataclass(frozen=True)
class Template:
    """How conversations become a model's inputs, as the server writes them: what its profile changes about the template
    goes before the model's own.
    """

    processor: Any
    profile: Profile

    def inputs(
        self, messages: Sequence[Message], images: Sequence[Image.Image], *, prompt: bool = False
    ) -> dict[str, Tensor]:
        """Tokens and pixels of a conversation, a batch of one; as a `prompt` it ends where an answer begins."""
        text = self._render(messages, prompt)
        opens = not text.startswith(self.processor.tokenizer.bos_token or "\0")
        shown = {"images": list(images)} if images else {}
        return dict(self.processor(text=text, add_special_tokens=opens, return_tensors="pt", **shown))

    def _render(self, messages: Sequence[Message], prompt: bool) -> str:
        profile = self.profile
        said = [message for message in messages if not (profile.drop_system_messages and message["role"] == "system")]
        if profile.system and said[0]["role"] != "system":
            said = [{"role": "system", "content": [{"type": "text", "text": profile.system}]}, *said]
        if not self._takes_parts:
            said = [message | {"content": _as_string(message)} for message in said]
        return self._as_text(said, prompt)

    def _as_text(self, messages: Sequence[Message], prompt: bool) -> str:
        own = {"chat_template": self.profile.chat_template} if self.profile.chat_template else {}
        own |= self.profile.chat_template_kwargs
        text: str = self.processor.apply_chat_template(messages, add_generation_prompt=prompt, **own)
        return text

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether the template takes a message's content as parts, as it is kept here; else it takes one text."""
        if self.profile.chat_template_content_format != "auto":
            return self.profile.chat_template_content_format == "openai"
        try:
            return "'text'" not in self._as_text([asks("a", pictures=0)], prompt=False)
        except TypeError:  # text and list can't be joined
            return False


def collate_rounds(template: Template, items: Sequence[tuple[Conversation, Sequence[Image.Image]]]) -> RoundsBatch:
    """Encode conversations; what is learned of each starts where generation would start it.

    Raises ValueError where the template ends an answer without the token that ends it: it would not be learned.
    """
    encoded = [_encode(template, conversation, images) for conversation, images in items]
    length = max(len(targets.labels) for _, targets in encoded)
    names = dict.fromkeys(name for inputs, _ in encoded for name in inputs)
    pad = template.processor.tokenizer.pad_token_id
    inputs = {
        name: _joined(name, [inputs[name] for inputs, _ in encoded if name in inputs], length, pad) for name in names
    }
    return RoundsBatch(inputs, padded_targets([targets for _, targets in encoded], length))


def _encode(
    template: Template, conversation: Conversation, images: Sequence[Image.Image]
) -> tuple[dict[str, Tensor], Targets]:
    """Inputs and targets of one conversation."""
    messages, closing = conversation.messages, template.processor.tokenizer.eos_token_id
    inputs, targets = template.inputs(messages, images), Targets()
    ids: list[int] = inputs["input_ids"][0].tolist()
    places = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    terms = ("box", "answer") if is_two_rounds(conversation) else ("macro",) * len(places)
    for place, term in zip(places, terms, strict=True):
        shown = images[: count_pictures(messages[:place])]
        start = _shared(ids, template.inputs(messages[:place], shown, prompt=True))
        end = _shared(ids, template.inputs(messages[: place + 1], shown))
        if closing not in ids[start:end]:
            raise ValueError(
                "the chat template ends no answer with eos_token: give the profile a chat_template that does"
            )
        targets.pass_over(start - len(targets.labels))
        targets.learn(ids[start:end], term)
    targets.pass_over(len(ids) - len(targets.labels))
    return inputs, targets


def _shared(ids: Sequence[int], beginning: dict[str, Tensor]) -> int:
    """How many tokens a conversation shares with its beginning: all of that but what its last ones may grow into."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(ids, beginning["input_ids"][0].tolist(), strict=False))
    return sum(1 for _ in same)


def _as_string(message: Message) -> str:
    """A message's content for templates that take it as one: a line for each picture, then the text."""
    return "".join(IMAGE_LINE if part["type"] == "image" else part["text"] for part in message["content"])


def _joined(name: str, values: Sequence[Tensor], length: int, pad: int) -> Tensor:
    if not _is_token_wise(name):
        return torch.cat(list(values))
    fill = pad if name == "input_ids" else 0
    return torch.cat([_filled(value, length, fill) for value in values])


def _is_token_wise(name: str) -> bool:
    return name in ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")


def _filled(values: Tensor, length: int, fill: float) -> Tensor:
    return nn.functional.pad(values, (0, length - values.shape[1]), value=fill)
