"""Multiple choice: the options a question names, and the one an answer means."""

import re
from collections.abc import Mapping

_OPTION = re.compile(r"^[ \t]*\(?([A-Z])[.):]\)?[ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
_LETTER = re.compile(r"\(?([A-Z])(?:[.):].*)?$", re.DOTALL)


def options_of(question: str) -> dict[str, str]:
    """Return the options' texts by letter (lines such as `A. red` or `(B) blue`); empty where there are not two."""
    found = dict(_OPTION.findall(question))
    return found if len(found) > 1 else {}


def chosen_option(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the text of the option that an answer names by its letter; None where it names none."""
    letter = _LETTER.match(answer.strip())
    return options.get(letter[1]) if letter else None
