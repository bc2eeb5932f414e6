"""`dualfocus ask IMAGE QUESTION`: one question on the terminal."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from dualfocus_client.client import AskError, ask


def main(argv: list[str]) -> int:
    """Run `dualfocus ask`; returns the exit status."""
    args = _parse(argv)
    try:
        completion = ask(
            args.image,
            args.question,
            base_url=args.base_url,
            api_key=args.api_key or os.environ.get("DUALFOCUS_API_KEY"),
            timeout=args.timeout,
            mode=args.mode,
            box=args.box,
        )
    except AskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(completion, indent=2, ensure_ascii=False) if args.json else _told(completion))
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = make_parser()
    known, _ = _config_parser().parse_known_args(argv)
    return parser.parse_args([*(_options(parser, known.config) if known.config else []), *argv])


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of `dualfocus ask`."""
    parser = argparse.ArgumentParser(
        prog="dualfocus ask",
        description="Ask a running server a question about an image.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        parents=[_config_parser()],
    )
    parser.add_argument("image", help="a file, or an http(s) URL that the server may fetch")
    parser.add_argument("question", help="what to ask about the image")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000", help="where the server is")
    parser.add_argument("--api-key", help="a key, where the server wants one; also DUALFOCUS_API_KEY")
    parser.add_argument(
        "--mode", default="dual", choices=["dual", "adaptive", "macro", "micro", "off"], help="which looks"
    )
    parser.add_argument("--box", type=float, nargs=4, metavar=("X1", "Y1", "X2", "Y2"), help="where to look, 0 to 1")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for the answer")
    parser.add_argument("--json", action="store_true", help="print the server's whole answer")
    return parser


def _config_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", help="a YAML file of these options; the command line goes before it")
    return parser


def _options(parser: argparse.ArgumentParser, path: str) -> list[str]:
    """Return a YAML file's options as arguments, so that both are judged alike."""
    try:
        # Plain strings: YAML's own reading would make `mode: off` a false.
        given = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        parser.error(f"--config {path}: {error}")
    if not isinstance(given, dict):
        parser.error(f"--config {path}: expected lines of the form `option: value`")
    return [argument for name, value in given.items() for argument in _argument(name, value)]


def _argument(name: str, value: str | list[str]) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    if value in ("true", "false"):
        return [option] if value == "true" else []
    # In one piece: what follows an option that is none, or begins with a dash, would be read as something else.
    return [f"{option}={value}"] if isinstance(value, str) else [option, *value]


def _told(completion: dict[str, Any]) -> str:
    text = str(completion["choices"][0]["message"]["content"])
    focus = completion.get("dualfocus")
    return text if focus is None else "\n".join([text, "", *_how(focus)])


def _how(focus: dict[str, Any]) -> list[str]:
    lines = [
        f"{name}: {focus[name]['text']!r}, perplexity {focus[name]['perplexity']:.3g}"
        for name in ("macro", "micro")
        if focus[name]
    ]
    box = f"box: {focus['box']}, crop in pixels: {focus['crop']}" if focus["box"] else "no box"
    return [*lines, box, f"chosen: {focus['winner']} ({focus['selection']}), {focus['seconds']:.2f} s"]
