"""How a model looks on beyond the second look: a box for each thing, a crop of the crop, is what it sees enough."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from dualfocus_engine.families.boxes import Box, Region
from dualfocus_engine.families.profiles import Crops, Profile
from dualfocus_engine.families.regions import places_of
from dualfocus_eval.boxes import Box as SceneBox
from dualfocus_eval.boxes import overlap
from dualfocus_eval.report.outcomes import is_right
from dualfocus_eval.scenes.held_out import Asked
from PIL import Image

from dualfocus_training.learning.conversations import Message, Wording, asks, says
from dualfocus_training.learning.views import deeper_box, is_enough
from dualfocus_training.looker import Looker, Turn

# The least overlap of a box with the true one for it to be right.
_RIGHT_BOX = 0.5
_LIST_TOKENS = 64


@dataclass(frozen=True)
class _Chain:
    """A conversation that goes on with a user's turn: it shows the last `regions` of `pictures`."""

    asked: Asked
    messages: list[Message]
    pictures: list[Image.Image]
    regions: list[Region]

    def turn(self, text: "_Text") -> Turn:
        return Turn([*self.messages, self._asks(text)], self.pictures)

    def _asks(self, text: "_Text") -> Message:
        return asks(text(self.asked.question.question, len(self.regions)), len(self.regions))

    def look_at(self, profile: Profile, text: "_Text", boxes: Sequence[Box]) -> "_Chain | None":
        """Ask for boxes and tell these, which are of what was shown last; None where they have no pixels."""
        size = self.asked.picture.size
        of_picture = [box.within(self.regions[-1], size) for box in boxes]
        regions = [place.crop for place in places_of(of_picture, size, profile.crop, profile.max_regions)]
        told = says(", ".join(map(profile.box_format.write, boxes)))
        messages = [*self.messages, self._asks(text), told]
        crops = [self.asked.picture.crop(region) for region in regions]
        return _Chain(self.asked, messages, [*self.pictures, *crops], regions) if regions else None


# What is asked about a question behind so many pictures.
_Text = Callable[[str, int], str]
_Boxes = Sequence[Sequence[Box]]
_Chains = Sequence[_Chain | None]


def look_on(looker: Looker, asked: Sequence[Asked]) -> dict[str, list[float]]:
    """Figures of each question, 0 to 1, by name.

    `lists`: whether the list has a right box for each thing, in order; `regions`: whether the answer by it is right,
    `regions_true` by the true boxes. `inside_iou`: of the box in the true first crop; `deeper`: whether the answer
    behind two crops by the model's own boxes is right, `deeper_true` by the true ones. No box is a wrong answer.
    """
    profile, whole = looker.profile, _begin(asked)
    one_box, each_box, part = _texts(profile)
    lists, true_lists = _ground(looker, whole, each_box), [_true(one.question.boxes) for one in asked]
    firsts, true_firsts = _ground(looker, whole, one_box), [_true([one.question.box]) for one in asked]
    own, true = (_go_on(profile, whole, one_box, boxes) for boxes in (firsts, true_firsts))
    insides, true_insides = _ground(looker, own, part), [_true_inside(chain) for chain in true]
    found = _ground(looker, true, part)
    return {
        "lists": [float(_is_right(*pair)) for pair in zip(lists, true_lists, strict=True)],
        "regions": _score(looker, _go_on(profile, whole, each_box, lists)),
        "regions_true": _score(looker, _go_on(profile, whole, each_box, true_lists)),
        "inside_iou": [_iou(a[0], b[0]) if a else 0.0 for a, b in zip(found, true_insides, strict=True)],
        "deeper": _score(looker, _go_on(profile, own, part, insides)),
        "deeper_true": _score(looker, _go_on(profile, true, part, true_insides)),
    }


