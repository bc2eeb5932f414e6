"""`dualfocus eval`: what a running server reaches on a benchmark, and two such runs side by side."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dualfocus_client.asking import INTERRUPTION, Server
from dualfocus_client.client import MODES, AskError
from dualfocus_client.options import add_server as add_address
from dualfocus_client.options import key_of

from dualfocus_eval.asking.records import RunError
from dualfocus_eval.benchmarks import BENCHMARKS
from dualfocus_eval.evaluate import Settings, evaluate
from dualfocus_eval.report.compare import compare, comparison_table
from dualfocus_eval.report.document import failures
from dualfocus_eval.report.page import table
from dualfocus_eval.report.reading import read_run
from dualfocus_eval.samples import Benchmark, DataError
from dualfocus_eval.scenes.benchmark import scenes
from dualfocus_eval.scenes.mixes import MIXES, STANDARD

_SOME_FAILED, _NOTHING_ASKED, _INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str]) -> int:
    """Run `dualfocus eval`; returns the exit status."""
    args = make_parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except (AskError, DataError, RunError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return _NOTHING_ASKED


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of `dualfocus eval`."""
    parser = argparse.ArgumentParser(
        prog="dualfocus eval",
        description="Ask a running server a benchmark's questions and report what it reaches. Goes on where it stopped "
        "when the same command is given again; exit status 0 where every question has an answer, 1 where some failed, "
        "2 where nothing could be asked, 130 where it was interrupted.",
    )
    commands = parser.add_subparsers(required=True, metavar="BENCHMARK")
    for benchmark in BENCHMARKS.values():
        one = _add_benchmark(commands, benchmark)
        one.add_argument("--data", type=Path, required=True, help=benchmark.files.replace("%", "%%"))
        one.add_argument("--count", type=at_least_1, help="the first so many questions; all if left out")
        one.set_defaults(of=lambda args, benchmark=benchmark: benchmark, max_tokens=128)
    one = _add_benchmark(commands, scenes(0, 0))
    one.add_argument("--seed", type=int, default=900, help="scenes of one seed are the same everywhere")
    one.add_argument("--count", type=at_least_1, default=100, help="scenes")
    told = "; ".join(f"{name}: {mix.summary}" for name, mix in MIXES.items())
    one.add_argument("--mix", choices=list(MIXES), default=STANDARD, help=told)
    one.set_defaults(of=lambda args: scenes(args.seed, args.count, args.mix), data=Path())
    one.set_defaults(scoring="shared", shift=[10, 25, 150])
    commands.add_parser("list", help="all benchmarks, what to download for each and where to put it").set_defaults(
        run=_list
    )
    _add_compare(commands)
    return parser


def _add_benchmark(commands: Any, benchmark: Benchmark) -> argparse.ArgumentParser:
    summary = benchmark.summary.replace("%", "%%")
    parser: argparse.ArgumentParser = commands.add_parser(
        benchmark.name, help=summary, description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add_server(parser)
    parser.add_argument(
        "--prompts", choices=list(benchmark.wordings), default="llava", help="whose wording; llava is the paper's"
    )
    parser.add_argument("--mode", choices=MODES, default="dual", help="which looks; macro is a baseline of one look")
    parser.add_argument("--candidates", type=at_least_1, help="boxes for which a look may be taken; one if left out")
    parser.add_argument("--max-looks", type=at_least_1, help="of mode search; the server's own if left out")
    parser.add_argument("--model", help="the model's name; the server's first if left out")
    parser.add_argument("--max-tokens", type=at_least_1, help="of each answer; None: the server's own")
    parser.add_argument(
        "--shift", type=_pixels, default=[], metavar="10,25,150", help="ask again, the box moved (Table 5)"
    )
    parser.add_argument(
        "--scoring", choices=["own", "shared", "released"], default="own", help="ask again, the answers scored so"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, not as tables")
    parser.add_argument("--out", type=Path, help="the run's folder; runs/eval/BENCHMARK-DATE if left out")
    parser.set_defaults(run=_evaluate, name=benchmark.name)
    return parser


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser("compare", help="two runs side by side, over the questions that both have")
    parser.add_argument("first", type=Path, metavar="A", help="a run's folder: the baseline, or one model")
    parser.add_argument("second", type=Path, metavar="B", help="another's")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, not as tables")
    parser.set_defaults(run=_compare)


def _list(args: argparse.Namespace) -> int:
    for benchmark in (*BENCHMARKS.values(), scenes(0, 0)):
        print(f"{benchmark.name}: {benchmark.summary}\n  --data: {benchmark.files}\n  licence: {benchmark.licence}\n")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    folder = args.out or Path("runs", "eval", f"{args.name}-{datetime.now(UTC):%Y-%m-%d}")
    ended = evaluate(server_of(args), _settings(args), folder)
    if ended.reason is not None:
        _say(f"error: ended early: {ended.reason}\nThe same command with --out {folder} again asks what is left.")
        return _INTERRUPTED if ended.reason == INTERRUPTION else _SOME_FAILED
    print(json.dumps(ended.found, indent=2) if args.json else table(ended.found))
    _say(f"{failures(ended.found)}\n{folder / 'report.md'} has all figures.".strip())
    return _SOME_FAILED if ended.found["failed"] + ended.found["failed_again"] else 0


def _settings(args: argparse.Namespace) -> Settings:
    benchmark: Benchmark = args.of(args)
    count = None if args.name == "scenes" else args.count
    names = ("prompts", "mode", "candidates", "max_looks", "model", "max_tokens", "scoring", "shift")
    how = {name: getattr(args, name) for name in names}
    return Settings(benchmark, args.data, count, **how)


def _compare(args: argparse.Namespace) -> int:
    (benchmark, first), (other, second) = read_run(args.first), read_run(args.second)
    if benchmark.name != other.name:
        raise RunError(f"{args.first} is a run of {benchmark.name}, {args.second} one of {other.name}")
    found = compare(benchmark, first, second)
    names = (args.first.name, args.second.name)
    print(json.dumps(found, indent=2) if args.json else comparison_table(benchmark, names, found))
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which server is asked, and how."""
    add_address(parser)
    parser.add_argument("--concurrency", type=at_least_1, default=16, help="questions at a time")


def server_of(args: argparse.Namespace) -> Server:
    """Return the server among parsed flags; a key also comes from the environment."""
    return Server(args.base_url, key_of(args), args.timeout, args.concurrency)


def at_least_1(text: str) -> int:
    """Read a flag's number (argparse's `type`); one below 1 is refused."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def drawing_folder(text: str) -> Path:
    """Read a flag's folder for plots (argparse's `type`): before anything is asked, not once it is to be drawn."""
    if find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError("plots need matplotlib: pip install matplotlib")
    return Path(text)


def _pixels(text: str) -> list[int]:
    return [at_least_1(number) for number in text.split(",")]
