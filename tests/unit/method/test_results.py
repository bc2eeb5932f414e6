"""What a result says of its turns."""

import math

import pytest
from dualfocus_engine.families.boxes import Box, Region
from dualfocus_engine.method.results import FocusResult, Mode, SecondLook, Selection

from ..builders import turn

MACRO, GROUNDING, MICRO = turn("red"), turn("[0, 0, 1, 1]"), turn("blue")


def test_prompt_is_what_was_cached_and_what_was_computed() -> None:
    ran = turn(prompt_token_ids=tuple(range(100)), cached_tokens=96)
    assert (ran.prompt_tokens, ran.cached_tokens, ran.computed_tokens) == (100, 96, 4)


def test_closing_token_counts_as_generated() -> None:
    assert turn(token_ids=(5, 6, 7, 0)).completion_tokens == 4


def test_loss_and_perplexity_are_over_all_generated_tokens() -> None:
    ran = turn(logprobs=(math.log(0.5), math.log(0.5), math.log(0.125)))
    assert ran.perplexity == pytest.approx(2 ** (5 / 3))
    assert ran.mean_nll == pytest.approx(math.log(2) * 5 / 3)


@pytest.mark.parametrize(("text", "empty"), [("", True), (" \n", True), (".", False), (" a ", False)])
def test_turn_of_white_space_said_nothing(text: str, empty: bool) -> None:
    assert turn(text).is_empty is empty


def test_answer_is_the_winners_turn() -> None:
    look = SecondLook(Box(0, 0, 1, 1), Region(0, 0, 9, 9), GROUNDING, MICRO)
    assert FocusResult("macro", Selection.LOWER_PERPLEXITY, MACRO, look, 1.0).text == "red"
    assert FocusResult("micro", Selection.LOWER_PERPLEXITY, MACRO, look, 1.0).text == "blue"


def test_turns_are_those_that_ran() -> None:
    whole = FocusResult("macro", Selection.LOWER_PERPLEXITY, MACRO, SecondLook(None, None, GROUNDING, MICRO), 1.0)
    assert whole.turns == {"macro": MACRO, "grounding": GROUNDING, "micro": MICRO}
    boxless = FocusResult("macro", Selection.NO_BOX, MACRO, SecondLook(grounding=GROUNDING), 1.0)
    assert list(boxless.turns) == ["macro", "grounding"]
    given_box = FocusResult("micro", Selection.ONLY_ANSWER, None, SecondLook(micro=MICRO), 1.0)
    assert list(given_box.turns) == ["micro"]


def test_modes_and_reasons_keep_their_names_on_the_wire() -> None:
    assert [mode.value for mode in Mode] == ["dual", "regions", "search", "adaptive", "macro", "micro"]
    assert {reason.value for reason in Selection} == {
        "lower_perplexity",
        "only_answer",
        "only_option",
        "no_option",
        "skipped",
        "other_answer_empty",
        "other_answer_cut",
        "same_answer",
        "tool_call",
        "nothing_asked",
        "no_grounding",
        "nothing_to_enlarge",
        "same_place",
        "several_pictures",
        "image_limit",
        "timed_out",
        "no_box",
        "empty_box",
        "context_full",
        "micro_failed",
        "grounder_failed",
        "grounder_timed_out",
    }


def test_tokens_that_are_no_part_of_an_answer_count_for_nothing() -> None:
    whole = turn("<b>42</b>", token_ids=(1, 42, 2, 9), logprobs=(-5.0, -0.5, -7.0, -0.1))
    kept = whole.without({1: "<b>", 2: "</b>"})
    assert (kept.text, kept.token_ids, kept.logprobs) == ("42", (42, 9), (-0.5, -0.1))
    assert kept.perplexity < whole.perplexity
    assert whole.without({7: "<c>"}) is whole
