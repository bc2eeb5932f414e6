"""The choice between the two answers (Eq. 8), with the cases in which there is none to make."""

from collections.abc import Mapping
from typing import TypeAlias

from dualfocus_engine.method.options import chosen_option
from dualfocus_engine.method.perplexity import macro_wins
from dualfocus_engine.method.results import Look, Selection, Shared, Turn, TurnName

Choice: TypeAlias = tuple[TurnName, Selection]
_NO_OPTIONS: Mapping[str, str] = {}


def select(
    macro: Turn | None, look: Look, shared: Shared | None = None, options: Mapping[str, str] = _NO_OPTIONS
) -> Choice:
    """Name the chosen answer and why: the less surprising one, as `shared` has them scored, else each by its own turn.

    At least one of the two must have run, macro where the look failed. `options` as `only_choice` takes them.
    """
    if (only := only_choice(macro, look, options)) is not None:
        return only
    assert macro is not None
    assert look.micro is not None
    one, other = (macro, look.micro) if shared is None else (shared.macro, shared.micro)
    return ("macro" if macro_wins(one.loss, other.loss) else "micro"), Selection.LOWER_PERPLEXITY


def only_choice(macro: Turn | None, look: Look, options: Mapping[str, str] = _NO_OPTIONS) -> Choice | None:
    """Return the choice that is made without perplexities, None where they are to decide.

    Of multiple choice `options` (by letter), an answer that names one goes before one that names none (METHOD.md).
    """
    micro = look.micro
    if macro is None:
        assert micro is not None
        return "micro", Selection.ONLY_ANSWER
    if look.failed is not None:
        return "macro", look.failed
    if micro is None:
        return "macro", Selection.ONLY_ANSWER
    if macro.is_empty != micro.is_empty:
        return ("micro" if macro.is_empty else "macro"), Selection.OTHER_EMPTY
    named = [chosen_option(turn.text, options) is not None for turn in (macro, micro)]
    return None if named[0] == named[1] else (("macro" if named[0] else "micro"), Selection.ONLY_OPTION)
