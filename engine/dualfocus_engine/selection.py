"""The choice between the two answers (Eq. 8), with the cases in which there is none to make."""

from dualfocus_engine.perplexity import macro_wins
from dualfocus_engine.results import Look, Selection, Turn, TurnName


def select(macro: Turn | None, look: Look) -> tuple[TurnName, Selection]:
    """Name the chosen answer and why; at least one of the two must have run, macro where the look failed."""
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
    return ("macro" if macro_wins(macro.loss, micro.loss) else "micro"), Selection.LOWER_PERPLEXITY
