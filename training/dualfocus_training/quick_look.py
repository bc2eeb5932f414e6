"""A quick look at an exported model: held-out scenes through transformers, by its own boxes.

The figures that count come from the server (`dualfocus eval scenes`); these tell how a run is doing.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from dualfocus_engine.families.boxes import Box, crop_region
from dualfocus_engine.families.profiles import Profile
from dualfocus_eval.boxes import Box as SceneBox
from dualfocus_eval.report.figures import group_figures
from dualfocus_eval.report.outcomes import Outcome, Said, judge
from dualfocus_eval.scenes.benchmark import sample_of, scenes
from dualfocus_eval.scenes.held_out import Asked, held_out
from dualfocus_eval.scenes.mixes import MIXES, STANDARD
from dualfocus_eval.scenes.questions import Question

from dualfocus_training.further_looks import look_for_enough, look_on
from dualfocus_training.learning.conversations import asks, says
from dualfocus_training.looker import Looker, Turn


def look_twice(looker: Looker, asked: Sequence[Asked]) -> tuple[list[Outcome], list[Outcome]]:
    """Run the three turns (Figure 7) on each question: what came of the model's own boxes, and of the true ones."""
    profile = looker.profile
    macros = looker.answer([Turn([asks(one.question.question)], [one.picture]) for one in asked])
    grounding = [Turn([asks(profile.grounding_text(one.question.question))], [one.picture]) for one in asked]
    own = [said.text for said in looker.answer(grounding)]
    true = [profile.box_format.write(Box(*one.question.box.as_tuple())) for one in asked]
    return _outcomes(looker, asked, macros, own), _outcomes(looker, asked, macros, true)


def _outcomes(looker: Looker, asked: Sequence[Asked], macros: Sequence[Said], boxes: Sequence[str]) -> list[Outcome]:
    """What came of each question by the box that was written; without a readable one, micro is macro."""
    micros = [micro or macro for macro, micro in zip(macros, _micros(looker, asked, boxes), strict=True)]
    return [
        outcome(one.question, macro, micro, SceneBox(*box.as_tuple()) if box else None)
        for one, macro, micro, box in zip(
            asked, macros, micros, map(looker.profile.box_format.read, boxes), strict=True
        )
    ]


def outcome(question: Question, macro: Said, micro: Said, box: SceneBox | None) -> Outcome:
    """Choose by Eq. 8."""
    winner = "macro" if macro.perplexity < micro.perplexity else "micro"
    chosen = (macro if winner == "macro" else micro).text
    return Outcome(sample_of(question), macro, micro, chosen, winner, box)


def _micros(looker: Looker, asked: Sequence[Asked], boxes: Sequence[str]) -> list[Said | None]:
    """The micro turn of each question from a written box; None where the box can't be used."""
    turns = [_micro_turn(looker.profile, one, box) for one, box in zip(asked, boxes, strict=True)]
    answers = iter(looker.answer([turn for turn in turns if turn]))
    return [next(answers) if turn else None for turn in turns]


def _micro_turn(profile: Profile, asked: Asked, written: str) -> Turn | None:
    box = profile.box_format.read(written)
    if box is None or box.is_empty:
        return None
    crop_box = crop_region(box, asked.picture.size, profile.crop)
    if crop_box is None:
        return None
    question = asked.question.question
    messages = [asks(profile.grounding_text(question)), says(written), asks(profile.micro_text(question))]
    return Turn(messages, [asked.picture, asked.picture.crop(crop_box)])


def report(own: Sequence[Outcome], true: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """The figures of the model's own boxes, overall and by kind, and how often micro is right by the true ones."""
    kinds = {None: "overall"} | {one.sample.category: one.sample.category for one in own}
    return {name: _of_kind(own, kind) | {"true_box": _of_kind(true, kind)["micro"]} for kind, name in kinds.items()}


def _of_kind(outcomes: Sequence[Outcome], kind: str | None) -> dict[str, Any]:
    benchmark = scenes(0, 0)
    return group_figures(benchmark, [judge(benchmark, one) for one in outcomes if kind in (None, one.sample.category)])


def means_by_kind(asked: Sequence[Asked], columns: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """The mean of each column, overall and by kind of question."""
    places: dict[str, list[int]] = {"overall": list(range(len(asked)))}
    for place, one in enumerate(asked):
        places.setdefault(one.question.kind, []).append(place)
    return {
        kind: {name: round(fmean(values[place] for place in of_it), 4) for name, values in columns.items()}
        for kind, of_it in places.items()
    }


def main() -> None:
    """Print accuracy by kind on held-out scenes."""
    parser = argparse.ArgumentParser(description="Accuracy of an exported model on held-out scenes.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--seed", type=int, default=900)
    parser.add_argument("--count", type=int, default=50, help="scenes")
    parser.add_argument("--mix", choices=list(MIXES), default=STANDARD, help="which scenes, and what is asked of them")
    parser.add_argument("--shapes", type=int, nargs=2, help="fewest and most in a scene; the mix's own if left out")
    parser.add_argument("--system", help="a system message before every question")
    parser.add_argument("--further", action="store_true", help="also lists of boxes, a crop of the crop, is it enough")
    arguments = parser.parse_args()
    difficulty = MIXES[arguments.mix].difficulty
    if arguments.shapes:
        difficulty = replace(difficulty, shapes=tuple(arguments.shapes))
    asked = list(held_out(arguments.seed, arguments.count, difficulty, arguments.mix))
    looker = Looker(arguments.model, arguments.system)
    _print(report(*look_twice(looker, asked)))
    if arguments.further:
        _print(means_by_kind(asked, look_on(looker, asked)))
        _print({"enough": look_for_enough(looker, asked)})


def _print(figures: Mapping[str, Mapping[str, Any]]) -> None:
    for name, of_it in figures.items():
        print(f"{name:8}", *(f"{column} {value:g}" for column, value in of_it.items()), sep="  ")


if __name__ == "__main__":
    main()
