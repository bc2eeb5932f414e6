"""Which answer is chosen, and the reason that is given."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from dualfocus_engine.method.results import AnswerName, Score, Scoring, SecondLook, Selection, Shared, Turn
from dualfocus_engine.method.selection import Choice, lower_perplexity, only_choice

from ..builders import turn

DEGRADED = [
    *(Selection.SKIPPED, Selection.NO_BOX, Selection.EMPTY_BOX, Selection.CONTEXT_FULL, Selection.MICRO_FAILED),
    *(Selection.NOTHING_TO_ENLARGE, Selection.NO_GROUNDING, Selection.SAME_PLACE),
    *(Selection.NOTHING_ASKED, Selection.SEVERAL_PICTURES, Selection.IMAGE_LIMIT, Selection.TIMED_OUT),
    *(Selection.GROUNDER_FAILED, Selection.GROUNDER_TIMED_OUT),
]


def select(
    macro: Turn | None, look: SecondLook, shared: Shared | None = None, options: Mapping[str, str] | None = None
) -> Choice:
    """The whole choice, as `DualFocus.answer` makes it."""
    return only_choice(macro, look, options or {}) or lower_perplexity(*(shared or (macro, look.micro)))  # type: ignore[arg-type]


def _looked(micro: Turn) -> SecondLook:
    return SecondLook(grounding=turn("[0, 0, 1, 1]"), micro=micro)


@pytest.mark.parametrize(
    ("macro_loss", "micro_loss", "winner"),
    [(0.5, 0.6, "macro"), (0.6, 0.5, "micro"), (0.5, 0.5, "micro"), (1e5, 2e5, "macro")],
)
def test_answer_of_lower_perplexity_is_chosen(macro_loss: float, micro_loss: float, winner: AnswerName) -> None:
    chosen = select(turn("red", macro_loss), _looked(turn("blue", micro_loss)))
    assert chosen == (winner, Selection.LOWER_PERPLEXITY)


@pytest.mark.parametrize(
    ("macro", "micro", "winner"),
    [
        (0.5, 0.6, "macro"),
        (0.6, 0.5, "micro"),
        (0.5, 0.5, "micro"),
        (0.0, 0.0, "micro"),
        (math.inf, math.inf, "micro"),
        (0.0, math.inf, "macro"),
        (math.inf, 1e300, "micro"),
        (0.5, math.nextafter(0.5, 1), "macro"),
        (1e5, 2e5, "macro"),
    ],
)
def test_macro_wins_only_where_its_perplexity_is_strictly_lower(macro: float, micro: float, winner: str) -> None:
    assert lower_perplexity(Score((-macro,), 0), Score((-micro,), 0)) == (winner, Selection.LOWER_PERPLEXITY)


def test_length_does_not_count() -> None:
    short = turn("A", logprobs=(-1.0,), token_ids=(1,))
    long = turn("A long answer", logprobs=(-0.9,) * 60, token_ids=(1,) * 60)
    assert select(short, _looked(long))[0] == "micro"
    assert select(long, _looked(short))[0] == "macro"


@pytest.mark.parametrize("nothing", ["", " ", "\n\t "])
def test_empty_answer_never_wins(nothing: str) -> None:
    empty, said = turn(nothing, mean_nll=0.0), turn("red", mean_nll=9.0)
    assert select(empty, _looked(said)) == ("micro", Selection.OTHER_EMPTY)
    assert select(said, _looked(empty)) == ("macro", Selection.OTHER_EMPTY)


def test_of_two_empty_answers_macros_stands() -> None:
    assert select(turn("", 0.2), _looked(turn(" ", 0.1))) == ("macro", Selection.SAME_ANSWER)


@pytest.mark.parametrize(
    ("macro", "micro"), [("Red", "red."), ("a  cup", "A cup"), ("42", " 42 "), ("it is 4.", "It is\n4")]
)
def test_of_two_equal_answers_macros_stands(macro: str, micro: str) -> None:
    assert select(turn(macro, 9.0), _looked(turn(micro, 0.1))) == ("macro", Selection.SAME_ANSWER)


@pytest.mark.parametrize(("macro", "micro"), [("4", "4.2"), ("red", "red cup"), ("C.", "C#"), ("1..", "1")])
def test_answers_that_differ_by_more_are_compared(macro: str, micro: str) -> None:
    assert select(turn(macro, 9.0), _looked(turn(micro, 0.1))) == ("micro", Selection.LOWER_PERPLEXITY)


def test_an_answer_that_was_cut_never_beats_one_that_is_whole() -> None:
    cut, whole = turn("red and", 0.1, finish_reason="length"), turn("a red cup", 9.0)
    assert select(cut, _looked(whole)) == ("micro", Selection.OTHER_CUT)
    assert select(whole, _looked(cut)) == ("macro", Selection.OTHER_CUT)
    assert select(cut, _looked(turn("blue and", 0.05, finish_reason="length")))[1] is Selection.LOWER_PERPLEXITY


def test_an_answer_that_was_stopped_for_saying_one_thing_again_and_again_was_cut() -> None:
    """Each token of such a one is near certain: by perplexity it would always win."""
    looping, whole = turn("the the the", 0.01, finish_reason="repetition"), turn("a red cup", 9.0)
    assert select(whole, _looked(looping)) == ("macro", Selection.OTHER_CUT)
    assert not looping.is_more_confident_than(1.2)


def test_macro_mode_has_one_answer() -> None:
    assert select(turn(), SecondLook()) == ("macro", Selection.ONLY_ANSWER)


def test_micro_mode_has_one_answer() -> None:
    assert select(None, _looked(turn())) == ("micro", Selection.ONLY_ANSWER)


@pytest.mark.parametrize("failed", DEGRADED)
def test_failed_look_leaves_macro_standing_and_says_why(failed: Selection) -> None:
    assert select(turn("red", mean_nll=9.0), SecondLook(failed=failed)) == ("macro", failed)


@pytest.mark.parametrize("look", [SecondLook(), SecondLook(failed=Selection.NO_BOX), SecondLook(micro=turn("b", 0.1))])
def test_a_macro_turn_that_calls_a_tool_is_the_answer(look: SecondLook) -> None:
    assert select(turn("", 9.0, tool_calls=("look",)), look) == ("macro", Selection.TOOL_CALL)


def test_only_the_answer_is_compared_not_what_was_thought_before_it() -> None:
    thoughtful = turn("red", token_ids=(1, 2, 3, 4), logprobs=(-9.0, -9.0, -0.1, -0.1), thought_tokens=2)
    assert select(turn("blue", 0.2), _looked(thoughtful)) == ("micro", Selection.LOWER_PERPLEXITY)
    assert select(thoughtful, _looked(turn("blue", 0.2))) == ("macro", Selection.LOWER_PERPLEXITY)


def test_micro_answer_that_the_context_cut_off_is_not_compared() -> None:
    cut = SecondLook(micro=turn("blu", mean_nll=0.0), failed=Selection.CONTEXT_FULL)
    assert select(turn("red", mean_nll=9.0), cut) == ("macro", Selection.CONTEXT_FULL)


@pytest.mark.parametrize("failed", DEGRADED)
def test_failed_look_leaves_even_an_empty_macro_standing(failed: Selection) -> None:
    assert select(turn(""), SecondLook(failed=failed)) == ("macro", failed)


@pytest.mark.parametrize("masked", ["macro", "micro"])
def test_a_grammars_log_probabilities_are_not_compared_with_the_models_own(masked: str) -> None:
    macro, micro = [
        replace(turn(text, loss), is_masked=text == masked, rescored=text != masked)
        for text, loss in (("macro", 0.6), ("micro", 0.5))
    ]
    assert select(macro, _looked(micro)) == ("macro", Selection.CONTEXT_FULL)
    assert not (macro if macro.is_masked else micro).is_more_confident_than(math.inf)
    both = [replace(each, is_masked=True) for each in (macro, micro)]
    assert select(both[0], _looked(both[1])) == ("micro", Selection.LOWER_PERPLEXITY)


def test_answer_without_log_probabilities_loses() -> None:
    unscored = turn("red", logprobs=(math.nan,), token_ids=(1,))
    assert select(unscored, _looked(turn("blue", 50.0)))[0] == "micro"
    assert select(turn("blue", 50.0), _looked(unscored))[0] == "macro"


def test_shared_scores_go_before_each_answers_own() -> None:
    shared = Shared(Score((-0.1,), 0), Score((-0.2,), 0))
    assert select(turn("red", 9.0), _looked(turn("blue", 1.0)), shared) == ("macro", Selection.LOWER_PERPLEXITY)


@pytest.mark.parametrize(("macro", "micro", "winner"), [("A", "a cup", "macro"), ("A cup", "(B)", "micro")])
def test_answer_that_names_an_option_is_chosen_over_one_that_does_not(macro: str, micro: str, winner: str) -> None:
    chosen = select(turn(macro), _looked(turn(micro)), options={"A": "red", "B": "blue"})
    assert chosen == (winner, Selection.ONLY_OPTION)


@pytest.mark.parametrize(
    ("macro", "micro", "chosen"),
    [
        ("Yes", "No", ("macro", Selection.NO_OPTION)),
        ("Yes", "Apple", ("micro", Selection.ONLY_OPTION)),
        ("", "Yes", ("macro", Selection.ONLY_OPTION)),
        ("A", "A", None),
    ],
)
def test_by_the_released_codes_rule_more_replies_name_an_option(macro: str, micro: str, chosen: Choice | None) -> None:
    options = {"A": "red", "B": "blue"}
    assert only_choice(turn(macro), _looked(turn(micro)), options, Scoring.RELEASED) == chosen


def test_every_reason_has_a_case_here() -> None:
    tested = {
        Selection.LOWER_PERPLEXITY,
        Selection.ONLY_ANSWER,
        Selection.OTHER_EMPTY,
        Selection.OTHER_CUT,
        Selection.SAME_ANSWER,
        Selection.TOOL_CALL,
        Selection.ONLY_OPTION,
        Selection.NO_OPTION,
        *DEGRADED,
    }
    assert set(Selection) == tested, "a reason was added: give it a test"
