"""How rows of scenes come about: a scene by number, questions about it, and a branch for each conversation.

Branches are macro turns, grounding turns, two-round conversations (Section 3.3), micro turns from a box that is
slightly off, as the model's own will be, and what the paper has not: several regions, a crop of the crop, is it enough.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random

import numpy as np
from dualfocus_engine.families.boxes import Box as EngineBox
from dualfocus_engine.families.boxes import Region, crop_region
from dualfocus_engine.families.regions import places_of
from dualfocus_eval.boxes import Box
from dualfocus_eval.scenes.drawing import draw
from dualfocus_eval.scenes.layout import Difficulty, Scene, compose
from dualfocus_eval.scenes.questions import Question, ask, ask_to_verify
from dualfocus_eval.scenes.together import ask_together
from tokenizers import Tokenizer

from dualfocus_training.learning.conversations import IMAGE_LINE, USER, Wording
from dualfocus_training.learning.patches import PatchLabels, label_patches
from dualfocus_training.learning.rows import Branch, Eye, Mixture, Pixels, Places, Row
from dualfocus_training.learning.system_messages import system_message
from dualfocus_training.learning.views import deeper_box, is_enough, jitter, widen
from dualfocus_training.models.vocabulary import BEGIN, END, IMAGE

# Larger pictures, and crops, are drawn at this many pixels: the encoder is shown far fewer.
_LARGEST_DRAWN = 1024
# Boxes that are off, but near enough for the crop to show what is asked about.
_NEAR = (0.06, 0.15, 0.3)
# The share of the regions and deeper branches whose boxes are off: their crops are shown, the boxes no target.
_OFF = 0.35

# A part of an answer, and the tokens that it is read from.
_Read = tuple[str, Places]


@dataclass(frozen=True)
class SceneRows:
    """Rows by number: the same number gives the same row in any process.

    `system` is the share of rows that begin with a system message.
    """

    seed: int
    difficulties: Sequence[Difficulty]
    mixture: Mixture
    tokenizer: Tokenizer
    wording: Wording
    eye: Eye
    system: float = 0.0

    def image_line(self, pictures: int = 1) -> str:
        """How a user's turn with pictures begins, a token for each patch."""
        return USER + IMAGE_LINE.replace(IMAGE, IMAGE * self.eye.patches**2) * pictures

    def encode(self, text: str) -> list[int]:
        """Tokens of a text in which special tokens are written out."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def __getitem__(self, number: int) -> Row:
        rng = Random(f"row/{self.seed}/{number}")
        scene = compose(rng, rng.choice(self.difficulties))
        questions = ask(scene, rng)
        together = ask_together(scene, rng) if self.mixture.lists or self.mixture.regions else []
        return _Packer(self, scene, rng).pack(questions, together)


class _Packer:
    """Builds one row."""

    def __init__(self, rows: SceneRows, scene: Scene, rng: Random) -> None:
        self._rows, self._scene, self._rng = rows, scene, rng
        self._size = (scene.width, scene.height)
        self._scale = _scale_of(self._size)
        self._picture = draw(scene, scale=self._scale)
        self._patches: list[PatchLabels] = []
        system = f"{system_message(rng)} " if rows.system and rng.random() < rows.system else ""
        self._prefix = rows.encode(BEGIN + system + rows.image_line())
        self._image_token = rows.encode(IMAGE)[0]

    def pack(self, questions: list[Question], together: list[Question]) -> Row:
        """Make the branches; `together` are questions about several shapes apart."""
        mixture, rng = self._rows.mixture, self._rng
        details, others = _split(questions)
        ordered, all_of_them = _two_to_one(details, others), [*questions, *together]
        apart = _two_to_one(together, rng.sample(questions, len(questions)))
        reading = rng.sample([*details, *together], len(details) + len(together))
        verified = ask_to_verify(self._scene, rng) if mixture.verified else []
        picture = self._look(Region(0, 0, *self._size))
        branches = [
            *map(self._macro, rng.sample(all_of_them, min(mixture.macro, len(all_of_them)))),
            *map(self._grounding, ordered[: mixture.grounding]),
            *map(self._dual, ordered[mixture.grounding :][: mixture.dual] or ordered[: mixture.dual]),
            *map(self._jittered, rng.sample(ordered, min(mixture.jittered, len(ordered)))),
            *map(self._dual, verified[: mixture.verified]),
            *map(self._lists, apart[: mixture.lists]),
            *map(self._regions, apart[mixture.lists :][: mixture.regions] or apart[: mixture.regions]),
            *map(self._inside, ordered[: mixture.inside]),
            *map(self._deeper, ordered[mixture.inside :][: mixture.deeper] or ordered[: mixture.deeper]),
            *chain.from_iterable(map(self._enough, _two_to_one(reading, others)[: mixture.enough])),
        ]
        seen = rng.sample(details, min(mixture.crops, len(details)))
        crops = [self._look(self._region(jitter(question.box, rng))) for question in seen]
        return Row(self._prefix, picture, branches, crops, self._patches)

    def _macro(self, question: Question) -> Branch:
        branch = Branch()
        self._write(branch, self._rows.wording.macro(question.question))
        self._reply(branch, question, "macro", [self._patches[0]])
        return branch

    def _grounding(self, question: Question) -> Branch:
        branch = Branch()
        self._write(branch, self._rows.wording.grounding(question.question))
        places = self._shown(branch, 0, _to_find(question.about, self._patches[0]))
        self._answer(branch, "box", [(self._rows.wording.box(question.box), places)])
        return branch

    def _dual(self, question: Question) -> Branch:
        branch = self._grounding(question)
        self._micro(branch, question, [self._region(question.box)])
        return branch

    def _jittered(self, question: Question) -> Branch:
        """The micro turn after a box that is off; the box itself is no target."""
        branch, box = Branch(), jitter(question.box, self._rng)
        self._write(branch, self._given(question, box))
        self._micro(branch, question, [self._region(box)])
        return branch

    def _lists(self, question: Question) -> Branch:
        """A box for each thing, in the order in which the question names them."""
        branch, wording = Branch(), self._rows.wording
        self._write(branch, wording.regions(question.question))
        abouts: list[tuple[int, ...]] = [(place,) for place in question.about] or [()]
        found = [self._shown(branch, 0, _to_find(about, self._patches[0])) for about in abouts]
        self._answer(branch, "box", list(zip(map(wording.box, question.boxes), found, strict=True)), ", ")
        return branch

    def _regions(self, question: Question) -> Branch:
        """The same, or boxes that are off and no target, then a crop of each place in one micro turn."""
        wording, boxes = self._rows.wording, question.boxes
        if self._rng.random() < _OFF:
            branch, boxes = Branch(), tuple(jitter(box, self._rng, _NEAR) for box in boxes)
            self._write(branch, wording.regions(question.question) + wording.boxes(boxes) + END)
        else:
            branch = self._lists(question)
        profile = wording.profile
        places = places_of(map(_as_engine_box, boxes), self._size, profile.crop, profile.max_regions)
        self._micro(branch, question, [place.crop for place in places])
        return branch

    def _inside(self, question: Question) -> Branch:
        """Where inside a crop, which is of the box or of far too wide a one."""
        branch, region = self._first_crop(question)
        self._write_inner(branch, question, deeper_box(self._scene, question, region))
        return branch

    def _deeper(self, question: Question) -> Branch:
        """The same, or a box that is off and no target, then the crop of the crop."""
        branch, region = self._first_crop(question)
        inner = deeper_box(self._scene, question, region)
        if self._rng.random() < _OFF:
            inner = jitter(inner, self._rng, _NEAR)
            self._write(branch, self._rows.wording.box(inner) + END)
        else:
            self._write_inner(branch, question, inner)
        self._micro(branch, question, [self._part(inner, region)])
        return branch

    def _first_crop(self, question: Question) -> tuple[Branch, Region]:
        """A crop behind a box that is given, and the question where in it."""
        branch, rng = Branch(), self._rng
        box = widen(question.box, rng) if rng.random() < 0.5 else question.box
        self._write(branch, self._given(question, box))
        region = self._region(box)
        self._show(branch, [region], self._rows.wording.deeper(question.question))
        return branch, region

    def _write_inner(self, branch: Branch, question: Question, inner: Box) -> None:
        places = self._shown(branch, 1, _to_read(question, self._patches[-1]))
        self._answer(branch, "box", [(self._rows.wording.box(inner), places)])

    def _enough(self, question: Question) -> list[Branch]:
        """Whether the views so far show the answer; none where nobody can say."""
        branch, text = Branch(), self._rows.wording.enough(question.question)
        views = self._views(question)
        enough = is_enough(self._scene, question, [view for view, _ in views], self._rows.eye.side)
        if enough is None:
            return []
        for view, told in views:
            self._write(branch, told)
            self._show(branch, [view], "")
        self._write(branch, text)
        self._answer(branch, "answer", [(self._rows.wording.verdict(enough), _NOWHERE)])
        return [branch]

    def _views(self, question: Question) -> list[tuple[Region, str]]:
        """No crop, one (off, or too wide) or two, each with the text before it: where it is, and its box."""
        rng, wording = self._rng, self._rows.wording
        count = rng.choice((0, 0, 1, 1, 1, 2))
        if count == 0:
            return []
        box = widen(question.box, rng) if rng.random() < 0.4 else jitter(question.box, rng)
        first = self._region(box)
        if count == 1:
            return [(first, self._given(question, box))]
        inner = jitter(deeper_box(self._scene, question, first), rng, _NEAR)
        told = wording.deeper(question.question) + wording.box(inner) + END
        return [(first, self._given(question, box)), (self._part(inner, first), told)]

    def _given(self, question: Question, box: Box) -> str:
        """A grounding turn whose box is given, not learned."""
        return self._rows.wording.grounding(question.question) + self._rows.wording.box(box) + END

    def _micro(self, branch: Branch, question: Question, regions: Sequence[Region]) -> None:
        self._show(branch, regions, self._rows.wording.micro(question.question, len(regions)))
        self._reply(branch, question, "answer", self._patches[-len(regions) :])

    def _show(self, branch: Branch, regions: Sequence[Region], text: str) -> None:
        """A user's turn with crops."""
        branch.crops += map(self._look, regions)
        self._write(branch, self._rows.image_line(len(regions)) + text)

    def _reply(self, branch: Branch, question: Question, term: str, shown: Sequence[PatchLabels]) -> None:
        """The answer to a question, read from the last pictures; of several prints each from its own."""
        before = 1 + len(branch.crops) - len(shown)

        def places(about: Iterable[int]) -> Places:
            found = [
                self._shown(branch, before + number, _to_read(question, labels, about))
                for number, labels in enumerate(shown)
            ]
            return np.concatenate(found)

        parts = [(question.answer, places(question.about))]
        if question.kind == "several":
            parts = [(self._scene.shapes[place].print.text, places([place])) for place in question.about]
        self._answer(branch, term, parts, whole=question.answer)

    def _shown(self, branch: Branch, number: int, patches: Places) -> Places:
        """Where patches of the picture with this number (0 is the whole one) stand among the tokens so far."""
        places: Places = np.flatnonzero(np.array([*self._prefix, *branch.tokens]) == self._image_token)
        return places[number * self._rows.eye.patches**2 :][patches]

    def _region(self, box: Box) -> Region:
        region = crop_region(_as_engine_box(box), self._size, self._rows.wording.profile.crop)
        assert region is not None, "a box of a scene always holds pixels"
        return region

    def _part(self, box: Box, region: Region) -> Region:
        """The crop of a box that is one of a crop."""
        within = _as_engine_box(box).within(region, self._size)
        return self._region(Box(*within.as_tuple()))

    def _look(self, region: Region) -> Pixels:
        eye = self._rows.eye
        self._patches.append(label_patches(self._scene, region, eye.side, eye.patches))
        if region == (0, 0, *self._size):
            return eye.see(self._picture)
        if self._scale == 1:
            return eye.see(self._picture.crop(region))
        return eye.see(draw(self._scene, region, _scale_of((region.right - region.left, region.bottom - region.top))))

    def _write(self, branch: Branch, text: str) -> None:
        ids = self._rows.encode(text)
        branch.tokens += ids
        branch.targets.pass_over(len(ids))

    def _answer(self, branch: Branch, term: str, reads: Sequence[_Read], joint: str = "", whole: str = "") -> None:
        """What the model is to write: parts in order, each read from its places; what closes it from nowhere."""
        text = whole or joint.join(part for part, _ in reads)
        start = len(branch.tokens) - 1  # where the first token is predicted
        done = 0
        for part, places in reads:
            done = text.index(part, done) + len(part)
            first = len(self._rows.encode(text[: done - len(part)].rstrip(" ,")))
            if len(places):
                branch.points.append((slice(start + first, start + len(self._rows.encode(text[:done]))), places))
        ids = self._rows.encode(text + END)
        branch.tokens += ids
        branch.targets.learn(ids, term)


