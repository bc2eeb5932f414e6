"""MME-RealWorld: the first capital from A to E, of which E is the refusal; as lmms-eval 0.7.3 has it.

The authors' own script differs in two ways: two commas are missing in its list of prefixes, so that it reads the B of
"Best answer: C"; and where there is no capital from A to E it looks the reply up in the question's choices: "red car"
may be right there, and is wrong here.
"""

import re
from collections.abc import Sequence

from dualfocus_eval.samples import Sample, Scored
from dualfocus_eval.scoring.mean import by_category, mean_score

# Taken out wherever they stand, in this order: their capitals are no answers.
_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
)


def score(sample: Sample, reply: str) -> float:
    """Return 1 where the reply's letter is the right one."""
    return float(_letter(reply) in sample.answers)


def _letter(reply: str) -> str:
    """Return the first capital from A to E, else the letter whose `(a)` holds the reply; a reply of nothing is A."""
    text = reply.strip()
    for prefix in _PREFIXES:
        text = text.replace(prefix, "")
    if capital := re.search("[A-E]", text):
        return capital[0]
    return next((letter for letter in "ABCDE" if text.lower() in f"({letter.lower()})"), "")


def figures(scored: Sequence[Scored]) -> dict[str, float]:
    """Return the accuracy over all questions, of Perception and of Reasoning, and of each category.

    A question is Perception's where its category says so (`Perception/Remote Sensing`), as in lmms-eval. Raises
    ValueError where nothing is scored.
    """
    tasks: dict[str, list[Scored]] = {}
    for one in scored:
        task = "Perception" if "perception" in one.sample.category.lower() else "Reasoning"
        tasks.setdefault(task, []).append(one)
    means = by_category(scored)
    return {"accuracy": means.pop("accuracy"), **{task: mean_score(tasks[task]) for task in sorted(tasks)}, **means}
