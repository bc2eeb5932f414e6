"""The choice between the two answers (Eq. 8, or the released code's), with the cases in which there is none to make."""

import math
from collections.abc import Mapping
from typing import TypeAlias

from dualfocus_engine.method.multiple_choice import chosen_option, released_letter
from dualfocus_engine.method.results import AnswerName, Score, Scoring, SecondLook, Selection, Shared, Turn

Choice: TypeAlias = tuple[AnswerName, Selection]
_NO_OPTIONS: Mapping[str, str] = {}


def only_choice(
    macro: Turn | None,
    look: SecondLook,
    options: Mapping[str, str] = _NO_OPTIONS,
    scoring: Scoring = Scoring.OWN,
) -> Choice | None:
    """Name the answer that is chosen without perplexities, and why; None where they decide (`lower_perplexity`).

    At least one of the two turns must have run, macro where the second look failed. Of multiple choice `options` (texts
    by letter), an answer that names one goes before an answer that names none. Macro stands where one of two held
    to a grammar could not be scored without it: perplexities of both kinds can't be compared. Of two answers,
    `Scoring.RELEASED` knows no other rule: empty, cut and equal ones are scored like all.
    """
    micro = look.micro
    if macro is None:
        assert micro is not None
        return "micro", Selection.ONLY_ANSWER
    if macro.tool_calls:
        return "macro", Selection.TOOL_CALL
    if look.failed is not None:
        return "macro", look.failed
    if micro is None:
        return "macro", Selection.ONLY_ANSWER
    if scoring is Scoring.RELEASED:
        return _only_letter(macro, micro, options)
    if macro.is_empty != micro.is_empty:
        return ("micro" if macro.is_empty else "macro"), Selection.OTHER_EMPTY
    if macro.is_unfinished != micro.is_unfinished:
        return ("micro" if macro.is_unfinished else "macro"), Selection.OTHER_CUT
    if macro.says_the_same_as(micro):
        return "macro", Selection.SAME_ANSWER
    named = [chosen_option(turn.text, options) is not None for turn in (macro, micro)]
    if named[0] != named[1]:
        return ("macro" if named[0] else "micro"), Selection.ONLY_OPTION
    if scoring is Scoring.OWN and macro.is_masked != micro.is_masked:
        return "macro", Selection.CONTEXT_FULL
    return None


def lower_perplexity(macro: Turn | Score, micro: Turn | Score) -> Choice:
    """Name the answer of lower perplexity; macro wins only where its own is strictly lower (Eq. 8)."""
    # Compared in log space, where nothing overflows.
    return ("macro" if macro.mean_nll < micro.mean_nll else "micro"), Selection.LOWER_PERPLEXITY


def released_texts(macro: Turn, micro: Turn, options: Mapping[str, str]) -> list[str]:
    """Return what the released code scores of two answers: their texts, or those of the options they are taken for.

    A letter that no option has is scored as it is; there the released code ends in an error.
    """
    replies = _released_replies(macro, micro)
    if not options:
        return replies
    letters = [released_letter(reply, options) or "" for reply in replies]
    return [options.get(letter, letter) for letter in letters]


def lower_loss(shared: Shared | None) -> Choice:
    """Name the answer of lower loss as the released code does: macro where both are equal or one is no number.

    Macro stands too where the two could not be scored, since one of them does not fit the context.
    """
    if shared is None:
        return "macro", Selection.CONTEXT_FULL
    macro, micro = (-math.fsum(score.logprobs) / len(score.logprobs) for score in shared)
    return ("micro" if micro < macro else "macro"), Selection.LOWER_PERPLEXITY


def _only_letter(macro: Turn, micro: Turn, options: Mapping[str, str]) -> Choice | None:
    """Choose by which answer is taken for a letter; None where losses decide: both are, or there are no options."""
    if not options:
        return None
    valid = [released_letter(reply, options) is not None for reply in _released_replies(macro, micro)]
    if all(valid):
        return None
    return ("micro" if valid[1] else "macro"), (Selection.ONLY_OPTION if any(valid) else Selection.NO_OPTION)


def _released_replies(macro: Turn, micro: Turn) -> list[str]:
    """Return both replies as they are read and scored: micro's alone loses newlines and full stops at its ends."""
    return [macro.text.strip(), micro.text.strip().strip(".")]
