"""Released scoring and crops, held to a plain reimplementation of what the released code does."""

import asyncio
import math
import random
import re
from dataclasses import dataclass

import numpy as np
import pytest
import yaml
from dualfocus_engine.families.boxes import crop_region
from dualfocus_engine.families.profiles import load_profile, shipped_profile
from dualfocus_engine.method.questions import Question
from dualfocus_engine.method.results import FocusResult, Score, Scoring, Selection

from ..builders import CLOSING, asked, plain, turn
from ..fake_engine import WAIT, FakeEngine, boxed, focus_on

HINT = "Answer with the option's letter from the given choices directly."
CUPS = ("A. a red cup", "B. a blue cup", "C. two cups", "D. none")
TWO = ("A. dog", "B. cat")
NAN = float("nan")
RELEASED = load_profile("dualfocus-released")


@dataclass(frozen=True)
class Case:
    """Two replies, and the losses of the box's tokens and of each answer's."""

    macro: str
    micro: str
    options: tuple[str, ...] = ()
    box: tuple[float, ...] = (0.5,) * 25
    macro_loss: tuple[float, ...] = (0.6, 0.6)
    micro_loss: tuple[float, ...] = (0.7, 0.7)


def plain_letter(reply: str, lines: tuple[str, ...]) -> str:
    if len(reply) > 1 and reply[0].lower() in "abcd":
        return reply[0]
    if reply and reply[0].lower() in "abcd":
        return reply
    for number, line in enumerate(lines):
        if reply.lower() in line.lower() or line.lower() in reply.lower():
            return "ABCDEFGH"[number]
    return reply


def plain_choice(case: Case) -> str:
    macro, micro = case.macro, case.micro.strip("\n").strip(".")
    if case.options:
        valid = [plain_letter(reply, case.options).upper() in ("A", "B", "C", "D") for reply in (macro, micro)]
        if valid != [True, True]:
            return "micro" if valid == [False, True] else "macro"
    macro_mean, micro_mean = (
        (sum(case.box) + sum(losses)) / (len(case.box) + len(losses)) for losses in (case.macro_loss, case.micro_loss)
    )
    return "micro" if micro_mean < macro_mean else "macro"


def plain_texts(case: Case) -> list[str]:
    replies = [case.macro, case.micro.strip("\n").strip(".")]
    if not case.options:
        return replies
    by_letter = {line[0]: line[3:] for line in case.options}
    letters = [plain_letter(reply, case.options).upper() for reply in replies]
    return [by_letter.get(letter, letter) for letter in letters]  # theirs ends in an error where no option has it


ODD = [
    Case("Apple", "B", TWO),  # A
    Case("Apple", "cat", TWO),  # c is a letter
    Case("a dog", "B. cat", TWO, micro_loss=(0.1,)),  # lower case
    Case("red", "blue", CUPS),  # the first option that holds the reply, or its first letter
    Case("It is D. none", "two cups", CUPS),  # holds an option's line
    Case("red cup", "I see none", CUPS),
    Case("red cup", "The answer is E", CUPS),  # micro names none
    Case("The answer is E", "red cup", CUPS),
    Case("Yes", "No", CUPS),  # neither
    Case("(A)", "(B)", CUPS),
    Case("", "B", CUPS),  # nothing is in everything
    Case("Yes", ".", CUPS),
    Case("B", "A", CUPS, micro_loss=(0.6, 0.6)),  # a tie
    Case("B", "A", CUPS, macro_loss=(NAN,), micro_loss=(0.1,)),
    Case("B", "A", CUPS, micro_loss=(NAN,)),
    Case("red", "\nblue.\n", micro_loss=(0.1,)),
    Case("red.", "red", macro_loss=(0.6, 0.9)),
    Case("", "red", macro_loss=(0.1,)),
    # Under its own mean micro would win; the box makes it almost the total.
    Case("red", "a large red cup on it", box=(0.01,) * 25, macro_loss=(0.9, 0.9), micro_loss=(0.5,) * 8),
    Case("a large red cup on it", "red", box=(0.01,) * 25, macro_loss=(0.5,) * 8, micro_loss=(0.9, 0.9)),
]


def _drawn(chance: random.Random) -> Case:
    options = chance.choice([(), TWO, CUPS])
    words = ["A", "b", "B.", "C", "dog", "a cup", "none", "Yes", "cat", "\nD. none.\n", "two", "red", "x"]
    few = [word for word in words if options != TWO or word.strip()[0].upper() in "AB" or word in ("dog", "Yes", "x")]
    losses = [tuple(chance.random() for _ in range(chance.randint(1, 6))) for _ in range(2)]
    box = tuple(chance.random() / 10 for _ in range(25))
    return Case(chance.choice(few).strip(), chance.choice(few), options, box, *losses)


CASES = [*ODD, *(_drawn(random.Random(seed)) for seed in range(50 - len(ODD)))]


async def _answered(case: Case, engine: FakeEngine) -> FocusResult:
    engine.script |= {"macro": turn(case.macro), "micro": turn(case.micro)}
    engine.scores = {
        name: Score(tuple(-loss for loss in losses), 0)
        for name, losses in (("grounding", case.box), ("macro", case.macro_loss), ("micro", case.micro_loss))
    }
    lines = "\n".join(("What is it?", *case.options, HINT) if case.options else ("What is it?",))
    question = Question((asked(lines, plain(size=(1000, 500))),), scoring=Scoring.RELEASED)
    async with asyncio.timeout(WAIT):
        return await focus_on(engine).answer(question)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.macro!r} or {case.micro!r}")
