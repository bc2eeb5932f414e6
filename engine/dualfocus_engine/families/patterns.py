"""The regular expressions of profiles, run on what clients and models write: with a time limit, which `re` has not.

They are Python's (`re`), run by the package `regex`: what either can't compile is refused.
"""

import logging
import re
import time
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated

import regex
from pydantic import AfterValidator

logger = logging.getLogger(__name__)

# What all patterns together may take for one text, in seconds of the process's time: that is what `regex` counts.
_LIMIT_S = 0.1


def compiled(pattern: str) -> "re.Pattern[str]":
    """Compile a pattern. Raises ValueError."""
    try:
        found = re.compile(pattern)
        regex.compile(pattern)
    except (re.error, regex.error, OverflowError) as error:
        raise ValueError(f"{pattern!r} is not a valid regular expression: {error}") from error
    return found


Regex = Annotated[str, AfterValidator(lambda pattern: compiled(pattern).pattern)]


def all_groups(pattern: str, text: str) -> list[Mapping[str, str]]:
    """Return the named groups of each of a pattern's matches, in order; none where that takes too long."""
    try:
        return [found.groupdict() for found in regex.finditer(pattern, text, timeout=_LIMIT_S)]
    except TimeoutError:
        _warn(pattern)
        return []


def without(patterns: Iterable[str], text: str) -> str:
    """Return the text without what the patterns find, one after the other; as it is where that takes too long.

    `^` and `$` stand for the ends of lines.
    """
    kept, until = text, time.process_time() + _LIMIT_S
    for pattern in patterns:
        try:
            kept = regex.sub(pattern, "", kept, flags=regex.MULTILINE, timeout=_left(until))
        except TimeoutError:
            _warn(pattern)
            return text
    return kept


def _left(until: float) -> float:
    """Return the seconds that are left. Raises TimeoutError where none are."""
    left = until - time.process_time()
    if left <= 0:
        raise TimeoutError
    return left


@cache
def _warn(pattern: str) -> None:
    """Say it once for each pattern: a client may send such texts all day."""
    logger.warning("A pattern of the profile takes too long on some texts and was given up there: %s", pattern)
