"""What two looks cost on a picture of 4000 x 3000: `python -m loadtests.large_picture [--rounds N]`.

A tiny Qwen2.5-VL (random weights, its family's processor) is asked in turn by one look at the picture's own size and by
two looks at several sizes, each time about a picture that no cache knows. Prints a table for docs/performance.md.
"""

import argparse
import asyncio
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, replace

from dualfocus_engine import DualFocus, Mode, Profile, Question, load_profile
from dualfocus_training.models.families import ensure_tiny
from PIL import Image
from vllm import SamplingParams

_SIZE, _CONTEXT = (4000, 3000), 24_576
_SAMPLING = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True)
# What a trained model would write: with what is around it the crop is a fifth of the picture wide.
_BOX = r'\[\{"bbox_2d": \[15[0-9]{2}, 15[0-9]{2}, 15[0-9]{2}, 15[0-9]{2}\]\}\]'


@dataclass(frozen=True)
class _Way:
    name: str
    mode: Mode = Mode.DUAL
    whole_tokens: int | None = None
    crop_tokens: int | None = None


_ONE_LOOK = _Way("one look, the picture's own size", Mode.MACRO)
_WAYS = (
    _ONE_LOOK,
    _Way("two looks, by default"),
    _Way("two looks, 1,024 + 1,024", whole_tokens=1024, crop_tokens=1024),
    _Way("two looks, 512 + 512", whole_tokens=512, crop_tokens=512),
)


def _profile() -> Profile:
    own = load_profile("qwen2.5-vl")
    return own.model_copy(update={"box_format": own.box_format.model_copy(update={"grammar": _BOX})})


async def _ask(focus: DualFocus, way: _Way, number: int) -> tuple[int, float]:
    """Return the prompt tokens computed and the seconds of one question; its picture is opened before they count."""
    picture = Image.effect_noise(_SIZE, 40 + number).convert("RGB")
    question = replace(
        Question.about(picture, "What does the sign say?", way.mode),
        sampling=_SAMPLING,
        whole_tokens=way.whole_tokens,
        crop_tokens=way.crop_tokens,
    )
    started = time.perf_counter()
    result = await focus.answer(question)
    seconds = time.perf_counter() - started
    assert way.mode is Mode.MACRO or result.look.micro is not None, result.look.failed
    return sum(turn.computed_tokens for turn in result.turns.values()), seconds


async def _measure(rounds: int) -> None:
    flags = {"max_model_len": _CONTEXT, "hf_overrides": {"text_config": {"max_position_embeddings": _CONTEXT}}}
    tokens: dict[str, list[int]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    async with DualFocus(str(ensure_tiny("qwen2.5-vl")), _profile(), dtype="float32", **flags) as focus:
        for number in range(rounds):
            for place, way in enumerate(_WAYS):
                counted, took = await _ask(focus, way, number * len(_WAYS) + place)
                tokens[way.name].append(counted)
                seconds[way.name].append(took)
    print("| | prompt tokens computed | : one look's | median s | : one look's |\n| --- | --: | --: | --: | --: |")
    for way in _WAYS:
        of_tokens = statistics.median(tokens[way.name]) / statistics.median(tokens[_ONE_LOOK.name])
        # The ratio of each round's: both were asked one after the other.
        ratios = [a / b for a, b in zip(seconds[way.name], seconds[_ONE_LOOK.name], strict=True)]
        print(
            f"| {way.name} | {statistics.median(tokens[way.name]):,.0f} | {of_tokens:.2f} "
            f"| {statistics.median(seconds[way.name]):.2f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}, {rounds}) |"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which each way is asked once")
    asyncio.run(_measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
