"""`dualfocus ask IMAGE QUESTION`: one question on the terminal."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from dualfocus_client.client import MODES, AskError, ask
from dualfocus_client.options import add_server, config_parser, key_of, parse
from dualfocus_client.pictures import check_target, open_picture, save_picture
from dualfocus_client.sheet import draw_sheet, perplexity_text


def main(argv: list[str]) -> int:
    """Run `dualfocus ask`; returns the exit status."""
    args = parse(make_parser(), argv)
    try:
        picture = _picture(args)
        completion = _asked(args)
        told = _format_answer(completion)
        print(json.dumps(completion, indent=2, ensure_ascii=False) if args.json else told)
        if picture is not None:
            save_picture(draw_sheet(picture, args.question, completion), args.save)
    except AskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _picture(args: argparse.Namespace) -> Image.Image | None:
    """Return what is to be drawn on: before anything is asked, so that no answer is lost over it."""
    if args.save is None:
        return None
    check_target(args.save)
    return open_picture(args.image, args.timeout)


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    where = {"base_url": args.base_url, "api_key": key_of(args), "timeout": args.timeout}
    return ask(args.image, args.question, **where, mode=args.mode, box=args.box)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of `dualfocus ask`."""
    parser = argparse.ArgumentParser(
        prog="dualfocus ask",
        description="Ask a running server a question about an image.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        parents=[config_parser()],
    )
    parser.add_argument("image", help="a file, or an http(s) URL that the server may fetch")
    parser.add_argument("question", help="what to ask about the image")
    add_server(parser)
    parser.add_argument("--mode", default="dual", choices=MODES, help="which looks")
    parser.add_argument("--box", type=float, nargs=4, metavar=("X1", "Y1", "X2", "Y2"), help="where to look, 0 to 1")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="draw picture, box, crop and answers into one picture (out.png)"
    )
    parser.add_argument("--json", action="store_true", help="print the server's whole answer")
    return parser


def _format_answer(completion: dict[str, Any]) -> str:
    try:
        text = completion["choices"][0]["message"]["content"] or ""
    except (LookupError, TypeError) as error:
        raise AskError(f"The server's answer is no chat completion: {str(completion)[:200]}") from error
    focus = completion.get("dualfocus")
    return text if focus is None else "\n".join([text, "", *_how(focus)])


def _how(focus: dict[str, Any]) -> list[str]:
    lines = [
        f"{name}: {focus[name]['text']!r}, perplexity {perplexity_text(focus[name]['perplexity'])}"
        for name in ("macro", "micro")
        if focus[name]
    ]
    box = f"box: {focus['box']}, crop in pixels: {focus['crop']}" if focus["box"] else "no box"
    return [*lines, box, f"chosen: {focus['winner']} ({focus['selection']}), {focus['seconds']:.2f} s"]
