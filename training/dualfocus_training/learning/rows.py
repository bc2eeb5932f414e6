"""Training rows of scenes: one picture and several conversations about it.

A row is a shared prefix (the picture) and branches that each see the prefix and themselves:
macro turns, grounding turns, two-round conversations (Section 3.3) and micro turns from a box
that is slightly off, as the model's own will be. A picture is encoded once for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
from dualfocus_engine.families.boxes import Box as EngineBox
from dualfocus_engine.families.boxes import Region, crop_region
from dualfocus_engine.pictures.fitting import fit
from dualfocus_eval.boxes import Box
from dualfocus_eval.scenes.drawing import draw
from dualfocus_eval.scenes.layout import Difficulty, Scene, compose
from dualfocus_eval.scenes.questions import Question, ask
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from dualfocus_training.learning.conversations import IMAGE_LINE, USER, Wording
from dualfocus_training.learning.objective import Targets
from dualfocus_training.learning.patches import PatchLabels, label_patches
from dualfocus_training.models.vocabulary import BEGIN, END, IMAGE

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
    """How many branches of each sort a row holds, and crops that are looked at without words."""

    macro: int = 0
    grounding: int = 0
    dual: int = 0
    jittered: int = 0
    crops: int = 0


@dataclass
class Branch:
    """One conversation after the prefix, and the crop its micro turn shows, if it has one.

    `points` says of spans of tokens which tokens before them, the prefix counted in, they are read from.
    """

    tokens: list[int] = field(default_factory=list)
    targets: Targets = field(default_factory=Targets)
    crop: Pixels | None = None
    points: list[tuple[slice, Places]] = field(default_factory=list)


@dataclass
class Row:
    """The prefix (the same for all rows), the picture, branches, and crops without words.

    `patches` labels the picture, the branches' crops and the other crops, in this order.
    """

    prefix: list[int]
    picture: Pixels
    branches: list[Branch] = field(default_factory=list)
    crops: list[Pixels] = field(default_factory=list)
    patches: list[PatchLabels] = field(default_factory=list)


@dataclass(frozen=True)
class SceneRows:
    """Rows by number: the same number gives the same row in any process."""

    seed: int
    difficulties: Sequence[Difficulty]
    mixture: Mixture
    tokenizer: Tokenizer
    wording: Wording
    eye: Eye

    @property
    def image_line(self) -> str:
        """How a user's turn with a picture begins, a token for each patch."""
        return USER + IMAGE_LINE.replace(IMAGE, IMAGE * self.eye.patches**2)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text in which special tokens are written out."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def __getitem__(self, number: int) -> Row:
        rng = Random(f"row/{self.seed}/{number}")
        scene = compose(rng, rng.choice(self.difficulties))
        return _Packer(self, scene, rng).pack(ask(scene, rng))


