"""Asks a benchmark's questions of a server: each once, then again what a variant needs; goes on where it stopped."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from dualfocus_client.asking import INTERRUPTION, Halt, Server, ask_all, heed_signals
from dualfocus_client.client import CHAT, answer_body, authorization, raise_unanswered, server_address
from dualfocus_client.line_formats.line_format import Question, fingerprint_of
from tqdm import tqdm

from dualfocus_eval.asking.questions import Asked, Variant
from dualfocus_eval.asking.records import Record, Records
from dualfocus_eval.boxes import Box
from dualfocus_eval.samples import Sample, Wording

# How a first asking is named in records.
FIRST = ""


@dataclass(frozen=True)
class Plan:
    """What is asked and how: `samples` are read anew for each pass.

    `looks` is the `dualfocus` field of a first asking, `request` are the fields beside the message.
    """

    samples: Callable[[], Iterator[Sample]]
    questions: int
    wording: Wording
    looks: dict[str, Any]
    request: dict[str, Any]
    variants: Sequence[Variant] = ()


def ask_plan(server: Server, plan: Plan, records: Records) -> str | None:
    """Ask what has no answer yet, a bar on stderr; returns why it ended early, None where it did not."""
    try:
        return asyncio.run(_ask(server, plan, records))
    except KeyboardInterrupt:
        return INTERRUPTION


async def _ask(server: Server, plan: Plan, records: Records) -> str | None:
    halt = Halt()
    heed_signals(halt)
    await _pass(server, FIRST, _first(plan, records), plan.questions, records, halt)
    for variant in plan.variants:
        boxed = sum(_has_box(record) for record in records.all())
        if halt.reason is None and boxed:
            await _pass(server, variant.name, _again(plan, variant, records), boxed, records, halt)
    return halt.reason


def _first(plan: Plan, records: Records) -> Iterator[Asked]:
    for number, sample in enumerate(plan.samples(), 1):
        if records.answered(FIRST, sample.id) is None:
            yield _asked(plan, number, sample, plan.looks, FIRST)


def _again(plan: Plan, variant: Variant, records: Records) -> Iterator[Asked]:
    for number, sample in enumerate(plan.samples(), 1):
        first = records.answered(FIRST, sample.id)
        if first and _has_box(first) and records.answered(variant.name, sample.id) is None:
            yield _asked(plan, number, sample, variant.options(first), variant.name)


def _asked(plan: Plan, number: int, sample: Sample, options: dict[str, Any], variant: str) -> Asked:
    # What is asked is hashed as a whole, in the run's header: here the id and the variant tell questions apart.
    fingerprint = fingerprint_of(sample.id, variant)
    return Asked(number, CHAT, fingerprint, sample, plan.wording(sample), options, plan.request, variant)


def _has_box(record: Record) -> bool:
    """Whether a first answer had a box that holds anything: nothing else could be moved, or scored otherwise."""
    box = record["variant"] == FIRST and record.get("box") and record["size"]
    return bool(box) and Box(*record["box"]).area > 0


async def _pass(
    server: Server, variant: str, questions: Iterator[Asked], count: int, records: Records, halt: Halt
) -> None:
    every = 0.1 if sys.stderr.isatty() else 10.0  # seconds: a log is spared what a terminal overwrites
    done = sum(record["variant"] == variant and "error" not in record for record in records.all())
    about: dict[str, Any] = {"desc": variant or None, "unit": "question", "smoothing": 0.05, "mininterval": every}
    with tqdm(total=count, initial=done, **about) as bar:
        failed = 0

        def keep(question: Question, found: dict[str, Any]) -> None:
            nonlocal failed
            records.add(question.told(found))
            failed += "error" in found
            bar.set_postfix({"failed": failed} if failed else {}, refresh=False)
            bar.update()

        await ask_all(server, questions, keep, halt)


def describe_server(server: Server, model: str | None) -> dict[str, Any]:
    """Return what a server says of the model that is asked: its name, profile, grounder. Raises AskError."""
    cards = _get(server, "/v1/models").get("data") or [{}]
    name = model.partition(":")[0] if model else cards[0].get("id")
    card: dict[str, Any] = next((card for card in cards if card.get("id") in (model, name)), {})
    return {"model": model or name, **(card.get("dualfocus") or {})}


def versions_of(server: Server) -> dict[str, Any]:
    """Return the versions that a server says it runs: its own, and vLLM's. Raises AskError."""
    versions = _get(server, "/version")
    return {"server": versions.pop("version", None), **versions}


def _get(server: Server, path: str) -> dict[str, Any]:
    with raise_unanswered(server.base_url):
        address = f"{server_address(server.base_url)}{path}"
        response = httpx.get(address, headers=authorization(server.api_key), timeout=server.timeout)
    return answer_body(response)
