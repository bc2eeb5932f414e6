"""`dualfocus calibrate`: picks the threshold of adaptive mode for a server, from questions whose answers are known."""

import argparse
import codecs
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from dualfocus_client.asking import Server, may_pass, seconds_before
from dualfocus_client.client import URL_SCHEMES, AskError, Unanswered, ask
from tqdm import tqdm

from dualfocus_eval.asking.records import RunError
from dualfocus_eval.calibration import Labelled, figures
from dualfocus_eval.command import add_server, at_least_1, drawing_folder, server_of
from dualfocus_eval.report.outcomes import is_right, said
from dualfocus_eval.report.plots import draw_calibration, draw_search
from dualfocus_eval.report.reading import read_labelled
from dualfocus_eval.search_calibration import Look, search_figures

Line = dict[str, Any]
Asking = Callable[..., Line]
Asked = TypeVar("Asked")


def main(argv: Sequence[str]) -> int:
    """Run `dualfocus calibrate`; returns the exit status."""
    args = _parse(argv)
    try:
        found = _search_figures(args) if args.search else figures(_labelled(args), args.loss / 100)
    except (AskError, RunError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    told = _format_search(found) if args.search else _format_findings(found)
    print(json.dumps(found, indent=2) if args.json else told)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        draw = draw_search if args.search else draw_calibration
        draw(found, args.out / "calibration.png")
        (args.out / "calibration.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        if args.search:
            (args.out / "profile.yaml").write_text(yaml.safe_dump(found["profile"]), encoding="utf-8")
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dualfocus calibrate",
        description="Ask a running server questions whose answers are known, and pick the perplexity under which a "
        "macro answer may stand without a second look (mode adaptive, --skip-below).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "questions",
        type=Path,
        help="a JSON object a line: image (a file beside it, or a URL), question, answer or answers; or the "
        "folder of a run of `dualfocus eval`, whose answers are read: nothing is asked then",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="ask in mode search, with all looks that the server takes, and pick where one may stop: by an answer's "
        "perplexity (a profile's sure_below_perplexity) or by the model's word that it sees enough (its enough.above)",
    )
    parser.add_argument("--loss", type=float, default=0.5, help="points of accuracy that may be lost")
    parser.add_argument("--count", type=at_least_1, help="questions to ask; all if left out")
    add_server(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--out",
        type=drawing_folder,
        help="a folder for calibration.json and calibration.png; with --search also profile.yaml, a profile's numbers",
    )
    return parser.parse_args(argv)


def _labelled(args: argparse.Namespace) -> list[Labelled]:
    if args.questions.is_dir():
        return read_labelled(args.questions)[: args.count]
    return _ask_all(args, _ask)


def _search_figures(args: argparse.Namespace) -> dict[str, Any]:
    if args.questions.is_dir():
        raise ValueError(f"{args.questions} is a run: with --search questions are asked, one a line of a file")
    return search_figures(_ask_all(args, _ask_on), args.loss / 100)


def _questions(path: Path, count: int | None) -> Iterator[Line]:
    """Yield a file's labelled questions; blank lines are passed over. Raises ValueError naming a line that is none."""
    # Only line feeds end a line of JSON: as text it would also end at a carriage return.
    with path.open("rb") as file:
        lines = ((number, text.removeprefix(codecs.BOM_UTF8)) for number, text in enumerate(file, 1))
        for number, text in islice((line for line in lines if line[1].strip()), count):
            yield _question(path, number, text)


def _question(path: Path, number: int, text: bytes) -> Line:
    try:
        line = json.loads(text)
        return {"image": line["image"], "question": line["question"], "answers": _answers(line)}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}, line {number}: no JSON object with image, question and answer: {error}") from error


def _answers(line: Line) -> list[str]:
    return [str(answer) for answer in line["answers"]] if "answers" in line else [str(line["answer"])]


def _ask_all(args: argparse.Namespace, ask_one: Callable[[Asking, Line], Asked]) -> list[Asked]:
    lines, server = list(_questions(args.questions, args.count)), server_of(args)
    if not lines:
        raise ValueError("there is no question to ask")
    asking = partial(_completion, server, args.questions.parent)
    with ThreadPoolExecutor(server.concurrency) as threads:
        asked = threads.map(lambda line: ask_one(asking, line), lines)
        return list(tqdm(asked, total=len(lines), unit="question", smoothing=0.05))


def _completion(server: Server, folder: Path, line: Line, **options: Any) -> Line:
    image = line["image"] if line["image"].startswith(URL_SCHEMES) else str(folder / line["image"])
    asking = partial(ask, image, line["question"], server.base_url, server.api_key, server.timeout, **options)
    for attempt in range(server.retries):
        try:
            return asking()
        except AskError as error:
            if not may_pass(error) or (isinstance(error, Unanswered) and not error.reached):
                raise
            time.sleep(seconds_before(attempt, error))
    return asking()


def _focus(completion: Line) -> Line:
    try:
        return cast("Line", completion["dualfocus"])
    except KeyError as error:
        raise AskError("The answer has no `dualfocus` field: only `dualfocus serve` can be calibrated.") from error


def _ask_on(asking: Asking, line: Line) -> list[Look]:
    """Return all looks that a search takes which is never sure."""
    focus = _focus(asking(line, mode="search", sure_below=0.0, enough=True))
    answers = [look["answer"] for look in focus["looks"] if look["answer"] and not look["failed"]]
    return [_look(answer, line) for answer in answers or [focus["macro"]]]


def _look(answer: Line, line: Line) -> Look:
    told = said(answer)
    assert told is not None
    # As the server ranks them: an answer that is empty or cut is never sure.
    return Look(told.doubt, answer["enough"], is_right(answer["text"], line["answers"]))


def _ask(asking: Asking, line: Line) -> Labelled:
    completion = asking(line, mode="dual")
    focus = _focus(completion)
    macro = said(focus["macro"])
    assert macro is not None, "mode dual has a macro answer"
    return Labelled(
        perplexity=macro.doubt,
        macro_score=is_right(macro.text, line["answers"]),
        chosen_score=is_right(completion["choices"][0]["message"]["content"] or "", line["answers"]),
        macro_seconds=focus["turns"]["macro"]["seconds"],
        seconds=focus["seconds"],
    )


def _format_search(found: dict[str, Any]) -> str:
    lines = []
    for name, told in found["signals"].items():
        picked, full, area = told["picked"], told["full"], told["area_under_curve"]
        told_apart = "-" if area is None else f"{area:.3f}"
        lines.append(
            f"{name}: area under the curve {told_apart}; at {picked['threshold']} {picked['looks']:.2f} looks a "
            f"question and {picked['accuracy']:.1%} right, instead of {full['looks']:.2f} and {full['accuracy']:.1%}"
        )
    return "\n".join([*lines, "a profile's numbers:", yaml.safe_dump(found["profile"]).rstrip()])


def _format_findings(found: dict[str, Any]) -> str:
    full, picked = found["full"], found["picked"]
    return (
        f"--skip-below {picked['threshold']}\n"
        f"skips {picked['skipped']:.1%} of {found['questions']} second looks; right answers "
        f"{picked['accuracy']:.1%} instead of {full['accuracy']:.1%}; "
        f"{picked['seconds']:.3f} s a question instead of {full['seconds']:.3f} s"
    )