_NOWHERE: Places = np.array([], np.int64)


def _scale_of(size: tuple[int, int]) -> float:
    return min(1.0, _LARGEST_DRAWN / max(size))


def _as_engine_box(box: Box) -> EngineBox:
    return EngineBox(*box.as_tuple())


def _to_find(about: Iterable[int], labels: PatchLabels) -> Places:
    """The patches that show some shapes; of one that covers too little of any patch, that of its centre."""
    about = list(about)
    places: Places = np.flatnonzero(np.isin(labels.owners, about))
    hidden = [labels.centres[place] for place in about if place not in labels.owners and labels.centres[place] >= 0]
    return np.union1d(places, np.array(hidden, np.int64))


def _to_read(question: Question, labels: PatchLabels, about: Iterable[int] | None = None) -> Places:
    """The patches that its answer is read from: where print is asked for, those that hold it."""
    found = _to_find(question.about if about is None else about, labels)
    return found if question.kind == "global" else found[labels.printed[found]]


def _split(questions: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """Questions on details, and others."""
    details = [question for question in questions if question.kind == "detail"]
    return details, [question for question in questions if question.kind != "detail"]


def _two_to_one(first: Sequence[Question], second: Sequence[Question]) -> list[Question]:
    """Two of the first for every one of the second, each in its own order."""
    mixed: list[Question] = []
    while first or second:
        mixed += [*first[:2], *second[:1]]
        first, second = first[2:], second[1:]
    return mixed
