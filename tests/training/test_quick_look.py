"""The quick look: the choice, and what is reported."""

from dualfocus_engine.boxes import Box
from dualfocus_training.quick_look import Outcome, report
from dualfocus_training.scenes.questions import Question

BOX = Box(0.0, 0.0, 0.5, 0.5)


def outcome(kind: str, macro: tuple[str, float], micro: tuple[str, float], box: Box | None = BOX) -> Outcome:
    return Outcome(Question("What?", "7", kind, BOX), box, macro, micro, ("7", 0.1))


def test_the_less_surprising_answer_is_chosen() -> None:
    assert outcome("detail", ("1", 0.5), ("7", 0.4)).chosen[0] == "7"
    assert outcome("detail", ("1", 0.3), ("7", 0.4)).chosen[0] == "1"


def test_figures_are_told_by_kind() -> None:
    figures = report(
        [
            outcome("detail", ("1", 0.5), ("7", 0.4)),
            outcome("detail", ("1", 0.3), ("7", 0.4), box=None),
            outcome("global", ("7", 0.3), ("7", 0.4)),
        ]
    )
    assert figures["detail"] == {
        "questions": 2,
        "macro": 0.0,
        "micro": 1.0,
        "chosen": 0.5,
        "oracle": 1.0,
        "micro of true box": 1.0,
        "iou": 0.5,
    }
    assert figures["overall"]["questions"] == 3
    assert figures["global"]["chosen"] == 1.0
