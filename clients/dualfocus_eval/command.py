"""`dualfocus eval scenes`: how well a running server answers questions about held-out scenes."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from dualfocus_client.client import AskError

from dualfocus_eval.asking import Server, ask_all
from dualfocus_eval.figures import figures
from dualfocus_eval.page import table
from dualfocus_eval.plots import draw_plots


def main(argv: Sequence[str]) -> int:
    """Run `dualfocus eval`; returns the exit status."""
    args = _parse(argv)
    try:
        outcomes = ask_all(server_of(args), args.seed, args.count)
    except AskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = {"seed": args.seed, "scenes": args.count, **figures(outcomes)}
    print(json.dumps(found, indent=2) if args.json else table(found))
    if args.out:
        draw_plots(outcomes, found, args.out)
        (args.out / "figures.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dualfocus eval",
        description="Ask a running server about drawn scenes and report how well it answers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("what", choices=["scenes"], help="scenes: pictures drawn from a seed, four questions on each")
    parser.add_argument("--seed", type=int, default=900, help="scenes of one seed are the same everywhere")
    parser.add_argument("--count", type=at_least_1, default=100, help="scenes")
    add_server(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, not as tables")
    parser.add_argument("--out", type=drawing_folder, help="a folder for figures.json and the plots")
    return parser.parse_args(argv)


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which server is asked, and how."""
    parser.add_argument("--base-url", default="http://127.0.0.1:8000", help="where the server is, with or without /v1")
    parser.add_argument("--api-key", help="a key, where the server wants one; also DUALFOCUS_API_KEY")
    parser.add_argument("--concurrency", type=at_least_1, default=16, help="questions at a time")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for an answer")


def server_of(args: argparse.Namespace) -> Server:
    """Return the server among parsed flags; a key also comes from the environment."""
    return Server(args.base_url, args.api_key or os.environ.get("DUALFOCUS_API_KEY"), args.concurrency, args.timeout)


def at_least_1(text: str) -> int:
    """Read a flag's number (argparse's `type`); one below 1 is refused."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def drawing_folder(text: str) -> Path:
    """Read a flag's folder for plots (argparse's `type`): before anything is asked, not once it is to be drawn."""
    if find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError("plots need matplotlib: pip install 'dualfocus[eval]', or matplotlib")
    return Path(text)
