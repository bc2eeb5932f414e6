"""Two runs side by side over the questions that both have: Table 1 (baseline, DualFocus), Table 8 (two models)."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dualfocus_eval.asking.records import RunError
from dualfocus_eval.report.figures import headline
from dualfocus_eval.report.outcomes import Judged
from dualfocus_eval.report.page import grid, percent
from dualfocus_eval.report.paper import GAINS
from dualfocus_eval.report.significance import bootstrap, mcnemar
from dualfocus_eval.samples import Benchmark, Scored

Pair = tuple[Judged, Judged]
# A question counts as right, where right or wrong is asked, from this score on.
_RIGHT = 0.5


def compare(benchmark: Benchmark, first: Sequence[Judged], second: Sequence[Judged]) -> dict[str, Any]:
    """Return what two runs reach and whether they differ, as a JSON object. Raises RunError."""
    pairs = _pairs(first, second)
    categories = sorted({one.outcome.sample.category for one, _ in pairs} - {""})
    return {
        "questions": len(pairs),
        "left_out": [len(first) - len(pairs), len(second) - len(pairs)],
        "answers": {name: _both(benchmark, pairs, name) for name in ("macro", "micro", "chosen", "oracle")},
        "difference": _difference(benchmark, pairs),
        "by_perplexity": headline(benchmark, [_surer(pair) for pair in pairs]),
        "categories": {
            name: _both(benchmark, [pair for pair in pairs if pair[0].outcome.sample.category == name], "chosen")
            for name in categories
        },
    }


def _pairs(first: Sequence[Judged], second: Sequence[Judged]) -> list[Pair]:
    others = {one.outcome.sample.id: one for one in second}
    pairs = [(one, others[one.outcome.sample.id]) for one in first if one.outcome.sample.id in others]
    for one, other in pairs:
        if one.outcome.sample != other.outcome.sample:
            raise RunError(f"question {one.outcome.sample.id!r} is not the same in both runs")
    if not pairs:
        raise RunError("the runs have no question in common")
    return pairs


def _both(benchmark: Benchmark, pairs: Sequence[Pair], answer: str) -> list[float]:
    return [headline(benchmark, [getattr(pair[side], answer) for pair in pairs]) for side in (0, 1)]


def _difference(benchmark: Benchmark, pairs: Sequence[Pair]) -> dict[str, Any]:
    kinds = _kinds(pairs)
    low, high = _interval(benchmark, kinds)
    rights: Counter[tuple[bool, ...]] = Counter()
    for units in kinds:
        rights[tuple(score >= _RIGHT for score in _both(benchmark, units[0], "chosen"))] += len(units)
    only = [rights[True, False], rights[False, True]]
    before, after = _both(benchmark, pairs, "chosen")
    gain = round(after - before, 4)
    return {"gain": gain, "interval": [round(low, 4), round(high, 4)], "only_right": only, "p": mcnemar(*only)}


def _kinds(pairs: Sequence[Pair]) -> list[list[list[Pair]]]:
    """Return the units by what figures see of them: one is counted for all of a kind."""
    kinds: dict[Hashable, list[list[Pair]]] = {}
    for unit in _units(pairs):
        kinds.setdefault(_kind(unit), []).append(unit)
    return list(kinds.values())


def _interval(benchmark: Benchmark, kinds: Sequence[Sequence[list[Pair]]]) -> tuple[float, float]:
    """Return the 95 % interval of the headline's difference."""
    examples = [units[0] for units in kinds]

    def gain(drawn: Mapping[int, int]) -> float:
        counted = [(pair, times) for kind, times in drawn.items() for pair in examples[kind]]
        before, after = ([replace(pair[side].chosen, weight=times) for pair, times in counted] for side in (0, 1))
        return headline(benchmark, after) - headline(benchmark, before)

    return bootstrap(gain, [len(units) for units in kinds])


def _kind(unit: Sequence[Pair]) -> Hashable:
    """Return all that figures see of a unit's replies but for its group's name."""
    samples = [one.outcome.sample for one, _ in unit]
    scores = [(one.chosen.score, other.chosen.score) for one, other in unit]
    seen = [(sample.category, sample.stratum, sample.id == sample.group) for sample in samples]
    return tuple(sorted(zip(seen, scores, strict=True)))


def _units(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Return what is drawn together: questions that are judged together."""
    units: dict[str, list[Pair]] = {}
    for pair in pairs:
        sample = pair[0].outcome.sample
        units.setdefault(f"group {sample.group}" if sample.group else f"id {sample.id}", []).append(pair)
    return list(units.values())


def _surer(pair: Pair) -> Scored:
    """Table 8: the reply of lower perplexity, a tie going to the first run's."""
    return min(pair, key=lambda one: one.outcome.perplexity).chosen


def comparison_table(benchmark: Benchmark, names: tuple[str, str], found: dict[str, Any]) -> str:
    """Return a comparison as Markdown."""
    low, high = (f"{100 * bound:+.1f}" for bound in found["difference"]["interval"])
    (only_first, only_second), p = found["difference"]["only_right"], found["difference"]["p"]
    parts = [
        f"{benchmark.name}: {found['questions']} questions that both runs have{_left_out(found['left_out'])}.",
        _side_by_side("answer", names, found["answers"]),
        f"B - A, chosen: {100 * found['difference']['gain']:+.1f} points, 95 % interval {low} to {high} "
        f"(1,000 paired bootstrap samples). Right (a score of at least {_RIGHT}) only in A {only_first}, only in B "
        f"{only_second}: p = {p:.3g} (McNemar's exact test).",
        f"Of both chosen answers the one of lower perplexity (Table 8's form): {percent(found['by_perplexity'])} %.",
    ]
    if found["categories"]:
        parts.append(_side_by_side("category", names, found["categories"]))
    if gains := [gain for gain in GAINS if gain.benchmark == benchmark.name]:
        rows = [[gain.table, gain.system, gain.part, f"{gain.points:+.1f}"] for gain in gains]
        parts += ["The paper's gains, in points:", grid(["from", "system", "part", "gain"], rows)]
    return "\n\n".join(parts)


def _left_out(numbers: Sequence[int]) -> str:
    """Tell how many questions one run alone has an answer to: those that failed in the other are not any questions."""
    first, second = numbers
    return f"; left out, since the other has no answer to them: {first} of A, {second} of B" if first or second else ""


def _side_by_side(what: str, names: tuple[str, str], rows: dict[str, list[float]]) -> str:
    told = [[name, percent(a), percent(b), f"{100 * (b - a):+.1f}"] for name, (a, b) in rows.items()]
    return grid([what, f"A: {names[0]} %", f"B: {names[1]} %", "B - A"], told)
