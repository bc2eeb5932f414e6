"""`dualfocus batch` stopped and failed at random, with the file of answers torn between runs, until all is answered."""

import json
import random
from contextlib import suppress

import pytest

from .model import Folder, Form, Model, refusal

TEXTS = [f"q{number}" for number in range(8)]


@pytest.mark.parametrize("seed", range(6))
def test_however_runs_end_each_question_has_its_answer(folder: Folder, model: Model, form: Form, seed: int) -> None:
    chance = random.Random(seed)
    folder.write(*(form.line(text) for text in TEXTS))
    model.pages = {
        text: [refusal(chance.choice((400, 429, 503))) for _ in range(chance.randrange(6))] for text in TEXTS
    }
    status, runs = 1, 0
    while status and runs < 50:
        answered = _leave_as_if_killed(folder, form, chance)
        model.asked.clear()
        status = folder.ask_of(model, "--retries", f"{chance.randrange(3)}", "--concurrency", f"{chance.randint(1, 4)}")
        assert answered.isdisjoint(model.asked), "what is answered is not asked again"
        runs += 1
    assert [form.answer(told) for told in folder.told()] == [text.upper() for text in TEXTS]


def _leave_as_if_killed(folder: Folder, form: Form, chance: random.Random) -> set[str]:
    """Leave lines in no order and the last one torn; returns the questions that the file still answers."""
    lines = folder.answers.read_bytes().splitlines(keepends=True) if folder.answers.exists() else []
    chance.shuffle(lines)
    if lines:
        lines[-1] = lines[-1][: chance.randint(0, len(lines[-1]))]
    folder.answers.write_bytes(b"".join(lines))
    answers = set()
    for line in lines:
        with suppress(ValueError):
            answers.add(form.answer(json.loads(line)))
    return {answer.lower() for answer in answers if answer is not None}