class _Packer:
    """Builds one row."""

    def __init__(self, rows: SceneRows, scene: Scene, rng: Random) -> None:
        self._rows = rows
        self._scene = scene
        self._rng = rng
        self._picture = draw(scene)
        self._patches: list[PatchLabels] = []
        self._prefix = rows.encode(BEGIN + rows.image_line)
        self._image_token = rows.encode(IMAGE)[0]

    def pack(self, questions: list[Question]) -> Row:
        mixture, rng = self._rows.mixture, self._rng
        ordered = _details_first(questions)
        picture = self._look(Region(0, 0, self._scene.width, self._scene.height))
        branches = [
            *map(self._macro, rng.sample(questions, min(mixture.macro, len(questions)))),
            *map(self._grounding, ordered[: mixture.grounding]),
            *map(self._dual, ordered[mixture.grounding :][: mixture.dual] or ordered[: mixture.dual]),
            *map(self._jittered, rng.sample(ordered, min(mixture.jittered, len(ordered)))),
        ]
        details = [question for question in questions if question.kind == "detail"]
        seen = rng.sample(details, min(mixture.crops, len(details)))
        crops = [self._look(self._region(jitter(question.box, rng))) for question in seen]
        return Row(self._prefix, picture, branches, crops, self._patches)

    def _macro(self, question: Question) -> Branch:
        branch = Branch()
        self._write(branch, self._rows.wording.macro(question.question))
        self._answer(branch, question.answer, "macro", self._shown(_to_read(question, self._patches[0])))
        return branch

    def _grounding(self, question: Question) -> Branch:
        branch = Branch()
        self._write(branch, self._rows.wording.grounding(question.question))
        places = self._shown(_to_find(question, self._patches[0]))
        self._answer(branch, self._rows.wording.box(question.box), "box", places)
        return branch

    def _dual(self, question: Question) -> Branch:
        branch = self._grounding(question)
        self._micro(branch, question, question.box)
        return branch

    def _jittered(self, question: Question) -> Branch:
        """The micro turn after a box that is off; the box itself is no target."""
        branch, wording = Branch(), self._rows.wording
        box = jitter(question.box, self._rng)
        self._write(branch, wording.grounding(question.question) + wording.box(box) + END)
        self._micro(branch, question, box)
        return branch

    def _micro(self, branch: Branch, question: Question, box: Box) -> None:
        branch.crop = self._look(self._region(box))
        self._write(branch, self._rows.image_line + self._rows.wording.micro(question.question))
        places = self._shown(_to_read(question, self._patches[-1]), [*self._prefix, *branch.tokens])
        self._answer(branch, question.answer, "answer", places)

    def _shown(self, patches: Places, tokens: Sequence[int] | None = None) -> Places:
        """Where patches of a picture stand among tokens: of the last picture in `tokens`, or in the prefix."""
        places: Places = np.flatnonzero(np.array(tokens or self._prefix) == self._image_token)
        return places[len(places) - self._rows.eye.patches**2 :][patches]

    def _region(self, box: Box) -> Region:
        size = (self._scene.width, self._scene.height)
        region = crop_region(EngineBox(*box.as_tuple()), size, self._rows.wording.profile.crop)
        assert region is not None, "a box of a scene always holds pixels"
        return region

    def _look(self, region: Region) -> Pixels:
        eye = self._rows.eye
        self._patches.append(label_patches(self._scene, region, eye.side, eye.patches))
        return eye.see(self._picture.crop(region))

    def _write(self, branch: Branch, text: str) -> None:
        ids = self._rows.encode(text)
        branch.tokens += ids
        branch.targets.pass_over(len(ids))

    def _answer(self, branch: Branch, text: str, term: str, places: Places) -> None:
        """What the model is to write, read from `places`; its closing token is read from nowhere."""
        ids = self._rows.encode(text + END)
        if len(places):
            start = len(branch.tokens) - 1  # where the first token is predicted
            branch.points.append((slice(start, start + len(ids) - 1), places))
        branch.tokens += ids
        branch.targets.learn(ids, term)


def _to_find(question: Question, labels: PatchLabels) -> Places:
    """The patches that show what a question is about."""
    places: Places = np.flatnonzero(np.isin(labels.owners, question.about))
    return places


def _to_read(question: Question, labels: PatchLabels) -> Places:
    """The patches that its answer is read from: where a detail is asked, those that hold the print."""
    found = _to_find(question, labels)
    return found if question.kind == "global" else found[labels.printed[found]]


def _details_first(questions: list[Question]) -> list[Question]:
    """About two detail questions for every other one, each sort in its own random order."""
    details = [question for question in questions if question.kind == "detail"]
    others = [question for question in questions if question.kind != "detail"]
    mixed: list[Question] = []
    while details or others:
        mixed += details[:2] + others[:1]
        details, others = details[2:], others[1:]
    return mixed


def jitter(box: Box, rng: Random) -> Box:
    """A box moved and resized at random, as a model's own boxes are; still at least 0.03 a side.

    Some miss altogether, so that a model learns to be surprised by its answer where the crop does not show it.
    """
    wide, high = box.x2 - box.x1, box.y2 - box.y1
    spread = rng.choice((0.06, 0.15, 0.3, 1.5))
    x = (box.x1 + box.x2) / 2 + rng.gauss(0, spread) * wide
    y = (box.y1 + box.y2) / 2 + rng.gauss(0, spread) * high
    wide *= 2 ** rng.gauss(0, spread)
    high *= 2 ** rng.gauss(0, spread)
    x1, y1 = (min(0.97, max(0.0, low)) for low in (x - wide / 2, y - high / 2))
    x2, y2 = min(1.0, max(x1 + 0.03, x + wide / 2)), min(1.0, max(y1 + 0.03, y + high / 2))
    return Box(x1, y1, x2, y2)
