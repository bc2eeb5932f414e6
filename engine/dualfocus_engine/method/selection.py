"""The choice between the two answers (Eq. 8), with the cases in which there is none to make."""

from collections.abc import Mapping
from typing import TypeAlias

from dualfocus_engine.method.multiple_choice import chosen_option
from dualfocus_engine.method.results import AnswerName, Score, SecondLook, Selection, Turn

Choice: TypeAlias = tuple[AnswerName, Selection]
_NO_OPTIONS: Mapping[str, str] = {}


def only_choice(macro: Turn | None, look: SecondLook, options: Mapping[str, str] = _NO_OPTIONS) -> Choice | None:
    """Name the answer that is chosen without perplexities, and why; None where they decide (`lower_perplexity`).

    At least one of the two turns must have run, macro where the second look failed. Of multiple choice `options` (texts
    by letter), an answer that names one goes before an answer that names none, as in the released code.
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
    if macro.is_empty != micro.is_empty:
        return ("micro" if macro.is_empty else "macro"), Selection.OTHER_EMPTY
    if macro.is_unfinished != micro.is_unfinished:
        return ("micro" if macro.is_unfinished else "macro"), Selection.OTHER_CUT
    if macro.says_the_same_as(micro):
        return "macro", Selection.SAME_ANSWER
    named = [chosen_option(turn.text, options) is not None for turn in (macro, micro)]
    return None if named[0] == named[1] else (("macro" if named[0] else "micro"), Selection.ONLY_OPTION)


def lower_perplexity(macro: Turn | Score, micro: Turn | Score) -> Choice:
    """Name the answer of lower perplexity; macro wins only where its own is strictly lower (Eq. 8)."""
    # Compared in log space, where nothing overflows.
    return ("macro" if macro.mean_nll < micro.mean_nll else "micro"), Selection.LOWER_PERPLEXITY
