"""`dualfocus eval scenes`: what is asked, what is counted, what is written; against a server that answers by rule."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from dualfocus_eval.boxes import Box, overlap
from dualfocus_eval.command import main
from dualfocus_eval.figures import figures
from dualfocus_eval.outcomes import Outcome, Said
from dualfocus_eval.page import goals, table
from dualfocus_eval.scenes.held_out import held_out
from dualfocus_eval.scenes.questions import Question

from unit.local_web import body_of, respond, serving

BOX = Box(0.0, 0.0, 0.5, 0.5)
SEED, SCENES = 5, 3


def outcome(kind: str, macro: Said, micro: Said, chosen: str = "7", box: Box | None = BOX, **shifted: str) -> Outcome:
    winner = "macro" if chosen == macro.text else "micro"
    moved = {int(pixels.removeprefix("by")): text for pixels, text in shifted.items()}
    return Outcome(Question("What?", "7", kind, BOX), macro, micro, chosen, winner, box, micro.text, moved)


OUTCOMES = [
    outcome("detail", Said("1", 3.0), Said("7", 1.1), by10="7", by25="1", by150="1"),
    outcome("detail", Said("7", 1.05), Said("2", 1.5), by10="7", by25="7", by150="7"),
    outcome("detail", Said("1", 1.2), Said("7", 1.4), chosen="1", box=None),
    outcome("global", Said("7", 1.01), Said("7 ", 1.02)),
]


@pytest.mark.parametrize(
    ("other", "expected"),
    [(BOX, 1.0), (Box(0.5, 0.5, 1.0, 1.0), 0.0), (Box(0.0, 0.0, 0.5, 1.0), 0.5), (Box(0.25, 0.0, 0.75, 0.5), 1 / 3)],
)
def test_overlap(other: Box, expected: float) -> None:
    assert overlap(BOX, other) == pytest.approx(expected)


def test_figures_by_kind() -> None:
    found = figures(OUTCOMES)
    assert found["detail"] == {
        "questions": 3,
        "macro": 0.3333,
        "micro": 0.6667,
        "chosen": 0.6667,
        "shared": 0.6667,
        "oracle": 1.0,
        "iou": 0.6667,
        "won_by_micro": 0.3333,
    }
    assert found["overall"]["questions"] == 4
    assert found["recovered"] == 0.0


def test_skipping_keeps_the_macro_answer_under_the_threshold() -> None:
    rows = {row["threshold"]: row for row in figures(OUTCOMES)["thresholds"]}
    assert rows[1.0] == {"threshold": 1.0, "skipped": 0.0, "chosen": 0.75}
    assert rows[1.1] == {"threshold": 1.1, "skipped": 0.5, "chosen": 0.75}
    assert rows[5.0] == {"threshold": 5.0, "skipped": 1.0, "chosen": 0.5}


def test_shifts_count_questions_that_had_a_box() -> None:
    assert figures(OUTCOMES)["shifts"] == {"0": 1.0, "10": 1.0, "25": 0.5, "150": 0.5}


def test_a_run_is_told_in_tables_and_held_against_its_goals() -> None:
    found = figures(OUTCOMES)
    assert "| detail | 3 | 33.3 | 66.7 | 66.7 | 66.7 | 100.0 | 0.67 | 33.3 |" in table(found)
    assert "| detail: chosen ≥ 75 % | 66.7 | **no** |" in goals(found)
    assert "| detail: mean IoU ≥ 0.6 | 0.67 | yes |" in goals(found)


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
            "macro": {"text": "?", "perplexity": 4.0},
            "micro": {"text": answer, "perplexity": 1.0},
            "winner": "micro",
            "box": given or [0.2, 0.2, 0.4, 0.4],
        }
        completion = {"choices": [{"message": {"content": answer}}], "dualfocus": focus}
        respond(body=json.dumps(completion).encode())(request)

    with serving({"/v1/chat/completions": rule}) as web:
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
    assert json.loads((tmp_path / "figures.json").read_text()) == found
    for name in ("accuracy", "skipping", "perplexity"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    given = [body["dualfocus"] for body in bodies if "box" in body["dualfocus"]]
    assert sum(options["scoring"] == "shared" for options in given) == questions
    moved = [options["box"] for options in given if options["scoring"] == "own"]
    assert len(moved) == 3 * questions
    assert all(0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 for x1, y1, x2, y2 in moved)


def test_a_server_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenes", "--count", "1", "--base-url", "http://127.0.0.1:9"]) == 1
    assert "can't be reached" in capsys.readouterr().err
