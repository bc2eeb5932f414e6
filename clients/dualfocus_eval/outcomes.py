"""What a server said about one question, and how right it was."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dualfocus_eval.boxes import Box, overlap
from dualfocus_eval.scenes.questions import Question


@dataclass(frozen=True)
class Said:
    """An answer and its perplexity (Eq. 7)."""

    text: str
    perplexity: float


@dataclass(frozen=True)
class Outcome:
    """One question's answers, `chosen` by default and `shared` where both were scored under one prompt.

    `shifted` holds the chosen answer by how many pixels the box was shifted.
    Where the second look gave no answer (no readable box, say), `micro` is macro's: that is what is returned.
    """

    question: Question
    macro: Said
    micro: Said
    chosen: str
    winner: str
    box: Box | None
    shared: str
    shifted: dict[int, str] = field(default_factory=dict)

    def is_right(self, text: str) -> bool:
        """Whether a text is the answer, letter for letter but for case and outer blanks."""
        return is_right(text, [self.question.answer])

    @property
    def overlap(self) -> float:
        """Intersection over union of the model's box and the true one; 0 where there is none."""
        return overlap(self.box, self.question.box) if self.box else 0.0

    def with_skipping(self, threshold: float) -> tuple[str, bool]:
        """The answer if micro is skipped where macro's perplexity is under `threshold`, and whether it was."""
        skipped = self.macro.perplexity < threshold
        return (self.macro.text if skipped else self.chosen), skipped


def outcome_of(question: Question, completion: dict[str, Any]) -> Outcome:
    """Read a chat completion; raises KeyError where it has no `dualfocus` field."""
    focus = completion["dualfocus"]
    macro = _said(focus["macro"])
    return Outcome(
        question=question,
        macro=macro,
        micro=_said(focus["micro"]) if focus["micro"] else macro,
        chosen=chosen_of(completion),
        winner=focus["winner"],
        box=Box(*focus["box"]) if focus["box"] else None,
        shared=chosen_of(completion),
    )


def is_right(text: str, answers: Iterable[str]) -> bool:
    """Whether a text is one of the answers, letter for letter but for case and outer blanks."""
    return text.strip().casefold() in {answer.strip().casefold() for answer in answers}


def chosen_of(completion: dict[str, Any]) -> str:
    """The text of a chat completion."""
    return str(completion["choices"][0]["message"]["content"])


def _said(answer: dict[str, Any]) -> Said:
    return Said(answer["text"], answer["perplexity"])
