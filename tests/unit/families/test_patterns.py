"""Profiles' regular expressions: read as Python reads them, and given up where they take too long."""

import logging
import random
import re
import time
from itertools import count
from typing import Any

import pytest
from dualfocus_engine.families.box_format import BoxFormat
from dualfocus_engine.families.boxes import Box
from dualfocus_engine.families.hints import HINTS
from dualfocus_engine.families.patterns import all_groups, without
from dualfocus_engine.families.profiles import Profile, load_profile, profile_names
from dualfocus_engine.shipped import SHIPPED_MODEL
from dualfocus_training.models.untrained import untrained_profile

from .test_hints import PROMPTS

PAPER = load_profile("paper")
SHIPPED = [*map(load_profile, [*profile_names(), str(SHIPPED_MODEL / "dualfocus.yaml")]), untrained_profile()]
# Takes time by the power of the text's length, also in `regex`, which sees through the usual examples.
SLOW, SLOW_ON = r"(a|aa)+$", "a" * 200 + "b"
# Hours for what has no limit; much for a machine that has a lot to do.
CEILING_S = 60.0
PIECES = [
    *("\n", "\r\n", " ", "  ", "\t", ".", "?", ":", "A.", "A. ", "B. ", "(C) ", "D) ", "[", "]", ", ", "0.25", "1"),
    *("Options:", "Question:", "Hint: ", "Answer:", "ANSWER: ", "Reference OCR token: ", "word", "é", "\u2028", "'"),
    *(piece for prompt in PROMPTS.values() for piece in prompt.splitlines()),
]  # fmt: skip
_numbers = count()


def texts() -> list[str]:
    """Prompts of evaluators, and a thousand texts put together from pieces of them."""
    rng = random.Random(5)
    return [*PROMPTS.values(), *("".join(rng.choices(PIECES, k=rng.randint(1, 12))) for _ in range(1000))]


# Of profiles that were written before there was a default.
OLDER = (r"Answer the question using a single word or phrase\.?", r"^\(?[A-Z][.)]\)?[ \t].*$")


@pytest.mark.parametrize("pattern", [*HINTS, *OLDER], ids=range(len(HINTS) + len(OLDER)))
def test_what_is_left_out_is_what_python_would_leave_out(pattern: str) -> None:
    for text in texts():
        assert without([pattern], text) == re.sub(pattern, "", text, flags=re.MULTILINE), text


@pytest.mark.parametrize("profile", SHIPPED, ids=lambda profile: profile.name)
def test_boxes_are_read_as_python_would_read_them(profile: Profile) -> None:
    written = profile.box_format.write(Box(0.2, 0.41, 0.37, 0.74))
    found = 0
    for text in texts():
        for candidate in (text, text + written, written.replace(", ", ",") + text):
            for pattern in profile.box_format.pattern:
                theirs = [match.groupdict() for match in re.finditer(pattern, candidate)]
                assert all_groups(pattern, candidate) == theirs, candidate
                found += len(theirs)
    assert found > 1000


def slow() -> str:
    """A slow pattern that no test had before: each is said once."""
    return f"{SLOW}(?#{next(_numbers)})"


def profile_with(**changes: Any) -> Profile:
    return Profile.model_validate(PAPER.model_dump() | changes)


def test_a_question_on_which_a_pattern_takes_too_long_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    pattern = slow()
    profile = profile_with(strip_patterns=["^What", pattern])
    asked, started = f"What is this? {SLOW_ON}", time.process_time()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert profile.bare(asked) == asked
    assert time.process_time() - started < CEILING_S
    assert profile.bare("What is this?") == "is this?", "on other texts it is used as before"
    assert [record.args for record in caplog.records] == [(pattern,)], "once, not for each question"
    assert SLOW_ON not in caplog.text, "a client's text is not logged"


def test_the_time_is_that_of_all_patterns_together() -> None:
    asked, started = "What is this?", time.process_time()
    patterns = ["^What", *(f"nothing(?#{number})" for number in range(100_000))]
    assert without(patterns, asked) == asked, "each alone is done in no time"
    assert time.process_time() - started < CEILING_S


def test_a_box_pattern_that_takes_too_long_finds_no_box(caplog: pytest.LogCaptureFixture) -> None:
    pattern = f"(?:{slow()})?{PAPER.box_format.pattern[0]}"
    box_format = BoxFormat.model_validate(PAPER.box_format.model_dump() | {"pattern": f"^{pattern}"})
    written = box_format.write(Box(0.2, 0.41, 0.37, 0.74))
    started = time.process_time()
    with caplog.at_level(logging.WARNING):
        assert box_format.read(SLOW_ON + written) is None
        assert box_format.read(SLOW_ON + written) is None
    assert time.process_time() - started < CEILING_S
    assert box_format.read(written) == Box(0.2, 0.41, 0.37, 0.74)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", r"\p{L}", "(?<=a+)b", "(?e)a"])
def test_what_python_or_regex_does_not_know_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="not a valid regular expression"):
        profile_with(strip_patterns=[pattern])
