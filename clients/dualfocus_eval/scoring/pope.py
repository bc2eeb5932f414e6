"""POPE: is there such a thing in the picture, yes or no.

As LLaVA's `eval_pope.py` has it. lmms-eval counts "Yes." as neither, VLMEvalKit looks for both words in all of the
reply: their numbers are others for models that say more than one word.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean

from dualfocus_eval.samples import Sample, Scored
from dualfocus_eval.scoring.mean import categories, mean_score

_NO = {"No", "not", "no"}


def score(sample: Sample, reply: str) -> float:
    """Return 1 where the reply says what the answer, `yes` or `no`, is."""
    return float(said(reply) == sample.answers[0])


def said(reply: str) -> str:
    """Return `no` where a word of the first sentence is No, not or no, and `yes` for anything else.

    Quirks of the rule: `NO` is a yes, and so is nothing at all; words are told apart by blanks alone.
    """
    first_sentence = reply.strip().split(".")[0]
    return "no" if _NO.intersection(first_sentence.replace(",", "").split(" ")) else "yes"


def figures(scored: Sequence[Scored]) -> dict[str, float]:
    """Return the mean of the categories' F1, then each category's F1, accuracy, precision, recall and ratio of yes.

    Raises ValueError where no question with a category is scored.
    """
    parts = {name: _figures([one for one in scored if one.sample.category == name]) for name in categories(scored)}
    mean = fmean(part["F1"] for part in parts.values())
    return {"F1": mean, **{f"{name} {what}": share for name, part in parts.items() for what, share in part.items()}}


def _figures(scored: Sequence[Scored]) -> dict[str, float]:
    said_yes = [one for one in scored if said(one.reply) == "yes"]
    are_yes = [one for one in scored if one.sample.stratum == "yes"]
    right = sum(one.score * one.weight for one in said_yes)
    precision, recall = _share(right, _count(said_yes)), _share(right, _count(are_yes))
    return {
        "F1": _share(2 * precision * recall, precision + recall),
        "accuracy": mean_score(scored),
        "precision": precision,
        "recall": recall,
        "yes ratio": _count(said_yes) / _count(scored),
    }


def _count(scored: Iterable[Scored]) -> int:
    return sum(one.weight for one in scored)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
