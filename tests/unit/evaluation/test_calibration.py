"""`dualfocus calibrate`: the threshold that is picked, against a server whose answers follow a rule."""

import codecs
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml
from dualfocus_eval import calibrate
from dualfocus_eval.calibrate import main
from dualfocus_eval.calibration import Labelled, Point, curve, pick
from dualfocus_eval.search_calibration import SIGNALS, Look, area_under_curve, search_figures
from dualfocus_eval.search_calibration import curve as curve_of_looks
from dualfocus_eval.search_calibration import pick as pick_looks
from PIL import Image

from unit.local_web import body_of, respond, serving

# Macro is right where it is sure; the second look mends two of three others.
ASKED = [
    Labelled(1.1, True, True, 1.0, 2.0),
    Labelled(1.2, True, True, 1.0, 2.0),
    Labelled(1.2, False, True, 1.0, 4.0),
    Labelled(3.0, False, True, 1.0, 2.0),
    Labelled(2.0, False, False, 1.0, 2.0),
]


def test_the_curve_has_a_point_for_each_threshold_that_makes_a_difference() -> None:
    assert curve(ASKED) == [
        Point(0.0, 0.0, 0.8, 2.4),
        Point(pytest.approx(1.15), 0.2, 0.8, 2.2),
        Point(pytest.approx(1.6), 0.6, 0.6, 1.4),
        Point(pytest.approx(2.5), 0.8, 0.6, pytest.approx(1.2)),
        Point(4.0, 1.0, 0.4, 1.0),
    ]


@pytest.mark.parametrize(("loss", "skipped"), [(0.0, 0.2), (0.19, 0.2), (0.2, 0.8), (1.0, 1.0)])
def test_the_most_is_skipped_that_the_loss_allows(loss: float, skipped: float) -> None:
    assert pick(curve(ASKED), loss).skipped == skipped


def test_skipping_may_cost_nothing_or_gain() -> None:
    assert pick(curve([Labelled(1.1, True, False, 1.0, 2.0)]), 0.0).accuracy == 1.0


def test_an_answer_that_never_stands_alone_is_never_skipped_to() -> None:
    cut = Labelled(math.inf, True, True, 1.0, 2.0)
    assert [point.threshold for point in curve([*ASKED, cut, cut])] == [0.0, pytest.approx(1.15), *[1.6, 2.5, 4.0]]
    assert curve([*ASKED, cut])[-1].skipped == pytest.approx(5 / 6)
    assert [point.threshold for point in curve([cut])] == [0.0]


bodies: list[dict[str, Any]] = []


