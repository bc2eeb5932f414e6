"""Multiple choice: the options a question names, and the one an answer means."""

import re
from collections.abc import Mapping

_OPTION = re.compile(r"^[ \t]*\(?([A-Z])[.):]\)?[ \t]+(\S(?:.*\S)?)[ \t]*$", re.MULTILINE)
_RELEASED_LETTERS = ("A", "B", "C", "D")  # all that the released code knows, of however many options
_LETTER = re.compile(r"\(?([A-Z])(?:[.):].*)?$", re.DOTALL)


def options_of(question: str) -> dict[str, str]:
    """Return the options' texts by letter (lines such as `A. red` or `(B) blue`); empty where there are not two."""
    found = dict(_OPTION.findall(question))
    return found if len(found) > 1 else {}


def chosen_option(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the text of the option that an answer names by its letter; None where it names none."""
    letter = _LETTER.match(answer.strip())
    return options.get(letter[1]) if letter else None


def released_letter(reply: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of A to D that the released code takes a reply for; None for none.

    It is the reply's first character ("Apple" is A), else that of the first option whose line (`A. red`) holds the
    reply or is held by it.
    """
    if (first := reply[:1].upper()) in _RELEASED_LETTERS:
        return first
    said = reply.lower()
    lines = {letter: f"{letter}. {text}".lower() for letter, text in options.items()}
    held = next((letter for letter, line in lines.items() if said in line or line in said), None)
    return held if held in _RELEASED_LETTERS else None