async def test_the_choice_is_the_released_codes(case: Case) -> None:
    engine = FakeEngine()
    result = await _answered(case, engine)
    assert result.winner == plain_choice(case)
    if result.shared is None:
        assert result.selection in (Selection.ONLY_OPTION, Selection.NO_OPTION)
        assert engine.scored == {}
        return
    scored = [[*map(ord, text), CLOSING] for text in plain_texts(case)]
    assert [engine.scored["macro"], engine.scored["micro"]] == scored
    assert engine.scored["grounding"] == [*map(ord, "[0.20, 0.20, 0.60, 0.60]"), CLOSING]
    every = [*case.box, *case.micro_loss]
    assert result.shared.micro.mean_nll == pytest.approx(math.inf if NAN in every else sum(every) / len(every))


def test_the_cases_have_all_that_can_happen() -> None:
    assert len(CASES) == 50
    assert len({(bool(case.options), plain_choice(case)) for case in CASES}) == 4


@pytest.mark.parametrize(
    ("options", "ending"),
    [
        (CUPS, "answer this question: What is it?\nAnswer the question using a single word or phrase ;"),
        ((), "answer this question:What is it?\nAnswer the question using a single word or phrase ;"),
    ],
)
async def test_the_prompt_is_that_of_the_script(options: tuple[str, ...], ending: str) -> None:
    engine = FakeEngine()
    await _answered(Case("A", "B", options), engine)
    assert "".join(map(chr, engine.prompts["macro-score"].token_ids)).endswith(ending)
    assert engine.prompts["grounding-score"] == engine.prompts["grounding"]


async def test_what_can_not_be_scored_leaves_macros_answer() -> None:
    engine = FakeEngine()
    case = Case("red", "blue", micro_loss=(0.1,))
    assert (await _answered(case, engine)).winner == "micro"

    async def full(name: str, *_: object, **__: object) -> Score | None:
        return None if name == "micro" else Score((-0.1,), 0)

    engine.score = full  # type: ignore[assignment]
    result = await _answered(case, engine)
    assert (result.winner, result.selection) == ("macro", Selection.CONTEXT_FULL)


async def test_no_box_leaves_macros_answer() -> None:
    engine = FakeEngine(grounding=boxed("nothing"))
    engine.profile = RELEASED
    result = await focus_on(engine).answer(
        Question((asked("What is it?", plain(size=(90, 50))),), scoring=Scoring.RELEASED)
    )
    assert (result.winner, result.selection) == ("macro", Selection.NO_BOX)


def plain_crop(text: str, width: int, height: int) -> tuple[int, int, int, int] | None:
    """What is left of a picture, as left, top, right and bottom of its slice; None where the script falls to macro."""
    numbers = re.search(r"(\d+\.?\d*), ?(\d+\.?\d*), ?(\d+\.?\d*), ?(\d+\.?\d*)", text)
    if numbers is None:
        return None
    x1, y1, x2, y2 = (float(n) * side for n, side in zip(numbers.groups(), (width, height) * 2, strict=True))
    if x1 <= 1 and y1 <= 1 and x2 <= 1 and y2 <= 1:
        return None
    side = max(x2 - x1, y2 - y1)
    middle = np.array([x1 + x2, y1 + y2, x1 + x2, y1 + y2]) / 2
    bounds = np.array([width - 1, height - 1, width - 1, height - 1])
    square = np.clip(middle + np.array([-1, -1, 1, 1]) * side / 2, 0, bounds)
    left, top, right, bottom = (
        int(n) for n in np.clip(square + np.array([-25, -25, 25, 25]), 0, bounds).astype(np.int32)
    )
    sliced = np.empty((height, width))[top:bottom, left:right]
    return (left, top, right, bottom) if sliced.size else None


BOXES = [
    "[0.00, 0.00, 1.00, 1.00]",
    "[0.00, 0.00, 0.00, 0.00]",
    "[0.50, 0.50, 0.50, 0.50]",
    "[1.00, 1.00, 1.00, 1.00]",
    "[0.90, 0.90, 0.10, 0.10]",
    "[0.52, 0.52, 0.50, 0.51]",
    "it is at 0.2,0.41, 0.37,0.74 or 0.5, 0.5, 0.6, 0.6",
    "[0.2, 0.4, 0.6]",
    "[1, 0, 1, 0.4]",
    "[0., 0., 0.5, 1.]",
]


def _written(chance: random.Random) -> str:
    return f"[{', '.join(f'{chance.random():.2f}' for _ in range(4))}]"


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (60, 40), (30, 30)])
@pytest.mark.parametrize("text", [*BOXES, *(_written(random.Random(seed)) for seed in range(40))])
def test_the_crop_is_the_released_codes(text: str, size: tuple[int, int]) -> None:
    box = RELEASED.box_format.read(text)
    found = crop_region(box, size, RELEASED.crop) if box is not None and RELEASED.crop.takes(box) else None
    assert found == plain_crop(text, *size)


def test_the_profile_differs_from_the_checkpoints_own_in_boxes_alone() -> None:
    ours, theirs = (yaml.safe_load(shipped_profile(name)) for name in ("llava-dualfocus", "dualfocus-released"))
    assert {field for field in ours | theirs if ours.get(field) != theirs.get(field)} == {
        *("name", "description", "verified", "architectures", "box_format", "crop"),
    }
