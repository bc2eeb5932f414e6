"""`dualfocus calibrate`: picks the threshold of adaptive mode for a server, from questions whose answers are known."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from dualfocus_client.asking import Server
from dualfocus_client.client import AskError, ask
from tqdm import tqdm

from dualfocus_eval.asking.records import RunError
from dualfocus_eval.calibration import Labelled, figures
from dualfocus_eval.command import add_server, at_least_1, drawing_folder, server_of
from dualfocus_eval.report.outcomes import is_right
from dualfocus_eval.report.plots import draw_calibration
from dualfocus_eval.report.reading import read_labelled

Line = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Run `dualfocus calibrate`; returns the exit status."""
    args = _parse(argv)
    try:
        found = figures(_labelled(args), args.loss / 100)
    except (AskError, RunError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2) if args.json else _format_findings(found))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        draw_calibration(found, args.out / "calibration.png")
        (args.out / "calibration.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
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
    parser.add_argument("--loss", type=float, default=0.5, help="points of accuracy that may be lost")
    parser.add_argument("--count", type=at_least_1, help="questions to ask; all if left out")
    add_server(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--out", type=drawing_folder, help="a folder for calibration.json and calibration.png")
    return parser.parse_args(argv)


def _labelled(args: argparse.Namespace) -> list[Labelled]:
    if args.questions.is_dir():
        return read_labelled(args.questions)[: args.count]
    return _ask_all(server_of(args), args.questions.parent, list(_questions(args.questions, args.count)))


def _questions(path: Path, count: int | None) -> Iterator[Line]:
    """Yield the lines of a file of labelled questions. Raises ValueError naming the line that is none."""
    # Only line feeds end a line of JSON: str.splitlines would also break a question at U+2028 and its like.
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, text in enumerate(islice(file, count), 1):
            yield _question(path, number, text)


def _question(path: Path, number: int, text: str) -> Line:
    try:
        line = json.loads(text)
        return {"image": line["image"], "question": line["question"], "answers": _answers(line)}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}, line {number}: no JSON object with image, question and answer: {error}") from error


def _answers(line: Line) -> list[str]:
    return [str(answer) for answer in line["answers"]] if "answers" in line else [str(line["answer"])]


def _ask_all(server: Server, folder: Path, lines: Sequence[Line]) -> list[Labelled]:
    if not lines:
        raise ValueError("there is no question to ask")
    with ThreadPoolExecutor(server.concurrency) as threads:
        asked = threads.map(lambda line: _ask(server, folder, line), lines)
        return list(tqdm(asked, total=len(lines), unit="question", smoothing=0.05))


def _ask(server: Server, folder: Path, line: Line) -> Labelled:
    image = line["image"] if ":" in line["image"] else str(folder / line["image"])
    where = (server.base_url, server.api_key, server.timeout)
    completion = ask(image, line["question"], *where, mode="dual")
    focus = completion["dualfocus"]
    return Labelled(
        perplexity=focus["macro"]["perplexity"],
        macro_score=is_right(focus["macro"]["text"], line["answers"]),
        chosen_score=is_right(completion["choices"][0]["message"]["content"], line["answers"]),
        macro_seconds=focus["turns"]["macro"]["seconds"],
        seconds=focus["seconds"],
    )


def _format_findings(found: dict[str, Any]) -> str:
    full, picked = found["full"], found["picked"]
    return (
        f"--skip-below {picked['threshold']:g}\n"
        f"skips {picked['skipped']:.1%} of {found['questions']} second looks; right answers "
        f"{picked['accuracy']:.1%} instead of {full['accuracy']:.1%}; "
        f"{picked['seconds']:.3f} s a question instead of {full['seconds']:.3f} s"
    )
