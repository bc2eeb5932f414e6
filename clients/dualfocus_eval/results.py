"""`make results`: serve the model that ships, ask about held-out scenes, write `docs/results.md` and its plots."""

import argparse
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from dualfocus_client.asking import Server

from dualfocus_eval.evaluate import Settings
from dualfocus_eval.report.page import goals, table, ways_table
from dualfocus_eval.report.plots import draw_plots, draw_ways
from dualfocus_eval.scenes.benchmark import scenes
from dualfocus_eval.scenes.mixes import MIXES
from dualfocus_eval.ways import ask_for_goals, ask_ways, finished

_READY_WITHIN = 300.0
# No training run draws scenes of this seed, and nothing of recipe or model was chosen by its figures.
SEED = 950

_PAGE = """# Results

What the model that ships answers about {scenes} held-out scenes (seed {seed}, {questions} questions, two on details and
two others a scene), asked over HTTP of `dualfocus serve` {version} in its default mode. `make results` makes this page.

## Goals

Each on {scenes} scenes of its mix; the prompt tokens on as many as the ways to look are asked about.

{goals}

## Figures

Chosen: the answer with the lower perplexity (Eq. 8), each under the turn that wrote it. Shared: the same choice with
both scored under one prompt (`scoring: shared`). Oracle: either answer right. The choice recovers {recovered} of
what the oracle gains over the better single turn.

{table}

![Right answers by kind of question](results/accuracy.png)

![Skipping the second look by macro's perplexity](results/skipping.png)

![Perplexities of both answers by kind of question](results/perplexity.png)

## Ways to look

Scenes of the same seed, asked in each mode (`dualfocus eval scenes --mix MIX --mode MODE`, `--max-looks`,
`--candidates`), 16 questions at a time, each with a file that no cache knows. Right answers in percent, by kind of
question and overall; then, a question: looks that answered, prompt tokens computed, encoder runs, steps of all its
turns, and the median of its seconds. What ran of a second look that `adaptive` ended tells nothing of its work, and is
in no figure.
{ways}
![Right answers over prompt tokens computed, by mode](results/ways.png)
"""

_WAYS = """
### {mix}

{scenes} scenes: {summary}.

{table}
"""


def write_results(docs: Path, count: int, model: str | None = None) -> dict[str, Any]:
    """Ask about `count` scenes and write the page; returns the figures. Raises RunError where some failed.

    Each way to look is asked about a fifth as many scenes of each mix, and about all where it has a goal.
    """
    settings = Settings(scenes(SEED, count), scoring="shared", shift=[10, 25, 150])
    with serving(model) as url, TemporaryDirectory() as folder:
        server = Server(url, concurrency=16)
        ended = finished(server, settings, Path(folder))
        ways = [way for mix in MIXES for way in ask_ways(server, mix, SEED, count // 5, Path(folder))]
        of_all = ask_for_goals(server, SEED, count, Path(folder))
    found = {"seed": SEED, "scenes": count, **ended.found, "ways": ways, "ways_of_all": of_all}
    draw_plots([one.outcome for one in ended.judged], found, docs / "results")
    draw_ways(ways, docs / "results" / "ways.png")
    (docs / "results" / "figures.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (docs / "results.md").write_text(_page(found), encoding="utf-8")
    return found


def _page(found: dict[str, Any]) -> str:
    share = found["recovered"]
    return _PAGE.format(
        scenes=found["scenes"],
        seed=found["seed"],
        questions=found["overall"]["questions"],
        version=version("dualfocus"),
        goals=goals(found),
        recovered="nothing (there is nothing to gain)" if share is None else f"{100 * share:.0f} %",
        table=table(found),
        ways="".join(_ways_section(found["ways"], mix) for mix in MIXES),
    )


def _ways_section(ways: Sequence[dict[str, Any]], mix: str) -> str:
    of_mix = [found for found in ways if found["mix"] == mix]
    return _WAYS.format(mix=mix, scenes=of_mix[0]["scenes"], summary=MIXES[mix].summary, table=ways_table(of_mix))


@contextmanager
def serving(model: str | None) -> Iterator[str]:
    """Run `dualfocus serve` on a free port and yield its address; raises RuntimeError where it does not start."""
    port = _free_port()
    named = [model] if model else []
    command = [sys.executable, "-m", "dualfocus_client.cli", "serve", *named, "--port", str(port)]
    process = subprocess.Popen(command, stdout=sys.stderr)
    try:
        _wait_until_ready(process, url := f"http://127.0.0.1:{port}")
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + _READY_WITHIN
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{url}/ready").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError("dualfocus serve did not become ready; its output says why")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Write the results of the model that ships, or of another."""
    parser = argparse.ArgumentParser(description="Write docs/results.md from a run over HTTP.")
    parser.add_argument("--model", help="a folder; the model that ships if left out")
    parser.add_argument("--count", type=int, default=1000, help="scenes")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder that the page is written to")
    arguments = parser.parse_args()
    print(goals(write_results(arguments.docs, arguments.count, arguments.model)))


if __name__ == "__main__":
    main()
