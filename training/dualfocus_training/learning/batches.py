"""Rows made into tensors; branches of like length are batched together behind their prefix."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from dualfocus_training.learning.objective import TargetBatch, padded, padded_targets
from dualfocus_training.learning.patches import PatchLabels
from dualfocus_training.learning.rows import Branch, Pixels, Row


@dataclass
class Group:
    """Branches of like length. `tokens` and `targets`: (branches, length); `rows`: (branches,).

    `rows` says behind which row's prefix a branch stands; `crops` counts the crops of all;
    `points`: (branches, length, prefix + length), which tokens a token is to be read from.
    """

    tokens: Tensor
    targets: TargetBatch
    rows: Tensor
    crops: int
    points: Tensor


@dataclass
class Batch:
    """The prefixes, groups of branches, and pictures: of the rows, of the groups, and others.

    `prefix`: (rows, length), padded on the left, where `before`, of the same shape, is False. `pictures`: (pictures,
    side, side, 3) bytes; `classes`, `corners` and `cover`: the patch labels, (pictures, patches², …). `apart` keeps
    what the words teach from the encoder.
    """

    prefix: Tensor
    before: Tensor
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
    """Group the branches of rows by the crops they show; those without into macro turns and grounding turns."""
    sorts: dict[tuple[int, bool], list[_Placed]] = {}
    for number, row in enumerate(rows):
        labels = iter(row.patches[1:])
        for branch in row.branches:
            key = (len(branch.crops), len(branch.tokens) > _SHORT)
            shown = list(zip(branch.crops, labels, strict=False))
            sorts.setdefault(key, []).append(_Placed(number, branch, shown))
    longest = max(len(row.prefix) for row in rows)
    shown = [(row.picture, row.patches[0]) for row in rows]
    shown += [view for sort in sorts.values() for placed in sort for view in placed.shown]
    for row in rows:
        shown += zip(row.crops, row.patches[len(row.patches) - len(row.crops) :], strict=True)
    return Batch(
        prefix=torch.tensor([[*[pad] * (longest - len(row.prefix)), *row.prefix] for row in rows]),
        before=torch.tensor([[place >= longest - len(row.prefix) for place in range(longest)] for row in rows]),
        groups=[_group(sort, pad, longest, rows) for sort in sorts.values()],
        pictures=torch.from_numpy(np.stack([picture for picture, _ in shown])),
        classes=torch.from_numpy(np.stack([labels.classes for _, labels in shown])),
        corners=torch.from_numpy(np.stack([labels.corners for _, labels in shown])),
        cover=torch.from_numpy(np.stack([labels.cover for _, labels in shown])),
        apart=apart,
    )


class _Placed(NamedTuple):
    """A branch, the number of its row, and its crops with what their patches show."""

    row: int
    branch: Branch
    shown: list[tuple[Pixels, PatchLabels]]


# Macro turns are shorter than this, grounding turns longer: apart they need little padding.
_SHORT = 20


def _group(sort: Sequence[_Placed], pad: int, before: int, rows: Sequence[Row]) -> Group:
    branches = [placed.branch for placed in sort]
    length = max(len(branch.tokens) for branch in branches)
    return Group(
        tokens=padded([branch.tokens for branch in branches], length, pad, torch.long),
        targets=padded_targets([branch.targets for branch in branches], length),
        rows=torch.tensor([placed.row for placed in sort]),
        crops=sum(len(branch.crops) for branch in branches),
        points=_points(sort, length, before, rows),
    )


def _points(sort: Sequence[_Placed], length: int, before: int, rows: Sequence[Row]) -> Tensor:
    points = torch.zeros(len(sort), length, before + length, dtype=torch.bool)
    for number, placed in enumerate(sort):
        padding = before - len(rows[placed.row].prefix)
        for span, places in placed.branch.points:
            points[number, span, torch.from_numpy(places + padding)] = True
    return points
