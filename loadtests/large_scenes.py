"""Answers about scenes of 4,000 pixels, by one look and by two: `python -m loadtests.large_scenes [--scenes N]`.

The model that ships is asked about held-out scenes of the size that it was trained on, the same enlarged to 4,000
pixels, and scenes of that size whose shapes are smaller for their picture. Prints a table for docs/performance.md.
"""

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from dualfocus_engine import DualFocus, FocusResult, Question
from dualfocus_eval.boxes import Box, overlap
from dualfocus_eval.report.outcomes import is_right
from dualfocus_eval.scenes.held_out import Asked, held_out
from dualfocus_eval.scenes.layout import Difficulty

_CANVAS = (4000, 4000)
_SEED = 950  # that of docs/results.md: no training run draws its scenes
_AT_ONCE = 8


def _smaller(by: int) -> Difficulty:
    """Scenes of the canvas's size whose shapes, and the print on them, are so many times smaller for their picture."""
    usual = Difficulty()
    sizes = (usual.sizes[0] / by, usual.sizes[1] / by)
    return Difficulty(long_side=_CANVAS, sizes=sizes, print_scale=(1 / by, 1 / by))


_WAYS = {
    "as trained: 560 to 960 pixels": Difficulty(),
    "4,000 pixels, shapes as large for the picture": _smaller(1),
    "4,000 pixels, shapes half as large": _smaller(2),
    "4,000 pixels, shapes a quarter as large": _smaller(4),
}


@dataclass(frozen=True)
class _Judged:
    """One question: whether its answer lies in small print, and which answers were right."""

    is_detail: bool
    macro: bool
    chosen: bool
    overlap: float


def _judge(asked: Asked, result: FocusResult) -> _Judged:
    answers, box = [asked.question.answer], result.look.box
    assert result.macro is not None
    return _Judged(
        asked.question.kind == "detail",
        is_right(result.macro.text, answers),
        is_right(result.text, answers),
        overlap(Box(*box.as_tuple()), asked.question.box) if box else 0.0,
    )


async def _ask(focus: DualFocus, difficulty: Difficulty, scenes: int) -> list[_Judged]:
    judged: list[_Judged] = []
    waiting = held_out(_SEED, scenes, difficulty)
    while some := list(islice(waiting, _AT_ONCE)):
        results = await focus.ask_many(Question.about(one.picture, one.question.question) for one in some)
        judged += [_judge(asked, result) for asked, result in zip(some, results, strict=True)]
    return judged


def _cells(judged: Sequence[_Judged]) -> Iterator[str]:
    yield str(len(judged))
    for right in ([one.macro for one in judged], [one.chosen for one in judged]):
        yield f"{100 * sum(right) / len(judged):.1f}"


async def _measure(scenes: int) -> None:
    print("| scenes | on details | one look % | two looks % | mean IoU | on all else | one look % | two looks % |")
    print("| ---" + " | --:" * 7 + " |")
    async with DualFocus() as focus:
        for name, difficulty in _WAYS.items():
            judged = await _ask(focus, difficulty, scenes)
            details = [one for one in judged if one.is_detail]
            others = [one for one in judged if not one.is_detail]
            mean = sum(one.overlap for one in details) / len(details)
            print(
                f"| {name} | " + " | ".join(chain(_cells(details), [f"{mean:.2f}"], _cells(others))) + " |", flush=True
            )


def main() -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=100, help="scenes of each kind, four questions on each")
    asyncio.run(_measure(parser.parse_args().scenes))


if __name__ == "__main__":
    main()
