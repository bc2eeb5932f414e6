"""V*: the letter that a reply names. V*'s own rule ranks the options by loss instead: say which of them was used."""

import re

from dualfocus_eval.samples import Sample

# In the order in which they are tried, on the reply in capitals.
_LETTER = tuple(
    re.compile(pattern)
    for pattern in (
        r"^([A-D])",
        r"(?:ANSWER|CHOICE|OPTION)(?:\s+IS)?[\s:]+([A-D])",
        r"\(([A-D])\)",
        r"([A-D])\s*[.)\]]",
        r"(?<!\S)([A-D])(?!\S)",
        r"^[^A-D]*([A-D])[^A-D]*$",
    )
)


def score(sample: Sample, reply: str) -> float:
    """Return 1 where the reply names the right letter, as lmms-eval's `vstar_bench` reads it.

    Quirk: a letter is taken where a word begins a reply or ends a sentence ("Blue" is B, "It is red." is D).
    """
    text = reply.strip().upper()
    found = (pattern.search(text) for pattern in _LETTER)
    letter = next((match[1] for match in found if match), None)
    return float(letter in sample.answers)
