"""Two rounds in one sequence for any image-text model of transformers (Section 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from dualfocus_training.learning.conversations import Conversation, Message
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
        losses = answer_losses(logits, nn.Identity(), batch.targets)
        return {name: loss / len(logits) for name, loss in losses.items()}


def collate_rounds(processor: Any, items: Sequence[tuple[Conversation, Sequence[Image.Image]]]) -> RoundsBatch:
    """Encode conversations piece by piece, so that answers start where generation would start them."""
    encoded = [_encode(processor, conversation, images) for conversation, images in items]
    length = max(len(targets.labels) for _, targets in encoded)
    pad = processor.tokenizer.pad_token_id
    inputs = {name: _joined(name, [pieces[name] for pieces, _ in encoded], length, pad) for name in encoded[0][0]}
    return RoundsBatch(inputs, padded_targets([targets for _, targets in encoded], length))


def _encode(
    processor: Any, conversation: Conversation, images: Sequence[Image.Image]
) -> tuple[dict[str, Tensor], Targets]:
    """Inputs and targets of one conversation; each message of the user's shows the next picture."""
    pieces: list[dict[str, Tensor]] = []
    targets, waiting = Targets(), iter(images)
    terms = iter(("box", "answer") if len(images) > 1 else ("macro",))
    for text, learned in _pieces(processor, conversation.messages):
        piece = _processed(processor, text, [] if learned else [next(waiting)], first=not pieces)
        pieces.append(piece)
        ids = piece["input_ids"][0].tolist()
        if learned:
            targets.learn(ids, next(terms))
        else:
            targets.pass_over(len(ids))
    return _appended(pieces), targets


def _pieces(processor: Any, messages: Sequence[Message]) -> list[tuple[str, bool]]:
    """The rendered conversation, cut before and after every answer."""
    pieces: list[tuple[str, bool]] = []
    done = ""
    for count, message in enumerate(messages, start=1):
        learned = message["role"] == "assistant"
        text = processor.apply_chat_template(messages[:count], add_generation_prompt=not learned)
        pieces.append((text.removeprefix(done), learned))
        done = text
    return pieces


def _processed(processor: Any, text: str, images: Sequence[Image.Image], first: bool) -> dict[str, Tensor]:
    tokenizer = processor.tokenizer
    opens = first and not text.startswith(tokenizer.bos_token or "\0")
    shown = {"images": list(images)} if images else {}
    return dict(processor(text=text, add_special_tokens=opens, return_tensors="pt", **shown))


def _appended(pieces: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Token-wise inputs follow one another; those of pictures are stacked."""
    names = dict.fromkeys(name for piece in pieces for name in piece)
    joined: dict[str, Tensor] = {}
    for name in names:
        parts = [piece[name] for piece in pieces if name in piece]
        joined[name] = torch.cat(parts, 1)[0] if _is_token_wise(name) else torch.cat(parts)
    return joined


def _joined(name: str, values: Sequence[Tensor], length: int, pad: int) -> Tensor:
    if not _is_token_wise(name):
        return torch.cat(list(values))
    fill = pad if name == "input_ids" else 0
    return torch.stack([_filled(value, length, fill) for value in values])


def _is_token_wise(name: str) -> bool:
    return name in ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")


def _filled(values: Tensor, length: int, fill: float) -> Tensor:
    return nn.functional.pad(values, (0, length - len(values)), value=fill)
