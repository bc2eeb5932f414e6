"""`dualfocus eval scenes`: what is asked, what is counted, what is written; against a server that answers by rule."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from dualfocus_eval.boxes import Box, overlap
from dualfocus_eval.command import main
from dualfocus_eval.report.document import report
from dualfocus_eval.report.figures import figures
from dualfocus_eval.report.outcomes import Outcome, Said, judge
from dualfocus_eval.report.page import goals, table, ways_table
from dualfocus_eval.report.plots import draw_ways
from dualfocus_eval.samples import Sample
from dualfocus_eval.scenes.benchmark import scenes
from dualfocus_eval.scenes.held_out import held_out
from dualfocus_eval.ways import WAYS, WITH_GOALS, with_fresh_pictures
from PIL import Image

from unit.evaluation.fruit import ABOUT
from unit.local_web import body_of, respond, serving

BOX = Box(0.0, 0.0, 0.5, 0.5)
SEED, SCENES = 5, 3


def outcome(kind: str, macro: Said, micro: Said, chosen: str = "7", box: Box | None = BOX, **varied: str) -> Outcome:
    winner = "macro" if chosen == macro.text else "micro"
    by_name = {name.replace("_", " "): text for name, text in varied.items()}
    sample = Sample(kind, b"", "What?", ("7",), category=kind, box=BOX)
    crop = Box(0.25, 0.0, 1.0, 1.0)
    return Outcome(sample, macro, micro, chosen, winner, box, crop if box else None, "why", by_name)


OUTCOMES = [
    outcome("detail", Said("1", 3.0), Said("7", 1.1), shift_10="7", shift_25="1", shift_150="1"),
    outcome("detail", Said("7", 1.05), Said("2", 1.5), shift_10="7", shift_25="7", shift_150="7"),
    outcome("detail", Said("1", 1.2), Said("7", 1.4), chosen="1", box=None),
    outcome("global", Said("7", 1.01), Said("7 ", 1.02)),
]
BENCHMARK = scenes(SEED, SCENES)
VARIANTS = ("scoring shared", "shift 10", "shift 25", "shift 150")
JUDGED = [judge(BENCHMARK, one, VARIANTS) for one in OUTCOMES]
FIGURES = figures(BENCHMARK, JUDGED)
COSTS = {"looks": 2.5, "computed_tokens": 200, "encoder_runs": 2, "engine_steps": 30.25, "median_seconds": 0.1}
WAYS_FOUND = [
    {"mix": mix, "way": way.name, "overall": FIGURES["overall"], "categories": {kind: {"chosen": 0.75}}, "costs": COSTS}
    for mix, kind in (("standard", "detail"), ("fine", "fine"), ("several", "several"))
    for way in WAYS
]
OF_ALL = [found for found in WAYS_FOUND if found["mix"] in WITH_GOALS.get(found["way"], ())]


@pytest.mark.parametrize(
    ("other", "expected"),
    [(BOX, 1.0), (Box(0.5, 0.5, 1.0, 1.0), 0.0), (Box(0.0, 0.0, 0.5, 1.0), 0.5), (Box(0.25, 0.0, 0.75, 0.5), 1 / 3)],
)
def test_overlap(other: Box, expected: float) -> None:
    assert overlap(BOX, other) == pytest.approx(expected)


def test_figures_by_kind() -> None:
    assert FIGURES["categories"]["detail"] == {
        "questions": 3,
        "macro": 0.3333,
        "micro": 0.6667,
        "chosen": 0.6667,
        "shared": 0.6667,
        "oracle": 1.0,
        "iou": 0.6667,
        "won_by_micro": 0.3333,
    }
    assert FIGURES["overall"]["questions"] == 4
    assert FIGURES["recovered"] == 0.0


def test_skipping_keeps_the_macro_answer_under_the_threshold() -> None:
    rows = {row["threshold"]: row for row in FIGURES["thresholds"]}
    assert rows[1.0] == {"threshold": 1.0, "skipped": 0.0, "chosen": 0.75}
    assert rows[1.1] == {"threshold": 1.1, "skipped": 0.5, "chosen": 0.75}
    assert rows[5.0] == {"threshold": 5.0, "skipped": 1.0, "chosen": 0.5}


def test_shifts_count_questions_that_had_a_box() -> None:
    assert FIGURES["shifts"] == {"0": 1.0, "10": 1.0, "25": 0.5, "150": 0.5}


def test_a_run_is_told_in_tables_and_held_against_its_goals() -> None:
    assert "| detail | 3 | 33.3 | 66.7 | 66.7 | 66.7 | 100.0 | 0.67 | 33.3 |" in table(FIGURES)
    told = goals({**FIGURES, "ways": WAYS_FOUND, "ways_of_all": OF_ALL})
    assert "| detail: chosen ≥ 93 % | 66.7 | **no** |" in told
    assert "| detail: mean IoU ≥ 0.6 | 0.67 | yes |" in told
    assert "| objects apart: each read, by regions ≥ 80 % | 75.0 | **no** |" in told
    assert "| fine print: by search ≥ 75 % where dual has ≤ 45 % | 75.0, dual 75.0 | **no** |" in told
    assert "| search ≤ 1.3 times dual's prompt tokens | 1.00 times | yes |" in told


def test_ways_to_look_stand_side_by_side(tmp_path: Path) -> None:
    fine = [found for found in WAYS_FOUND if found["mix"] == "fine"]
    assert "| search, 3 looks | 75.0 | 75.0 | 2.50 | 200 | 2.00 | 30.2 | 0.100 |" in ways_table(fine)
    draw_ways(WAYS_FOUND, tmp_path / "ways.png")
    assert (tmp_path / "ways.png").read_bytes().startswith(b"\x89PNG")


def test_the_choice_is_held_against_what_one_answer_alone_was_right_about() -> None:
    assert FIGURES["right_choice"] == {"questions": 3, "chosen": 0.6667}


def test_what_micro_won_is_told_by_tenths_of_macros_perplexity() -> None:
    rows = [(row["macro_perplexity"], row["won_by_micro"], row["macro"], row["micro"]) for row in FIGURES["wins"]]
    assert rows == [(1.01, 0.0, 1.0, 1.0), (1.05, 0.0, 1.0, 0.0), (1.2, 0.0, 0.0, 1.0), (3.0, 1.0, 0.0, 1.0)]


def test_boxes_and_crops_are_held_against_the_targets() -> None:
    """Three of four had the right box, and a crop that holds half of it."""
    assert FIGURES["boxes"] == {"questions": 4, "had_box": 0.75, "iou": 0.75, "covered": 0.375}


def test_only_questions_whose_target_is_known_have_an_iou() -> None:
    without = replace(OUTCOMES[0], sample=replace(OUTCOMES[0].sample, category="open", box=None))
    found = figures(BENCHMARK, [judge(BENCHMARK, one) for one in (*OUTCOMES, without)])
    assert found["overall"]["iou"] == FIGURES["overall"]["iou"]
    assert "iou" not in found["categories"]["open"]
    assert "| open | 1 | 0.0 | 100.0 | 100.0 | 100.0 |  | 100.0 |" in table(found)


def test_the_papers_numbers_stand_beside_ours() -> None:
    header = {"asked": {"benchmark": "textvqa", "mode": "dual"}, "served": {}, "versions": {}, "begun": ""}
    told = report(header, {**FIGURES, "failed": 0, "failed_again": 0, "costs": {}}, has_plots=True)
    assert "| Table 1 | LLaVA-1.5-7B | baseline | 58.2 |  |" in told
    assert "| Table 3 | LLaVA-1.5-7B + DualFocus | micro | 61.3 | 75.0 |" in told
    assert "| Table 5 | LLaVA-1.5-7B + DualFocus | shift 25 | 61.3 | 50.0 |" in told
    assert "MMBench" not in told


bodies: list[dict[str, Any]] = []


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that answers every question with a wrong macro and the right micro answer, unless a box is given."""
    answers = {asked.question.question: asked.question.answer for asked in held_out(SEED, SCENES)}

    def rule(request: BaseHTTPRequestHandler) -> None:
        body = json.loads(body_of(request))
        bodies.append(body)
        given = body["dualfocus"].get("box")
        answer = answers[body["messages"][0]["content"][1]["text"]] if given is None else "moved"
        focus = {
            "mode": "dual",
            "selection": "lower_perplexity",
            "crop": [0, 0, 9, 9],
            "seconds": 0.2,
            "turns": {"macro": {"seconds": 0.1}},
            "macro": {"text": "?", "perplexity": 4.0},
            "micro": {"text": answer, "perplexity": 1.0},
            "winner": "micro",
            "box": given or [0.2, 0.2, 0.4, 0.4],
        }
        completion = {"choices": [{"message": {"content": answer}}], "dualfocus": focus}
        respond(body=json.dumps(completion).encode())(request)

    with serving({"/v1/chat/completions": rule, **ABOUT}) as web:
        yield web.address


