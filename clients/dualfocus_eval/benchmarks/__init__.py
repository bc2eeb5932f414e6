"""The benchmarks that people quote, by name: their files, the words in which they are asked, their rules."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from dualfocus_eval.benchmarks import (
    gqa,
    mme_realworld,
    multiple_choice,
    own_file,
    pope,
    seed,
    textvqa,
    vstar,
    wordings,
)
from dualfocus_eval.samples import Benchmark, Scored
from dualfocus_eval.scoring import gqa as gqa_rule
from dualfocus_eval.scoring import mme_realworld as mme_realworld_rule
from dualfocus_eval.scoring import pope as pope_rule
from dualfocus_eval.scoring import text_vqa as textvqa_rule
from dualfocus_eval.scoring import vstar as vstar_rule
from dualfocus_eval.scoring.letters import circular, cycles, exact_letter, inferred_letter, mapped_letter
from dualfocus_eval.scoring.mean import by_category, mean_score

# The released scripts compare with an option's whole line where their data file has it in one piece.
_letter_of_a_line = partial(mapped_letter, lines=True)


def _both_letter_rules(scored: Sequence[Scored]) -> dict[str, float]:
    """Return the accuracy by the released scripts' letter, then by the exact letter, then each category's."""
    figures = by_category(scored)
    exact = mean_score(replace(one, score=exact_letter(one.sample, one.reply)) for one in scored)
    return {"accuracy": figures.pop("accuracy"), "exact letter": exact, **figures}


def _hrbench(size: str) -> Benchmark:
    return Benchmark(
        name=f"hrbench-{size}",
        summary=f"HR-Bench {size.upper()}: details of very large pictures, four cycles of each question",
        files=multiple_choice.HRBENCH_FILES.format(size),
        licence="not said: its LICENSE file is empty",
        read=partial(multiple_choice.read_hrbench, size),
        wordings=wordings.HRBENCH,
        score=inferred_letter,
        figures=cycles,
    )


_ALL = (
    Benchmark(
        name="textvqa",
        summary="TextVQA: text in pictures, an open answer held against ten people's",
        files=textvqa.FILES,
        licence="CC BY 4.0; pictures of Open Images",
        read=textvqa.read,
        wordings=wordings.TEXTVQA,
        score=textvqa_rule.score,
        figures=by_category,
    ),
    Benchmark(
        name="gqa",
        summary="GQA: reasoning about scenes, an open answer of a word or two",
        files=gqa.FILES,
        licence="CC BY 4.0",
        read=gqa.read,
        wordings=wordings.GQA,
        score=gqa_rule.score,
        figures=by_category,
    ),
    Benchmark(
        name="gqa-mcq",
        summary="GQA*: GQA's questions with options, as in the paper",
        files=gqa.MCQ_FILES,
        licence="CC BY-NC 4.0",
        read=gqa.read_mcq,
        wordings=wordings.GQA_MCQ,
        score=_letter_of_a_line,
        figures=_both_letter_rules,
    ),
    Benchmark(
        name="pope",
        summary="POPE: is there such a thing in the picture, yes or no",
        files=pope.FILES,
        licence="MIT; pictures of COCO",
        read=pope.read,
        wordings=wordings.POPE,
        score=pope_rule.score,
        figures=pope_rule.figures,
    ),
    Benchmark(
        name="mmbench",
        summary="MMBench (dev, English): abilities by category, in a single pass and circular",
        files=multiple_choice.MMBENCH_FILES,
        licence="Apache-2.0; pictures of many sources",
        read=multiple_choice.read_mmbench,
        wordings=wordings.MMBENCH,
        score=mapped_letter,
        figures=circular,
    ),
    Benchmark(
        name="seed",
        summary="SEED-Bench, the image part: nine dimensions",
        files=seed.FILES,
        licence="CC BY-NC 4.0",
        read=seed.read,
        wordings=wordings.SEED,
        score=_letter_of_a_line,
        figures=_both_letter_rules,
    ),
    Benchmark(
        name="vstar",
        summary="V*Bench: small things in large pictures, with their boxes; scored by letter, not by likelihood",
        files=vstar.FILES,
        licence="code MIT; not said for the data",
        read=vstar.read,
        wordings=wordings.VSTAR,
        score=vstar_rule.score,
        figures=by_category,
    ),
    _hrbench("4k"),
    _hrbench("8k"),
    Benchmark(
        name="mme-realworld",
        summary="MME-RealWorld (English): large photographs, five options",
        files=mme_realworld.FILES,
        licence="Apache-2.0",
        read=mme_realworld.read,
        wordings=wordings.MME_REALWORLD,
        score=mme_realworld_rule.score,
        figures=mme_realworld_rule.figures,
    ),
    Benchmark(
        name="file",
        summary="questions of one's own, with options or without",
        files=own_file.FILES,
        licence="your own",
        read=own_file.read,
        wordings=wordings.FILE,
        score=own_file.score,
        figures=by_category,
    ),
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}
