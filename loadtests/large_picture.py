"""What two looks cost on a picture of 4000 x 3000: `python -m loadtests.large_picture [--half-billion] [--rounds N]`.

A tiny Qwen2.5-VL, or one of 0.43 billion parameters (random weights, its family's processor), is asked in turn by one
look at the picture's own size and by two looks at several sizes, each time about a picture that no cache knows. Prints
a table for docs/performance.md. The encoder's seconds are vLLM's own count of them (`enable_mm_processor_stats`).
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import psutil
from dualfocus_engine import DualFocus, Mode, Profile, Question, load_profile
from dualfocus_training.models.families import ensure_tiny
from dualfocus_training.models.families.qwen.qwen2_5_vl import write_half_billion
from dualfocus_training.models.made_once import make_once
from PIL import Image
from vllm import SamplingParams

_SIZE, _CONTEXT = (4000, 3000), 24_576
_SAMPLING = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True)
_HALF_BILLION = Path("runs/models/qwen2.5-vl-half-billion")
# What a trained model would write: with what is around it the crop is a fifth of the picture wide.
_BOX = r'\[\{"bbox_2d": \[15[0-9]{2}, 15[0-9]{2}, 15[0-9]{2}, 15[0-9]{2}\]\}\]'


@dataclass(frozen=True)
class Way:
    """How a picture is asked about."""

    name: str
    mode: Mode = Mode.DUAL
    whole_tokens: int | None = None
    crop_tokens: int | None = None


ONE_LOOK = Way("one look, the picture's own size", Mode.MACRO)
THOUSAND_TOKENS = Way("two looks, 1,024 + 1,024", whole_tokens=1024, crop_tokens=1024)
_WAYS = (
    ONE_LOOK,
    Way("two looks, by default"),
    THOUSAND_TOKENS,
    Way("two looks, 512 + 512", whole_tokens=512, crop_tokens=512),
)


def _profile() -> Profile:
    own = load_profile("qwen2.5-vl")
    return own.model_copy(update={"box_format": own.box_format.model_copy(update={"grammar": _BOX})})


@dataclass(frozen=True)
class Cost:
    """Of one question: prompt tokens computed, seconds until its answer, those that the encoder took, and the CPUs'.

    The last are those of vLLM's process: what else runs on the machine changes them the least.
    """

    tokens: int
    seconds: float
    encoder: float
    cpu: float


# What is printed of a question's costs, and how.
_COLUMNS: dict[str, tuple[Callable[[Cost], float], str]] = {
    "prompt tokens computed": (lambda cost: cost.tokens, ",.0f"),
    "median s": (lambda cost: cost.seconds, ".2f"),
    "the encoder's s": (lambda cost: cost.encoder, ".2f"),
    "CPU s": (lambda cost: cost.cpu, ".1f"),
}


async def _ask(focus: DualFocus, way: Way, number: int) -> Cost:
    """Return what one question costs; its picture is opened before the seconds count."""
    picture = Image.effect_noise(_SIZE, 40 + number).convert("RGB")
    question = replace(
        Question.about(picture, "What does the sign say?", way.mode),
        sampling=_SAMPLING,
        whole_tokens=way.whole_tokens,
        crop_tokens=way.crop_tokens,
    )
    started, cpu = time.perf_counter(), _cpu_seconds()
    result = await focus.answer(question)
    seconds = time.perf_counter() - started
    assert way.mode is Mode.MACRO or result.look.micro is not None, result.look.failed
    tokens = sum(turn.computed_tokens for turn in result.turns.values())
    return Cost(tokens, seconds, await _encoder_seconds(focus), _cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    """Return the seconds of all CPUs that this process's children have had."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return float(sum(taken.user + taken.system for taken in times))


async def _encoder_seconds(focus: DualFocus) -> float:
    """Return the encoder's seconds since this was last asked."""
    (stats,) = await focus.engine.llm.collective_rpc("get_encoder_timing_stats")
    return float(sum(request["encoder_forward_secs"] for request in stats.values()))


class Listener(Protocol):
    """Is told what is known so far."""

    def on_start(self) -> None:
        """The engine is ready."""

    def on_answer(self, number: int, way: Way, cost: Cost) -> None:
        """A question of a round is answered."""


async def measure(model: Path, ways: Sequence[Way], rounds: int, listener: Listener, **flags: Any) -> None:
    """Ask a model in every way in turn, for so many rounds; `flags` are vLLM's."""
    own: dict[str, Any] = {
        "max_model_len": _CONTEXT,
        "hf_overrides": {"text_config": {"max_position_embeddings": _CONTEXT}},
    }
    async with DualFocus(str(model), _profile(), enable_mm_processor_stats=True, **own, **flags) as focus:
        listener.on_start()
        await _encoder_seconds(focus)  # those of warming up
        for number in range(rounds):
            # Every other round the other way round: neither is always asked when the machine is busier.
            for place, way in list(enumerate(ways))[:: -1 if number % 2 else 1]:
                listener.on_answer(number, way, await _ask(focus, way, number * len(ways) + place))


class _Table(dict[str, list[Cost]]):
    """What every way cost, round by round."""

    def on_start(self) -> None:
        pass

    def on_answer(self, number: int, way: Way, cost: Cost) -> None:
        self.setdefault(way.name, []).append(cost)
        print(way.name, cost, file=sys.stderr, flush=True)

    def print(self) -> None:
        print("| | " + " | ".join(f"{head} | : one look's" for head in _COLUMNS) + " |")
        print("| ---" + " | --:" * 2 * len(_COLUMNS) + " |")
        for way in _WAYS:
            cells = [
                _cells([get(cost) for cost in self[way.name]], [get(one) for one in self[ONE_LOOK.name]], form)
                for get, form in _COLUMNS.values()
            ]
            print(f"| {way.name} | " + " | ".join(cells) + " |")


def _cells(values: Sequence[float], of_one_look: Sequence[float], form: str) -> str:
    """Return the median, and its ratio to one look's: the median over the rounds, in each of which both were asked."""
    ratios = [value / one for value, one in zip(values, of_one_look, strict=True)]
    spread = "" if min(ratios) == max(ratios) else f" ({min(ratios):.2f}-{max(ratios):.2f})"
    return f"{statistics.median(values):{form}} | {statistics.median(ratios):.2f}{spread}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which each way is asked once")
    parser.add_argument("--half-billion", action="store_true", help="the model of 0.43 billion parameters")
    args = parser.parse_args()
    model = make_once(_HALF_BILLION, write_half_billion) if args.half_billion else ensure_tiny("qwen2.5-vl")
    table = _Table()
    asyncio.run(measure(model, _WAYS, args.rounds, table, dtype="bfloat16" if args.half_billion else "float32"))
    table.print()


if __name__ == "__main__":
    main()
