"""Rows made into tensors; branches of like length are batched together behind their prefix."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dualfocus_training.learning.objective import TargetBatch, padded, padded_targets
from dualfocus_training.learning.rows import Branch, Row


@dataclass
class Group:
    """Branches of like length. `tokens` and `targets`: (branches, length); `rows`: (branches,).

    `rows` says behind which row's prefix a branch stands; `crops` counts those that show a crop;
    `points`: (branches, length, prefix + length), which tokens a token is to be read from.
    """

    tokens: Tensor
    targets: TargetBatch
    rows: Tensor
    crops: int
    points: Tensor


@dataclass
class Batch:
    """The prefix tokens, groups of branches, and pictures: of the rows, of the groups, and others.

    `pictures`: (pictures, side, side, 3) bytes; `classes`, `corners` and `cover`: the patch labels,
    (pictures, patches², …). `apart` keeps what the words teach from the encoder.
    """

    prefix: Tensor
    rows: int
    groups: list[Group]
    pictures: Tensor
    classes: Tensor
    corners: Tensor
    cover: Tensor
    apart: bool

    @property
    def conversations(self) -> int:
        return sum(len(group.rows) for group in self.groups)

    def to(self, device: torch.device) -> "Batch":
        groups = [replace(_moved(group, device), targets=group.targets.to(device)) for group in self.groups]
        return replace(_moved(self, device), groups=groups)


Parts = TypeVar("Parts", Batch, Group)


def _moved(parts: Parts, device: torch.device) -> Parts:
    tensors = {name: value for name, value in vars(parts).items() if isinstance(value, Tensor)}
    return replace(parts, **{name: value.to(device, non_blocking=True) for name, value in tensors.items()})


def collate(rows: Sequence[Row], pad: int, apart: bool = False) -> Batch:
    """Group the branches of rows: macro turns, grounding turns, and those with a crop."""
    sorts: dict[tuple[bool, bool], list[tuple[int, Branch, int]]] = {}
    for number, row in enumerate(rows):
        crops = iter(range(1, len(row.patches)))
        for branch in row.branches:
            shows = branch.crop is not None
            key = (shows, len(branch.tokens) > _SHORT)
            sorts.setdefault(key, []).append((number, branch, next(crops) if shows else 0))
    before = len(rows[0].prefix)
    groups = [_group([(number, branch) for number, branch, _ in sort], pad, before) for sort in sorts.values()]
    shown = [(row.picture, row.patches[0]) for row in rows]
    shown += [
        (branch.crop, rows[number].patches[place])
        for sort in sorts.values()
        for number, branch, place in sort
        if branch.crop is not None
    ]
    for row in rows:
        shown += zip(row.crops, row.patches[len(row.patches) - len(row.crops) :], strict=True)
    return Batch(
        prefix=torch.tensor(rows[0].prefix),
        rows=len(rows),
        groups=groups,
        pictures=torch.from_numpy(np.stack([picture for picture, _ in shown])),
        classes=torch.from_numpy(np.stack([labels.classes for _, labels in shown])),
        corners=torch.from_numpy(np.stack([labels.corners for _, labels in shown])),
        cover=torch.from_numpy(np.stack([labels.cover for _, labels in shown])),
        apart=apart,
    )


# Macro turns are shorter than this, grounding turns longer: apart they need little padding.
_SHORT = 20


def _group(branches: Sequence[tuple[int, Branch]], pad: int, before: int) -> Group:
    length = max(len(branch.tokens) for _, branch in branches)
    return Group(
        tokens=padded([branch.tokens for _, branch in branches], length, pad, torch.long),
        targets=padded_targets([branch.targets for _, branch in branches], length),
        rows=torch.tensor([number for number, _ in branches]),
        crops=sum(branch.crop is not None for _, branch in branches),
        points=_points([branch for _, branch in branches], length, before),
    )


def _points(branches: Sequence[Branch], length: int, before: int) -> Tensor:
    points = torch.zeros(len(branches), length, before + length, dtype=torch.bool)
    for number, branch in enumerate(branches):
        for span, places in branch.points:
            points[number, span, torch.from_numpy(places)] = True
    return points
