"""Multiple choice: from a reply to the letter it means, and figures over the rotations of a question.

A sample's options stand in the order of their letters, its answers are the right letters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from string import ascii_uppercase

from dualfocus_eval.samples import Sample, Scored
from dualfocus_eval.scoring.mean import by_category, mean_score

# The released scripts know four letters, whatever the question has; a fifth option has one too.
_FEWEST_LETTERS = 4
_BLANKED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
# The letter of no option, which a judge is told to write.
_NONE_OF_THEM = "Z"
# A letter further from the end is taken for a word ("A ...").
_WORDS_AT_END = 4


def exact_letter(sample: Sample, reply: str) -> float:
    """Return 1 where the reply is the right letter and nothing else: LLaVA's rule for SEED.

    lmms-eval takes the first character, in either case, for the letter ("Apple" is A there).
    """
    return float(reply.strip() in sample.answers)


def mapped_letter(sample: Sample, reply: str, *, lines: bool = False) -> float:
    """Return 1 where the reply means the right letter by the released DualFocus scripts' mapping.

    Its first character where that is one of the letters, in either case; else the first option that holds the reply or
    stands in it. `lines` compares whole lines (`A. red`), as those scripts do for SEED and GQA; for MMBench they
    compare the options' texts. An empty reply has no letter.
    """
    return float(_mapped(reply.strip(), sample.options, lines) in sample.answers)


def _mapped(reply: str, options: Sequence[str], lines: bool) -> str | None:
    letters = ascii_uppercase[: max(_FEWEST_LETTERS, len(options))]
    if not reply or reply[0].upper() in letters:
        return reply[:1].upper()
    said = reply.lower()
    for letter, option in zip(letters, options, strict=False):
        text = (f"{letter}. {option}" if lines else option).lower()
        if said in text or text in said:
            return letter
    return None


def inferred_letter(sample: Sample, reply: str) -> float:
    """Return 1 where the right letter can be told from the reply: VLMEvalKit's rule without a judge.

    MMBench's and HR-Bench's. One option's letter among the last words, punctuation aside; else the one option whose
    text stands in the reply, unless that is more than twice as long as all options together. What can't be told is
    wrong. lmms-eval looks neither at where the letter stands nor at lengths, and asks a judge.
    """
    options = dict(zip(ascii_uppercase, sample.options, strict=False))
    return float(_inferred(reply, options) in sample.answers)


def _inferred(reply: str, options: Mapping[str, str]) -> str | None:
    words = reply.translate(_BLANKED).split()
    named = [letter for letter in options if letter in words]
    if any(refusal in reply for refusal in _REFUSALS) or (not named and _NONE_OF_THEM in words):
        return None
    if len(named) == 1 and words.index(named[0]) >= len(words) - _WORDS_AT_END:
        return named[0]
    held = [letter for letter, text in options.items() if text.lower() in reply.lower()]
    too_long = len(reply) > 2 * sum(map(len, options.values()))
    return held[0] if len(held) == 1 and not too_long else None


def circular(scored: Sequence[Scored]) -> dict[str, float]:
    """Return MMBench's figures: the share of groups of which every rotation is right, then by category.

    `single pass` is the accuracy of the questions as they were written, which are those whose id is their group's
    name; not there where there is none.
    """
    groups: dict[str, list[Scored]] = {}
    for one in scored:
        groups.setdefault(one.sample.group, []).append(one)
    judged = by_category([replace(group[0], score=min(one.score for one in group)) for group in groups.values()])
    written = [one for one in scored if one.sample.id == one.sample.group]
    single = {"single pass": mean_score(written)} if written else {}
    return {"circular": judged.pop("accuracy"), **single, **judged}


def cycles(scored: Sequence[Scored]) -> dict[str, float]:
    """Return HR-Bench's figures: the mean over the cycles of the accuracy in each, over all and by category.

    A sample's stratum is its cycle. A category that a cycle lacks counts as 0 there, as in VLMEvalKit. Raises
    ValueError where nothing is scored.
    """
    cycle_names = {one.sample.stratum for one in scored}
    each = [by_category([one for one in scored if one.sample.stratum == name]) for name in sorted(cycle_names)]
    return {name: fmean(cycle.get(name, 0.0) for cycle in each) for name in by_category(scored)}
