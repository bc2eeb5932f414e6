"""`dualfocus convert SOURCE TARGET`: a LLaVA checkpoint in its original format, made ready to be served."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from dualfocus_engine.conversion.convert import convert, plan
from dualfocus_engine.errors import ConfigError


def main(argv: Sequence[str]) -> int:
    """Run `dualfocus convert`; returns the exit status."""
    args = _parse(argv)
    try:
        _convert(args)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dualfocus convert",
        description="Convert a LLaVA checkpoint from its original format to one that is served: LLaVA-1.5, the "
        "released DualFocus checkpoints, ShareGPT4V; adapters and projectors with --base.",
    )
    parser.add_argument("source", help="a folder, or a name on the hub")
    parser.add_argument("target", type=Path, help="the folder to write, which must not exist yet")
    parser.add_argument("--base", metavar="MODEL", help="the model that an adapter or a projector was trained on")
    parser.add_argument(
        "--vision-tower",
        metavar="MODEL",
        help="the CLIP model to look through, instead of the one config.json names; SOURCE itself takes its own",
    )
    return parser.parse_args(argv)


def _convert(args: argparse.Namespace) -> None:
    planned = plan(args.source, args.base, args.vision_tower)
    print(f"vision tower: {planned.tower.why}")
    if planned.tower.warning:
        print(f"warning: {planned.tower.warning}", file=sys.stderr)
    for name, tokens, _ in planned.prompts:
        print(f"prompt {name}: {tokens} token ids, the same by sentencepiece's legacy rule")
    with tqdm(total=planned.bytes, unit="B", unit_scale=True, desc="weights") as bar:
        convert(planned, args.target, bar.update)
    print(f"{args.target}: written. Serve it: dualfocus serve {args.target}")
