"""Training rows of scenes: one picture and several conversations about it.

A row is a shared prefix (the picture, now and then behind a system message) and branches that each see the prefix and
themselves. A picture is encoded once for all of them.
"""

from dataclasses import dataclass, field

import numpy as np
from dualfocus_engine.pictures.fitting import fit
from numpy.typing import NDArray
from PIL import Image

from dualfocus_training.learning.objective import Targets
from dualfocus_training.learning.patches import PatchLabels

Pixels = NDArray[np.uint8]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Eye:
    """What the encoder is shown: `side` pixels a side, in `patches` x `patches` patches."""

    side: int
    patches: int
    pad: tuple[int, int, int]

    def see(self, picture: Image.Image) -> Pixels:
        """The picture padded to a square and resized, as (side, side, 3) bytes."""
        return np.asarray(fit(picture, self.pad, self.side))


@dataclass(frozen=True)
class Mixture:
    """How many branches of each sort a row holds, and crops that are looked at without words.

    `verified`: two rounds on whether print is what the question says; `lists`: a box for each thing; `regions`: the
    same, then all crops in one micro turn; `inside`: where inside a crop; `deeper`: the same, then a micro turn with
    the crop of the crop; `enough`: whether what is seen is enough to answer.
    """

    macro: int = 0
    grounding: int = 0
    dual: int = 0
    jittered: int = 0
    verified: int = 0
    lists: int = 0
    regions: int = 0
    inside: int = 0
    deeper: int = 0
    enough: int = 0
    crops: int = 0


@dataclass
class Branch:
    """One conversation after the prefix, and the crops that it shows, in their order.

    `points` says of spans of tokens which tokens before them, the prefix counted in, they are read from.
    """

    tokens: list[int] = field(default_factory=list)
    targets: Targets = field(default_factory=Targets)
    crops: list[Pixels] = field(default_factory=list)
    points: list[tuple[slice, Places]] = field(default_factory=list)


@dataclass
class Row:
    """The prefix, the picture, branches, and crops without words.

    `patches` labels the picture, the branches' crops and the other crops, in this order.
    """

    prefix: list[int]
    picture: Pixels
    branches: list[Branch] = field(default_factory=list)
    crops: list[Pixels] = field(default_factory=list)
    patches: list[PatchLabels] = field(default_factory=list)
