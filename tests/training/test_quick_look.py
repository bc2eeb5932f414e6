"""The quick look: the choice, and what is reported."""

from dualfocus_eval.boxes import Box
from dualfocus_eval.report.outcomes import Outcome, Said
from dualfocus_eval.scenes.held_out import held_out
from dualfocus_eval.scenes.questions import Question
from dualfocus_training.quick_look import means_by_kind, outcome, report

BOX = Box(0.0, 0.0, 0.5, 0.5)


def looked(kind: str, macro: Said, micro: Said, box: Box | None = BOX) -> Outcome:
    return outcome(Question("What?", "7", kind, BOX), macro, micro, box)


def test_the_answer_of_lower_perplexity_is_chosen() -> None:
    assert looked("detail", Said("1", 1.5), Said("7", 1.4)).chosen == "7"
    assert looked("detail", Said("1", 1.3), Said("7", 1.4)).chosen == "1"


def test_figures_are_told_by_kind() -> None:
    own = [
        looked("detail", Said("1", 1.5), Said("2", 1.4)),
        looked("detail", Said("1", 1.3), Said("7", 1.4), box=None),
        looked("global", Said("7", 1.3), Said("7", 1.4)),
    ]
    true = [looked("detail", Said("1", 1.5), Said("7", 1.1)) for _ in range(2)] + own[2:]
    figures = report(own, true)
    assert set(figures) == {"overall", "detail", "global"}
    detail = figures["detail"]
    assert (detail["questions"], detail["macro"], detail["micro"], detail["chosen"]) == (2, 0.0, 0.5, 0.0)
    assert (detail["oracle"], detail["iou"], detail["true_box"]) == (0.5, 0.5, 1.0)
    assert figures["overall"]["questions"] == 3
    assert figures["global"]["chosen"] == 1.0


def test_columns_are_told_overall_and_by_kind() -> None:
    asked = held_out(900, 1)
    detail, other = next(asked), next(one for one in asked if one.question.kind == "global")
    assert means_by_kind([detail, other, detail], {"lists": [1.0, 0.5, 0.0]}) == {
        "overall": {"lists": 0.5},
        "detail": {"lists": 0.5},
        "global": {"lists": 0.5},
    }
