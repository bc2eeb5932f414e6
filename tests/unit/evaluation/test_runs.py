"""How a benchmark is asked: once, whatever happens meanwhile; against a server that answers by rule."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from dualfocus_eval.asking.questions import size_of
from dualfocus_eval.asking.records import Records, RunError, read_records
from dualfocus_eval.benchmarks import BENCHMARKS
from dualfocus_eval.calibrate import main as calibrate
from dualfocus_eval.command import main
from dualfocus_eval.samples import Sample
from dualfocus_eval.scoring.letters import circular
from PIL import ExifTags, Image

from unit.evaluation.fruit import FRUIT, Grocer, write_data
from unit.local_web import serving

QUESTIONS = 12


@pytest.fixture(autouse=True)
def fruit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BENCHMARKS, "fruit", FRUIT)
    # Plots, which take their time, are drawn in the tests of scenes.
    monkeypatch.setattr("dualfocus_eval.report.writing.find_spec", lambda name: None)


@pytest.fixture
def grocer() -> Grocer:
    return Grocer()


@pytest.fixture
def command(grocer: Grocer, tmp_path: Path) -> Iterator[list[str]]:
    write_data(tmp_path / "data", QUESTIONS)
    with serving(grocer.pages) as web:
        yield ["fruit", "--data", str(tmp_path / "data"), "--base-url", web.address, "--out", str(tmp_path / "run")]


def figures(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "run" / "figures.json").read_text())


def test_each_question_is_asked_once_and_told(command: list[str], grocer: Grocer, tmp_path: Path) -> None:
    assert main(command) == 0
    assert main(command) == 0, "the same command again asks nothing"
    assert grocer.asked == once_each(QUESTIONS)
    body = grocer.bodies[0]
    assert (body["temperature"], body["max_tokens"], body["dualfocus"]) == (0, 128, {"mode": "dual"})
    assert body["messages"][0]["content"][1]["text"].endswith("?\nAnswer in one word.")
    record = read_records(tmp_path / "run")[0]
    assert {name: record[name] for name in ("reply", "winner", "selection", "box", "crop", "macro", "micro")} == {
        "reply": "apple",
        "winner": "micro",
        "selection": "lower_perplexity",
        "box": [0.0, 0.0, 0.5, 1.0],
        "crop": [0, 0, 10, 10],
        "macro": {"text": "pear", "perplexity": 2.0, "finish_reason": None},
        "micro": {"text": "apple", "perplexity": 1.5, "finish_reason": None},
    }
    assert (record["tokens"]["prompt_tokens"], record["seconds"]) == (100, {"macro": 0.5, "all": 2.0})
    assert record["work"] == {"looks": 2, "computed_tokens": 100, "encoder_runs": 2}
    found = figures(tmp_path)
    assert found["costs"]["computed_tokens"] == 100
    assert "engine_steps" not in found["costs"], "not told of each turn"
    assert (found["overall"]["macro"], found["overall"]["micro"], found["overall"]["chosen"]) == (0.0, 1.0, 1.0)
    assert found["boxes"] == {"questions": 12, "had_box": 1.0, "iou": 0.5, "covered": 1.0}
    assert set(found["categories"]) == {"red", "green"}
    report = (tmp_path / "run" / "report.md").read_text()
    assert "| served profile | tiny |" in report
    assert "| versions vllm | 0.32 |" in report
    assert "Plots need matplotlib" in report


def once_each(count: int) -> dict[str, int]:
    return {str(number): 1 for number in range(count)}


def test_what_is_asked_again_needs_no_first_asking(command: list[str], grocer: Grocer, tmp_path: Path) -> None:
    assert main(command) == 0
    assert main([*command, "--shift", "2,5", "--scoring", "shared"]) == 0
    assert grocer.asked == once_each(QUESTIONS)
    assert len(grocer.bodies) == 4 * QUESTIONS
    found = figures(tmp_path)
    assert found["shifts"] == {"0": 1.0, "2": 0.0, "5": 0.0}
    assert found["overall"]["shared"] == 1.0
    assert main(command) == 0
    assert len(grocer.bodies) == 4 * QUESTIONS


def test_a_run_that_was_killed_asks_nothing_twice(command: list[str], grocer: Grocer, tmp_path: Path) -> None:
    """It is killed with five answers written and three questions on their way."""
    grocer.let_through = threading.Semaphore(5)
    start = "import sys; from dualfocus_eval.benchmarks import BENCHMARKS; from unit.evaluation.fruit import FRUIT; "
    start += "BENCHMARKS['fruit'] = FRUIT; from dualfocus_eval.command import main; sys.exit(main(sys.argv[1:]))"
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    killed = subprocess.Popen(
        [sys.executable, "-c", start, *command, "--concurrency", "3"], env={**os.environ, "PYTHONPATH": paths}
    )
    records = tmp_path / "run" / "records.jsonl"
    while killed.poll() is None and not (records.exists() and records.read_bytes().count(b"\n") == 5):
        pass
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    answered = {record["id"] for record in read_records(tmp_path / "run")}
    assert len(answered) == 5
    with records.open("ab") as file:
        file.write(b'{"id": "7", "varia')  # as a full disk leaves it
    grocer.let_through = threading.Semaphore(1_000_000)
    assert main(command) == 0
    assert {number for number, times in grocer.asked.items() if times > 1} <= set(grocer.asked) - answered
    assert len(read_records(tmp_path / "run")) == QUESTIONS
    assert figures(tmp_path)["overall"]["questions"] == QUESTIONS


def test_failures_are_told_and_tried_again_and_never_scored(
    command: list[str], grocer: Grocer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grocer.refuses = {"3", "8"}
    assert main(command) == 1
    assert "2 questions failed and are in no figure" in capsys.readouterr().err
    assert (figures(tmp_path)["failed"], figures(tmp_path)["overall"]["questions"]) == (2, QUESTIONS - 2)
    assert "2 questions failed" in (tmp_path / "run" / "report.md").read_text()
    grocer.refuses = set()
    assert main(command) == 0
    assert figures(tmp_path)["failed"] == 0
    assert grocer.asked == {**once_each(QUESTIONS), "3": 2, "8": 2}


def test_what_failed_when_asked_again_is_told_and_left_out(
    command: list[str], grocer: Grocer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    grocer.refuses = {"3"}
    assert main([*command, "--shift", "2"]) == 1
    assert "1 failed when asked again: that scoring or shift is left out" in capsys.readouterr().err
    found = figures(tmp_path)
    assert (found["failed"], found["failed_again"], found["shifts"]) == (0, 1, {})
    assert found["overall"]["questions"] == QUESTIONS
    grocer.refuses = set()
    assert main(command) == 0, "it does not ask for the shift"
    assert main([*command, "--shift", "2"]) == 0
    assert figures(tmp_path)["shifts"].keys() == {"0", "2"}


def test_what_is_judged_together_with_a_failed_question_is_in_no_figure(
    command: list[str], grocer: Grocer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(folder: Path) -> Iterator[Sample]:
        return (replace(sample, group=str(int(sample.id) % 4)) for sample in FRUIT.read(folder))

    monkeypatch.setitem(BENCHMARKS, "fruit", replace(FRUIT, read=read, figures=circular))
    grocer.refuses = {"7"}
    assert main(command) == 1
    assert (figures(tmp_path)["failed"], figures(tmp_path)["overall"]["questions"]) == (1, QUESTIONS - 3)
    grocer.refuses = set()
    assert main(command) == 0
    assert figures(tmp_path)["overall"]["questions"] == QUESTIONS


def test_a_baseline_of_one_look_is_told_as_one(command: list[str], grocer: Grocer, tmp_path: Path) -> None:
    assert main([*command, "--mode", "macro", "--shift", "2"]) == 0
    assert len(grocer.bodies) == QUESTIONS, "there is no box to shift"
    assert figures(tmp_path)["overall"]["chosen"] == 0.0
    assert "There was one look" in (tmp_path / "run" / "report.md").read_text()


def test_where_all_fail_there_is_no_figure(
    command: list[str], grocer: Grocer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grocer.refuses = {str(number) for number in range(QUESTIONS)}
    assert main(command) == 2
    assert "no question of the run has an answer" in capsys.readouterr().err
    assert not (tmp_path / "run" / "figures.json").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--mode", "macro"], "mode: 'dual' then, 'macro' now"),
        (["--prompts", "lmms-eval"], "prompts: 'llava' then, 'lmms-eval' now; prompts hash:"),
        (["--count", "5"], "questions: 12 then, 5 now; data hash:"),
        (["--max-tokens", "9"], "max_tokens: 128 then, 9 now"),
        (["--candidates", "3"], "candidates: None then, 3 now"),
        (["--model", "large"], "model: None then, 'large' now; served model: 'small' then, 'large' now"),
    ],
)
def test_a_run_goes_on_only_as_it_was_begun(
    command: list[str], grocer: Grocer, capsys: pytest.CaptureFixture[str], flags: list[str], complaint: str
) -> None:
    assert main(command) == 0
    assert main([*command, *flags]) == 2
    told = capsys.readouterr().err
    assert complaint in told
    assert "name another --out" in told
    assert len(grocer.bodies) == QUESTIONS


def test_a_run_goes_on_only_with_the_same_data(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    data = tmp_path / "data" / "fruit.jsonl"
    data.write_text(data.read_text().replace("number 3", "number 33"))
    assert main(command) == 2
    assert "data hash: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [('"id": "3"', '"id": "4"', "the id '4' is that of line 4 too"), ("", "", "the files hold no questions")],
)
def test_data_that_can_not_be_asked_is_said_before_anything_is(
    command: list[str], grocer: Grocer, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str,
    complaint: str,
) -> None:  # fmt: skip
    data = tmp_path / "data" / "fruit.jsonl"
    data.write_text(data.read_text().replace(old, new) if old else "")
    assert main(command) == 2
    assert complaint in capsys.readouterr().err
    assert not grocer.bodies


def test_a_picture_that_is_missing_is_said_before_anything_is_asked(
    command: list[str], grocer: Grocer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "fruit.png").unlink()
    assert main(command) == 2
    assert "fruit.png: No such file" in capsys.readouterr().err
    assert not grocer.bodies


def test_a_pictures_size_is_that_of_the_picture_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 30))
    picture.getexif()[ExifTags.Base.Orientation] = 6
    picture.save(tmp_path / "turned.jpg", exif=picture.getexif())
    assert size_of(tmp_path / "turned.jpg") == (30, 40)
    assert size_of((tmp_path / "turned.jpg").read_bytes()) == (30, 40)
    assert size_of(b"none") is None


def test_one_process_writes_a_run(tmp_path: Path) -> None:
    with Records(tmp_path), pytest.raises(RunError, match="another run is writing it"):
        Records(tmp_path)


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"id": "1", "variant": ""}\nnothing\n')
    with pytest.raises(RunError, match=r"records.jsonl, line 2: is no record"):
        read_records(tmp_path)


class FullDisk(io.BytesIO):
    """A file whose disk is full for one write, of which half is written."""

    name, is_full = "records.jsonl", True

    def write(self, data: Any) -> int:
        written = data[: len(data) // 2] if self.is_full else data
        self.is_full = False
        return super().write(written)

    def truncate(self, size: int | None = None) -> int:
        end = super().truncate(size)
        self.seek(end)
        return end


def test_half_a_record_is_taken_back_before_others_are_written(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        file, records._file = records._file, cast("Any", FullDisk())
        with pytest.raises(OSError, match="no space left"):
            records.add({"id": "1", "variant": "", "reply": "red"})
        records.add({"id": "2", "variant": "", "reply": "blue"})
        written, records._file = cast("FullDisk", records._file).getvalue(), file
    assert [json.loads(line)["id"] for line in written.splitlines()] == ["2"]


def test_two_runs_are_compared(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 0
    baseline = [*command[:-1], str(tmp_path / "baseline"), "--mode", "macro", "--count", "10"]
    assert main(baseline) == 0
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "baseline"), str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["questions"], found["left_out"]) == (10, [0, 2])
    assert found["answers"]["chosen"] == [0.0, 1.0]
    assert found["difference"] == {"gain": 1.0, "interval": [1.0, 1.0], "only_right": [0, 10], "p": 2 / 2**10}
    assert main(["compare", str(tmp_path / "baseline"), str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert "| chosen | 0.0 | 100.0 | +100.0 |" in told
    assert "p = 0.00195 (McNemar's exact test)" in told


def test_runs_that_are_not_of_the_same_questions_are_not_compared(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    write_data(tmp_path / "data", 4)
    assert main([*command[:-1], str(tmp_path / "other")]) == 0
    assert main(["compare", str(tmp_path / "run"), str(tmp_path / "other")]) == 2
    # Which one is named first: records are in the order of the answers.
    assert re.search("question '[23]' is not the same in both runs", capsys.readouterr().err)


def test_a_run_is_calibrated_from_without_asking(
    command: list[str], grocer: Grocer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    capsys.readouterr()
    assert calibrate([str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["full"] == {"threshold": 0.0, "skipped": 0.0, "accuracy": 1.0, "seconds": 2.0}
    assert found["curve"][-1] == {"threshold": 3.0, "skipped": 1.0, "accuracy": 0.0, "seconds": 0.5}
    assert len(grocer.bodies) == QUESTIONS
    assert main([*command[:-1], str(tmp_path / "macro"), "--mode", "macro"]) == 0
    assert calibrate([str(tmp_path / "macro")]) == 1
    assert "is a run of --mode macro: one of --mode dual is expected" in capsys.readouterr().err
    assert calibrate([str(tmp_path / "data")]) == 1
    assert "holds no run.json of a run" in capsys.readouterr().err


def test_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    told = capsys.readouterr().out
    assert "fruit: which fruit it is\n  --data: a folder with fruit.jsonl\n  licence: none\n" in told
    assert "scenes: pictures drawn from a seed" in told
