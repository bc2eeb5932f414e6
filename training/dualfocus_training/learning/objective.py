"""Eq. 4: the sum of the cross-entropies of a conversation's answers, and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
# What an answer is: one of an ordinary VQA sample, the box of the first round (L1), or the answer
# of the second (L2). Eq. 4 adds the terms; recipes may weigh them.
TERMS = ("macro", "box", "answer")


@dataclass
class Targets:
    """What is to be learned of a sequence of tokens, in three lists of its length.

    `weights` shares one unit among the tokens of an answer, so that each term of Eq. 4 is a mean.
    """

    labels: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    terms: list[int] = field(default_factory=list)

    def pass_over(self, count: int) -> None:
        """Tokens that are given, not learned."""
        self.labels += [IGNORED] * count
        self.weights += [0.0] * count
        self.terms += [0] * count

    def learn(self, tokens: Sequence[int], term: str) -> None:
        """Tokens of one answer."""
        self.labels += tokens
        self.weights += [1 / len(tokens)] * len(tokens)
        self.terms += [TERMS.index(term)] * len(tokens)


@dataclass
class TargetBatch:
    """The targets of several sequences, padded on the right: (sequences, length) each."""

    labels: Tensor
    weights: Tensor
    terms: Tensor

    @property
    def learned(self) -> Tensor:
        """(sequences, length - 1): whether the token behind a place is to be learned."""
        return self.labels[:, 1:] != IGNORED

    def predicting(self) -> tuple[Tensor, Tensor]:
        """The places at which a token is predicted that is to be learned: (sequences, most of one), and which count."""
        counts = self.learned.sum(1)
        places = self.learned.int().argsort(dim=1, descending=True, stable=True)[:, : int(counts.max())]
        return places, torch.arange(places.shape[1], device=places.device) < counts[:, None]

    def to(self, device: torch.device) -> "TargetBatch":
        return TargetBatch(self.labels.to(device), self.weights.to(device), self.terms.to(device))


def padded_targets(targets: Sequence[Targets], length: int) -> TargetBatch:
    """Targets as tensors of `length`."""
    return TargetBatch(
        padded([one.labels for one in targets], length, IGNORED, torch.long),
        padded([one.weights for one in targets], length, 0.0, torch.float32),
        padded([one.terms for one in targets], length, 0, torch.long),
    )


def padded(values: Sequence[Sequence[float]], length: int, fill: float, dtype: torch.dtype) -> Tensor:
    """Rows of numbers as one tensor, filled up on the right."""
    return torch.tensor([[*value, *[fill] * (length - len(value))] for value in values], dtype=dtype)


def answer_losses(predicting: Tensor, head: torch.nn.Module, targets: TargetBatch) -> dict[str, Tensor]:
    """The sum over sequences of each term of Eq. 4, by name.

    `predicting`: (tokens that are learned, width), the states they are predicted from, of which `head` makes logits.
    """
    learned = targets.learned
    each = functional.cross_entropy(head(predicting).float(), targets.labels[:, 1:][learned], reduction="none")
    each = each * targets.weights[:, 1:][learned]
    terms = targets.terms[:, 1:][learned]
    return {name: each[terms == number].sum() for number, name in enumerate(TERMS)}