def rule(request: BaseHTTPRequestHandler) -> None:
    """Macro is sure of `easy` questions and right there; the second look is right everywhere."""
    body = json.loads(body_of(request))
    bodies.append(body)
    is_easy = body["messages"][0]["content"][1]["text"].startswith("easy")
    focus = {
        "macro": {"text": "red" if is_easy else "blue", "perplexity": 1.1 if is_easy else 4.0, "finish_reason": "stop"},
        "turns": {"macro": {"seconds": 0.5}},
        "seconds": 2.0,
    }
    completion = {"choices": [{"message": {"content": "Red "}}], "dualfocus": focus}
    respond(body=json.dumps(completion).encode())(request)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving({"/v1/chat/completions": rule}) as web:
        yield web.address


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    lines = [
        {"image": "a.png", "question": f"{sort} {number}", "answer": "red"}
        for number in range(5)
        for sort in ("easy", "hard")
    ]
    lines[0] = {"image": "a.png", "question": "easy", "answers": ["crimson", "red"]}
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_a_server_is_calibrated(url: str, questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = questions.parent / "out"
    assert main([str(questions), "--base-url", f"{url}/v1", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["questions"] == 10
    assert found["full"] == {"threshold": 0.0, "skipped": 0.0, "accuracy": 1.0, "seconds": 2.0}
    assert found["picked"] == {"threshold": 2.55, "skipped": 0.5, "accuracy": 1.0, "seconds": 1.25}
    assert json.loads((out / "calibration.json").read_text()) == found
    assert (out / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert main([str(questions), "--base-url", url, "--count", "4", "--loss", "50"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("--skip-below 5.0\nskips 100.0% of 4 second looks; right answers 50.0% instead of 100.0%; ")


def test_blank_lines_and_a_mark_before_the_first_are_no_questions(
    url: str, questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = questions.read_bytes().splitlines(keepends=True)
    questions.write_bytes(codecs.BOM_UTF8 + b"\r\n" + b"\n \n".join(lines) + b"\n")
    assert main([str(questions), "--base-url", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["questions"] == 10
    assert main([str(questions), "--base-url", url, "--count", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["questions"] == 4


@pytest.mark.parametrize("cut", [{"text": "", "perplexity": None}, {"text": "re"}, {"text": " ", "perplexity": 1.0}])
def test_a_cut_answer_is_not_counted_as_skipped_to(
    questions: Path, capsys: pytest.CaptureFixture[str], cut: dict[str, Any]
) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        macro = {"perplexity": 1.1, "finish_reason": "stop" if cut["text"] == " " else "length"} | cut
        focus = {"macro": macro, "turns": {"macro": {"seconds": 0.5}}, "seconds": 2.0}
        completion = {"choices": [{"message": {"content": None}}], "dualfocus": focus}
        respond(body=json.dumps(completion).encode())(request)

    with serving({"/v1/chat/completions": answer}) as web:
        assert main([str(questions), "--base-url", web.address, "--json", "--loss", "100"]) == 0
    assert json.loads(capsys.readouterr().out)["picked"]["skipped"] == 0.0


def test_a_refusal_that_passes_loses_no_answer(
    questions: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualfocus_client.asking.FIRST_WAIT", 0.0)
    refused = iter([503, 429, 500])

    def busy(request: BaseHTTPRequestHandler) -> None:
        if (status := next(refused, None)) is not None:
            body_of(request)
            respond(status, body=b"{}")(request)
        else:
            rule(request)

    with serving({"/v1/chat/completions": busy}) as web:
        assert main([str(questions), "--base-url", web.address, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["questions"] == 10


@pytest.mark.parametrize("answer", [{"text": " "}, {"text": "re", "finish_reason": "length"}, {"perplexity": None}])
def test_an_answer_that_is_empty_or_cut_ends_no_search(answer: dict[str, Any]) -> None:
    """As in the server, however low its perplexity is."""
    whole = {"text": "red", "perplexity": 1.1, "finish_reason": "stop", "enough": None}
    assert calibrate._look(whole, {"answers": ["red"]}).perplexity == 1.1
    assert calibrate._look(whole | answer, {"answers": ["red"]}).perplexity == math.inf


@pytest.mark.parametrize("how", [[], ["--search"]])
def test_a_server_that_looks_once_is_named(questions: Path, capsys: pytest.CaptureFixture[str], how: list[str]) -> None:
    completion = json.dumps({"choices": [{"message": {"content": "red"}}]}).encode()
    with serving({"/v1/chat/completions": respond(body=completion)}) as web:
        assert main([str(questions), "--base-url", web.address, *how]) == 1
    assert "only `dualfocus serve` can be calibrated" in capsys.readouterr().err


def test_a_picture_may_have_a_colon_in_its_name(url: str, questions: Path) -> None:
    Image.new("RGB", (20, 20)).save(questions.parent / "scan 12:30.png")
    questions.write_text('{"image": "scan 12:30.png", "question": "easy", "answer": "red"}')
    assert main([str(questions), "--base-url", url]) == 0


def test_a_question_may_hold_any_character(url: str, questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of all that str.splitlines takes for the end of a line, only a line feed is one."""
    line = {"image": "a.png", "question": "easy\u2028or\u2029hard\x85", "answer": "red"}
    questions.write_bytes(
        b"".join(json.dumps(line, ensure_ascii=False).encode() + end for end in (b"\r\n", b"\n", b""))
    )
    assert main([str(questions), "--base-url", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["questions"] == 3
    assert bodies[-1]["messages"][0]["content"][1]["text"] == line["question"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"image": "a.png", "question": "What?"}', "line 1: no JSON object with image, question and answer"),
        ("What?", "line 1: no JSON object"),
        ("[]", "line 1: no JSON object"),
        ("", "there is no question to ask"),
        ('{"image": "none.png", "question": "easy", "answer": "red"}', "No such file"),
    ],
)
def test_what_is_no_question_is_said(
    url: str, questions: Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    questions.write_text(text)
    assert main([str(questions), "--base-url", url]) == 1
    assert complaint in capsys.readouterr().err


def test_a_file_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.jsonl"]) == 1
    assert "nowhere.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["calibrate", "command"])
def test_commands_need_no_more_than_the_client(command: str) -> None:
    absent = "import sys; sys.modules.update(dict.fromkeys(('matplotlib', 'numpy', 'torch', 'transformers')))"
    subprocess.run([sys.executable, "-c", f"{absent}; import dualfocus_eval.{command}"], check=True)


def test_plots_are_refused_where_nothing_can_draw_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match="2"):
        main(["questions.jsonl", "--out", "plots"])
    assert "plots need matplotlib: pip install" in capsys.readouterr().err


# Two looks that are wrong and unsure, then a third that is right and sure; a question that is plain at once.
HARD = [Look(3.0, 0.2, 0.0), Look(2.5, 0.3, 0.0), Look(1.2, 0.9, 1.0)]
EASY = [Look(1.1, 0.8, 1.0), Look(1.3, 0.8, 1.0), Look(1.4, 0.8, 0.0)]


def test_what_is_right_more_often_where_it_is_surer_has_a_larger_area() -> None:
    assert area_under_curve([0.9, 0.8, 0.3], [1.0, 1.0, 0.0]) == 1.0
    assert area_under_curve([0.9, 0.5, 0.5], [0.0, 1.0, 0.0]) == 0.25
    assert area_under_curve([0.9, 0.8], [1.0, 1.0]) is None


@pytest.mark.parametrize(("name", "least", "most"), [("perplexity", 1.1, 2.5), ("enough", 0.3, 0.8)])
def test_a_search_stops_where_no_answer_is_lost(name: str, least: float, most: float) -> None:
    points = curve_of_looks([HARD, EASY], SIGNALS[name])
    assert (points[0].looks, points[0].accuracy) == (3.0, 1.0), "never sure"
    assert (points[-1].looks, points[-1].accuracy) == (2.0, 0.5), "at once"
    picked = pick_looks(points, 0.0)
    assert (picked.looks, picked.accuracy) == (2.5, 1.0)
    assert least < picked.threshold <= most
    assert pick_looks(points, 0.5).looks == 2.0


@pytest.mark.parametrize("name", ["perplexity", "enough"])
def test_thresholds_are_numbers_that_json_has(name: str) -> None:
    endless = [Look(math.inf, None, 0.0), Look(2.0, 0.5, 1.0), Look(math.inf, 0.7, 0.0)]
    for asked in ([HARD, EASY, endless], [endless[:1]]):
        assert all(math.isfinite(point.threshold) for point in curve_of_looks(asked, SIGNALS[name]))
    at_once = curve_of_looks([HARD, EASY], SIGNALS["perplexity"])[-1]
    assert (at_once.looks, at_once.threshold) == (2.0, 4.0)


def test_the_profile_goes_by_what_takes_fewer_looks() -> None:
    assert list(search_figures([HARD, EASY], 0.0)["profile"]) == ["sure_below_perplexity"]
    silent = [Look(look.perplexity, None, look.score) for look in EASY]
    assert list(search_figures([HARD, silent], 0.0)["profile"]) == ["sure_below_perplexity"]
    vague = [Look(3.0, 0.9, 1.0), Look(3.1, 0.9, 1.0), Look(3.2, 0.9, 1.0)]
    assert search_figures([HARD, vague], 0.0)["profile"]["enough"]["above"] == pytest.approx(0.6, abs=0.31)


def searching(request: BaseHTTPRequestHandler) -> None:
    """The third look is right and sure; of the easy questions the first is."""
    body = json.loads(body_of(request))
    bodies.append(body)
    looks = EASY if body["messages"][0]["content"][1]["text"].startswith("easy") else HARD
    told = [
        {
            "answer": {"text": "red" if look.score else "blue", "perplexity": look.perplexity, "enough": look.enough},
            "failed": None,
        }
        for look in looks
    ]
    told.append({"answer": None, "failed": "no_box"})
    focus = {"macro": told[0]["answer"], "looks": told}
    completion = {"choices": [{"message": {"content": "red"}}], "dualfocus": focus}
    respond(body=json.dumps(completion).encode())(request)


def test_a_search_is_calibrated(questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = questions.parent / "out"
    with serving({"/v1/chat/completions": searching}) as web:
        assert main([str(questions), "--search", "--loss", "0", "--base-url", web.address, "--out", str(out)]) == 0
        assert main([str(questions.parent), "--search", "--base-url", web.address]) == 1
    captured = capsys.readouterr()
    assert bodies[-1]["dualfocus"] == {"mode": "search", "sure_below": 0.0, "enough": True}
    assert "perplexity: area under the curve 1.000; at" in captured.out
    assert "2.50 looks a question and 100.0% right, instead of 3.00 and 100.0%" in captured.out
    found = json.loads((out / "calibration.json").read_text())
    assert found["questions"] == 10
    assert yaml.safe_load((out / "profile.yaml").read_text()) == found["profile"]
    assert (out / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert "with --search questions are asked" in captured.err