def look_for_enough(looker: Looker, asked: Sequence[Asked]) -> dict[str, float]:
    """How often the model says rightly whether a view is enough: by view, and of those that are and that are not."""
    profile, whole = looker.profile, _begin(asked)
    one_box, _, part = _texts(profile)
    crops = _go_on(profile, whole, one_box, [_true([one.question.box]) for one in asked])
    parts = _go_on(profile, crops, part, [_true_inside(chain) for chain in crops])
    verdicts = {
        name: _verdicts(looker, chains) for name, chains in (("whole", whole), ("crop", crops), ("part", parts))
    }
    words = [Wording(profile).verdict(enough) for enough in (True, False)]
    everything = [verdict for found in verdicts.values() for verdict in found]
    verdicts |= {word: [verdict for verdict in everything if verdict[0] == word] for word in words}
    shares = {name: fmean(told == true for true, told in found) for name, found in verdicts.items() if found}
    return {"views": len(everything), **{name: round(share, 4) for name, share in shares.items()}}


def _verdicts(looker: Looker, chains: _Chains) -> list[tuple[str, str]]:
    """The true verdict on each view and the model's, where one can be said."""
    side = looker.profile.image_size
    assert side is not None, "the small model's profile has an image size"
    there = [chain for chain in chains if chain]
    enough = [is_enough(chain.asked.scene, chain.asked.question, chain.regions, side) for chain in there]
    judged = [(chain, known) for chain, known in zip(there, enough, strict=True) if known is not None]
    told = _answers(looker, [chain for chain, _ in judged], lambda question, _: looker.profile.enough_text(question))
    wording = Wording(looker.profile)
    return [(wording.verdict(known), said) for (_, known), said in zip(judged, told, strict=True)]


def _texts(profile: Profile) -> tuple[_Text, _Text, _Text]:
    """What asks for a box, for a box of each thing, and for a part of a crop."""
    return (
        lambda question, _: profile.grounding_text(question),
        lambda question, _: profile.grounding_text(question, regions=True),
        lambda question, _: profile.deeper_text(question),
    )


def _begin(asked: Sequence[Asked]) -> list[_Chain]:
    return [_Chain(one, [], [one.picture], [Region(0, 0, *one.picture.size)]) for one in asked]


def _go_on(profile: Profile, chains: _Chains, text: _Text, boxes: _Boxes) -> list[_Chain | None]:
    return [
        chain.look_at(profile, text, found) if chain and found else None
        for chain, found in zip(chains, boxes, strict=True)
    ]


def _ground(looker: Looker, chains: _Chains, text: _Text) -> list[list[Box]]:
    """The boxes that the model writes."""
    return [looker.profile.box_format.read_all(said) for said in _answers(looker, chains, text)]


def _score(looker: Looker, chains: _Chains) -> list[float]:
    """Whether each micro answer is right; without a conversation it is not."""
    said = _answers(looker, chains, lambda question, crops: looker.profile.micro_text(question, Crops(crops)))
    answers = zip(chains, said, strict=True)
    return [float(chain is not None and is_right(text, [chain.asked.question.answer])) for chain, text in answers]


def _answers(looker: Looker, chains: _Chains, text: _Text) -> list[str]:
    """What the model says to each conversation; nothing where there is none."""
    turns = [chain.turn(text) for chain in chains if chain]
    said = iter(looker.answer(turns, _LIST_TOKENS))
    return [next(said).text if chain else "" for chain in chains]


def _true(boxes: Sequence[SceneBox]) -> list[Box]:
    return [Box(*box.as_tuple()) for box in boxes]


def _true_inside(chain: _Chain | None) -> list[Box]:
    return _true([deeper_box(chain.asked.scene, chain.asked.question, chain.regions[-1])]) if chain else []


def _is_right(found: Sequence[Box], true: Sequence[Box]) -> bool:
    return len(found) == len(true) and all(_iou(*pair) >= _RIGHT_BOX for pair in zip(found, true, strict=True))


def _iou(one: Box, other: Box) -> float:
    return overlap(SceneBox(*one.as_tuple()), SceneBox(*other.as_tuple()))