def test_a_server_is_asked_and_its_figures_written(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["scenes", "--seed", str(SEED), "--count", str(SCENES), "--base-url", f"{url}/v1", "--json"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    questions = found["overall"]["questions"]
    assert questions == len(list(held_out(SEED, SCENES)))
    assert (found["overall"]["macro"], found["overall"]["micro"], found["overall"]["chosen"]) == (0.0, 1.0, 1.0)
    assert found["shifts"] == {"0": 1.0, "10": 0.0, "25": 0.0, "150": 0.0}
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written.pop("run")["asked"]["questions"] == questions
    assert written == found
    for name in ("accuracy", "skipping", "perplexity"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    given = [body["dualfocus"] for body in bodies if "box" in body["dualfocus"]]
    assert sum(options["scoring"] == "shared" for options in given) == questions
    moved = [options["box"] for options in given if options["scoring"] == "own"]
    assert len(moved) == 3 * questions
    assert all(0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 for x1, y1, x2, y2 in moved)


def test_a_server_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenes", "--count", "1", "--base-url", "http://127.0.0.1:9", "--out", str(tmp_path)]) == 2
    assert "can't be reached" in capsys.readouterr().err


def test_every_question_of_a_way_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Else what a way takes would depend on which was asked before it."""
    drawn = list(BENCHMARK.read(tmp_path))
    fresh = [list(with_fresh_pictures(BENCHMARK, way).read(tmp_path)) for way in ("dual", "search")]
    files = [sample.image for samples in fresh for sample in samples]
    assert len(set(files)) == len(files) == 2 * len(drawn)
    for sample, before in zip(fresh[0], drawn, strict=True):
        pictures = [Image.open(io.BytesIO(png)) for png in (sample.image, before.image) if isinstance(png, bytes)]
        assert pictures[0].tobytes() == pictures[1].tobytes()
        assert pictures[0].info["Comment"] == f"dual, {sample.id}"
