"""What a run was begun with, in `run.json`: it goes on with that alone."""

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from dualfocus_eval.asking.records import RunError
from dualfocus_eval.samples import DataError, Sample, Wording

HEADER_FILE = "run.json"

# `asked`: what every question is asked with; `served`: what the server said of itself; `begun`: when.
Header = dict[str, Any]


class Survey(NamedTuple):
    """How many questions there are, and hashes of them, of their pictures, and of the texts that are asked."""

    questions: int
    data: str
    prompts: str


def survey(samples: Iterable[Sample], wording: Wording) -> Survey:
    """Read all questions once. Raises DataError where the reader does, or a picture is missing."""
    questions = 0
    data, prompts = blake2b(digest_size=8), blake2b(digest_size=8)
    for sample in samples:
        questions += 1
        data.update(json.dumps([without_picture(sample), _picture(sample)]).encode())
        prompts.update(json.dumps(wording(sample)).encode())
    return Survey(questions, data.hexdigest(), prompts.hexdigest())


def without_picture(sample: Sample) -> dict[str, Any]:
    """Return a question as a JSON object, but for its picture."""
    fields = asdict(replace(sample, image=b""))
    del fields["image"]
    return fields


def _picture(sample: Sample) -> str:
    """Tell a picture from others: a file by name and length, so that none is read before it is asked about."""
    if isinstance(sample.image, bytes):
        return blake2b(sample.image, digest_size=8).hexdigest()
    try:
        return f"{sample.image.name} {sample.image.stat().st_size}"
    except OSError as error:
        raise DataError(f"{sample.id}: {sample.image}: {error.strerror}") from error


def begin(folder: Path, header: Header) -> Header:
    """Write a new run's header, or return the one that is there. Raises RunError where that asked otherwise."""
    path = folder / HEADER_FILE
    if path.exists():
        _check(folder, known := read_header(folder), header)
        return known
    folder.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
    new.replace(path)
    return header


def read_header(folder: Path) -> Header:
    """Return what a run was begun with. Raises RunError where there is none."""
    try:
        header: Header = json.loads((folder / HEADER_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}: holds no {HEADER_FILE} of a run: {error}") from error
    return header


def _check(folder: Path, known: Header, header: Header) -> None:
    before, now = (
        {**one["asked"], **{f"served {name}": value for name, value in one["served"].items()}}
        for one in (known, header)
    )
    changed = [
        f"{name}: {before.get(name)!r} then, {now.get(name)!r} now"
        for name in before | now
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise RunError(f"{folder} was begun otherwise ({'; '.join(changed)}): name another --out")
