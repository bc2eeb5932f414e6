"""`report.md`: a run's figures with what they were measured with, and the paper's numbers beside them."""

from collections.abc import Iterable
from typing import Any

from dualfocus_eval.asking.header import Header
from dualfocus_eval.report.page import grid, percent, table
from dualfocus_eval.report.paper import PUBLISHED

_PLOTS = {
    "accuracy": "Right answers by category",
    "skipping": "Skipping the second look by macro's perplexity",
    "perplexity": "Perplexities of both answers",
}
_NO_PLOTS = "Plots need matplotlib: `pip install matplotlib`, then the same command again."
_ONE_LOOK = "There was one look: macro, micro and chosen are the same answers."


def report(header: Header, found: dict[str, Any], has_plots: bool) -> str:
    """Return the report; `found` are the figures, with `failed` and `costs`."""
    plots = [f"![{title}]({name}.png)" for name, title in _PLOTS.items()] if has_plots else [_NO_PLOTS]
    parts = [
        f"# {header['asked']['benchmark']}",
        failures(found),
        _ONE_LOOK if header["asked"]["mode"] in ("macro", "micro", "off") else "",
        "## Answers",
        f"Scores are {next(iter(found['quoted']['chosen']))}. Chosen: what the server returned. Oracle: the better of "
        "macro and micro.",
        table(found),
        *details(found),
        *_paper(header["asked"]["benchmark"], found),
        "## Plots",
        *plots,
        "## What was run",
        grid(["", ""], [[name, str(value)] for name, value in _run(header)]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def failures(found: dict[str, Any]) -> str:
    """Return what there is to say of questions without an answer; nothing where all have one."""
    told = []
    if found["failed"]:
        told.append(f"{found['failed']} questions failed and are in no figure, nor is what is judged with them.")
    if found["failed_again"]:
        told.append(f"{found['failed_again']} failed when asked again: that scoring or shift is left out.")
    return " ".join([*told, "The same command again asks them."] if told else [])


def details(found: dict[str, Any]) -> Iterable[str]:
    """Yield the tables that drawn scenes have no need of."""
    quoted = found["quoted"]
    yield "All figures that the benchmark is quoted by:"
    names = next(iter(quoted.values()))
    rows = [[name, *(percent(figures[name]) for figures in quoted.values())] for name in names]
    yield grid(["", *(f"{answer} %" for answer in quoted)], rows)
    choice = found["right_choice"]
    if choice["questions"]:
        yield (
            f"Where one of the two answers is better ({choice['questions']} questions), it was chosen in "
            f"{percent(choice['chosen'])} %."
        )
    yield "What micro won, by tenths of the questions from the surest macro answer on (Figure 3's form):"
    yield grid(["macro's perplexity, up to", *map(_number, found["wins"])], _wins(found["wins"]))
    if boxes := found["boxes"]:
        yield (
            f"Of {boxes['questions']} questions whose target is known {percent(boxes['had_box'])} % had a box; mean "
            f"IoU {boxes['iou']:.2f}; the crop holds {percent(boxes['covered'])} % of the target on average."
        )
    yield "Why an answer was chosen:"
    yield grid(["selection", "questions"], [[name, str(count)] for name, count in found["selections"].items()])
    yield grid(["a question", "mean; of seconds the median"], [[name, f"{n:g}"] for name, n in found["costs"].items()])


def _number(row: dict[str, Any]) -> str:
    return "-" if row["macro_perplexity"] is None else f"{row['macro_perplexity']:.3g}"


def _wins(rows: list[dict[str, Any]]) -> list[list[str]]:
    names = ("won_by_micro", "macro", "micro", "chosen", "oracle")
    return [[f"{name.replace('_', ' ')} %", *(percent(row[name]) for row in rows)] for name in names]


def _paper(benchmark: str, found: dict[str, Any]) -> Iterable[str]:
    """Yield the paper's numbers with ours of the same name; its baselines are other checkpoints than ours."""
    published = [one for one in PUBLISHED if one.benchmark == benchmark]
    if not published:
        return
    here = found["overall"] | {f"shift {pixels}": share for pixels, share in found["shifts"].items()}
    yield "## The paper's numbers"
    yield grid(
        ["from", "system", "answer", "paper %", "here %"],
        [
            [
                one.table,
                one.system,
                one.answer,
                f"{one.percent:.1f}",
                percent(here[one.answer]) if one.answer in here else "",
            ]
            for one in published
        ],
    )


def _run(header: Header) -> Iterable[tuple[str, Any]]:
    for part in ("asked", "served", "versions"):
        for name, value in header[part].items():
            yield (f"{part} {name}" if part != "asked" else name), value
    yield "begun", header["begun"]
