"""A quick look at an exported model: held-out scenes through transformers, by its own boxes.

The figures that count come from the server (`dualfocus eval scenes`); these tell how a run is doing.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from dualfocus_engine.families.boxes import Box, crop_region
from dualfocus_engine.families.choosing import profile_of
from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.method.perplexity import mean_nll, perplexity
from dualfocus_engine.pictures.fitting import fit
from dualfocus_eval.boxes import Box as SceneBox
from dualfocus_eval.report.figures import group_figures
from dualfocus_eval.report.outcomes import Outcome, Said, judge
from dualfocus_eval.scenes.benchmark import sample_of, scenes
from dualfocus_eval.scenes.held_out import Asked, held_out
from dualfocus_eval.scenes.layout import Difficulty
from dualfocus_eval.scenes.questions import Question
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from dualfocus_training.learning.conversations import Message, asks, says

_BATCH = 32
_MOST_TOKENS = 24


@dataclass(frozen=True)
class Turn:
    """A conversation to continue, and the pictures in it."""

    messages: list[Message]
    pictures: list[Image.Image]


class Looker:
    """An exported model that answers turns in batches, greedily."""

    def __init__(self, folder: Path) -> None:
        self.profile: Profile = profile_of(str(folder))
        self._processor = AutoProcessor.from_pretrained(folder)
        self._model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(self, turns: Sequence[Turn]) -> list[Said]:
        """Each turn's answer."""
        answers: list[Said] = []
        for start in range(0, len(turns), _BATCH):
            answers += self._answer(turns[start : start + _BATCH])
        return answers

    def _answer(self, turns: Sequence[Turn]) -> Iterator[Said]:
        pictures = [
            fit(shown, self.profile.pad_color, self.profile.image_size) for turn in turns for shown in turn.pictures
        ]
        inputs = self._processor(
            text=[self._processor.apply_chat_template(turn.messages, add_generation_prompt=True) for turn in turns],
            images=pictures,
            padding=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            made = self._model.generate(
                **inputs,
                max_new_tokens=_MOST_TOKENS,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        return self._read(made, inputs["input_ids"].shape[1])

    def _read(self, made: Any, prompt: int) -> Iterator[Said]:
        tokenizer = self._processor.tokenizer
        written = made.sequences[:, prompt:]
        logprobs = torch.stack(made.logits, 1).log_softmax(-1).gather(2, written[..., None])[..., 0]
        for tokens, scores in zip(written.tolist(), logprobs.tolist(), strict=True):
            ends = tokens.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in tokens else len(tokens)
            text = tokenizer.decode(tokens[:ends], skip_special_tokens=True)
            yield Said(text, perplexity(mean_nll(scores[:ends])))


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


def main() -> None:
    """Print accuracy by kind on held-out scenes."""
    parser = argparse.ArgumentParser(description="Accuracy of an exported model on held-out scenes.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--seed", type=int, default=900)
    parser.add_argument("--count", type=int, default=50, help="scenes")
    parser.add_argument("--shapes", type=int, nargs=2, default=Difficulty().shapes, help="fewest and most in a scene")
    arguments = parser.parse_args()
    fewest, most = arguments.shapes
    asked = list(held_out(arguments.seed, arguments.count, Difficulty(shapes=(fewest, most))))
    for kind, figures in report(*look_twice(Looker(arguments.model), asked)).items():
        print(f"{kind:8}", *(f"{name} {figure:g}" for name, figure in figures.items()), sep="  ")


if __name__ == "__main__":
    main()
