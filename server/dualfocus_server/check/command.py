"""`dualfocus check`: asks about drawn pictures, and says whether two looks will work or which line to change."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

import httpx
from dualfocus_client.client import AskError, authorization, server_address
from dualfocus_client.options import key_of
from dualfocus_engine import DualFocus, DualFocusError

from dualfocus_server.check.asking import Answered, Asker, CantAsk, EngineAsker, ServerAsker
from dualfocus_server.check.drawing import draw_pictures
from dualfocus_server.check.findings import Findings, find
from dualfocus_server.check.openings import Opening, compare_openings

_TIMEOUT_S = 600.0


def main(argv: Sequence[str]) -> int:
    """Run `dualfocus check`; returns 0 where two looks will work, 1 where they will not, 2 where nothing was found."""
    args = _parse(argv)
    try:
        model, profile, findings = asyncio.run(_check(args))
    except (DualFocusError, CantAsk, AskError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps({"model": model, "profile": profile, "works": findings.works} | asdict(findings)))
    else:
        print(_format_findings(model, profile, findings))
    return 0 if findings.works else 1


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dualfocus check", description="Find out in a minute whether two looks will work with a model."
    )
    parser.add_argument("model", nargs="?", help="a folder or hub name; the model that ships if left out")
    parser.add_argument("--profile", help="a profile's name or YAML file; the model's own if left out")
    parser.add_argument("--base-url", help="ask a running server instead, such as http://127.0.0.1:8000")
    parser.add_argument("--api-key", help="its key; also DUALFOCUS_API_KEY")
    parser.add_argument("--max-model-len", type=int, help="the context's length, where an engine is started")
    parser.add_argument("--dtype", default="auto", help="what it computes in")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    return parser.parse_args(argv)


async def _check(args: argparse.Namespace) -> tuple[str, str, Findings]:
    """Return the model's name, its profile's, and what was found. Raises CantAsk, AskError, DualFocusError."""
    if args.base_url is None:
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # standard output is the report's
        flags = {name: value for name in ("max_model_len", "dtype") if (value := getattr(args, name)) is not None}
        async with DualFocus(args.model, args.profile, **flags) as focus:
            return await _ask_all(EngineAsker(focus))
    address, headers = server_address(args.base_url), authorization(key_of(args))
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=_TIMEOUT_S) as http:
        return await _ask_all(await ServerAsker.of(http, args.profile))


async def _ask_all(asker: Asker) -> tuple[str, str, Findings]:
    if not asker.profile.grounds:
        raise CantAsk(f"By its profile {asker.profile.name!r} {asker.model} can't say where something is.")
    answered = [Answered(drawn, await asker.ask(drawn)) for drawn in draw_pictures()]
    opening = await compare_openings(asker.profile.box_format, answered, asker.locate)
    return asker.model, asker.profile.name, find(answered, asker.profile, asker.views, opening)


def _format_findings(model: str, profile: str, found: Findings) -> str:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.0%}"

    rows: list[tuple[str, str]] = [
        ("boxes that can be read", share(found.readable)),
        ("their mean IoU with the thing", "-" if found.mean_iou is None else f"{found.mean_iou:.2f}"),
        ("error of their middles", f"x {share(found.error_x)}, y {share(found.error_y)} of the picture"),
        ("crops that hold the thing", share(found.hold)),
        ("image tokens of crops", ", ".join(map(str, found.crop_tokens)) or "not reported"),
        ("crop tokens as wanted", _yes(found.as_wanted)),
        ("mean IoU with an opening, without", _format_opening(found.opening)),
        ("prefix shared by the second look", _yes(found.shared)),
        ("small print read by the first look", share(found.read_by_macro)),
        ("small print read by the second", share(found.read_by_micro)),
        ("thoughts in the answers", _yes(found.thoughts)),
        ("boxes for what is not there", share(found.absent_boxed)),
        ("why answers were chosen", ", ".join(f"{why} {count}" for why, count in found.selections.items())),
    ]
    lines = [f"{model}, profile {profile}", *(f"  {name:<36}{value}" for name, value in rows)]
    return "\n".join([*lines, "Two looks will work." if found.works else "Two looks will not work yet:", *found.advice])


def _yes(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _format_opening(found: Opening | None) -> str:
    """Say how boxes are with an opening and without, and what it is."""
    if found is None:
        return "- (what stands around the numbers of box_format.template opens no box)"
    opened, free = ("not asked" if iou is None else f"{iou:.2f}" for iou in (found.iou_with, found.iou_without))
    better = {None: "", True: ", the first is better", False: ", the second is better"}[found.better]
    whose = "the profile's" if found.used else "not in the profile"
    return f"{opened}, {free}{better} ({json.dumps(found.opening)}, {whose})"
