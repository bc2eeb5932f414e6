"""What `dualfocus batch` refuses before it asks, and how it says so."""

import json

import pytest
from dualfocus_client.batch import main

from .model import Folder, Model, line


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("no json", ["line 2: Invalid JSON"]),
        ("[1]", ["line 2: ", "object"]),
        ('{"question": "two"}', ["line 2: image: Field required"]),
        ('{"image": "a.png", "question": 5}', ["line 2: question: ", "string"]),
        ('{"image": "a.png", "question": ""}', ["line 2: question: "]),
        ('{"image": "a.png", "question": "\\ud800"}', ["line 2: "]),
        ('{"image": "a.png", "question": "two", "mode": "both"}', ["line 2: mode: ", "'dual'", "'off'"]),
        ('{"image": "a.png", "question": "two", "dualfocus": {"box": [NaN]}}', ["line 2: "]),
        ('{"image": "absent.png", "question": "two"}', ["line 2: image: there is no file", "absent.png"]),
        ('{"image": "' + "x" * 5000 + '", "question": "two"}', ["line 2: image: there is no file"]),
        ('{"image": "\\u0000", "question": "two"}', ["line 2: image: there is no file"]),
    ],
)
def test_bad_lines_are_named_before_anything_is_asked(
    folder: Folder, model: Model, capsys: pytest.CaptureFixture[str], text: str, complaints: list[str]
) -> None:
    folder.write(line("one"), f"{text}\n", line("three"))
    assert folder.ask_of(model) == 2
    err = capsys.readouterr().err
    assert all(complaint in err for complaint in complaints)
    assert 'accepted is a JSON object a line: {"image"' in err
    assert model.asked == []


def test_bad_lines_are_all_counted(folder: Folder, model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write(*["x\n"] * 30)
    assert folder.ask_of(model) == 2
    err = capsys.readouterr().err
    assert "line 20:" in err
    assert "line 21:" not in err
    assert "and 10 more" in err


def test_lines_end_at_line_feeds_alone(folder: Folder, model: Model) -> None:
    text = "one\u2028two\x85three"
    folder.questions.write_bytes(
        b"\xef\xbb\xbf"
        + json.dumps(line(text), ensure_ascii=False).encode()
        + b"\r\n\n"
        + json.dumps(line("b")).encode()
    )
    assert folder.ask_of(model) == 0
    assert [(told["line"], told["question"]) for told in folder.told()] == [(1, text), (3, "b")]


@pytest.mark.parametrize("name", ["questions.jsonl", ".", "absent/answers.jsonl", "nul\0"])
def test_output_that_can_not_be_is_named(
    folder: Folder, model: Model, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder.write(line("one"))
    assert folder.ask_of(model, "--output", str(folder.questions.parent / name)) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert model.asked == []
    assert json.loads(folder.questions.read_text()) == line("one")


def test_output_that_is_something_else_is_left_alone(
    folder: Folder, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write(line("one"))
    folder.answers.write_text('{"my": "notes"}\n')
    assert folder.ask_of(model) == 2
    assert "line 1 is not an answer of a batch" in capsys.readouterr().err
    assert folder.answers.read_text() == '{"my": "notes"}\n'


@pytest.mark.parametrize("content", [None, "", "\n\n"])
def test_file_without_questions_is_said(
    folder: Folder, model: Model, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    if content is not None:
        folder.questions.write_text(content)
    assert folder.ask_of(model) == 2
    assert "questions.jsonl: " in capsys.readouterr().err
    assert not folder.answers.exists(), "nothing is left where nothing was asked"


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://h", "", "http://"])
def test_address_that_is_none_is_said(folder: Folder, capsys: pytest.CaptureFixture[str], address: str) -> None:
    folder.write(line("one"))
    assert main([str(folder.questions), "--base-url", address]) == 2
    assert "--base-url" in capsys.readouterr().err


def test_key_that_no_header_carries_is_said(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write(line("one"))
    assert main([str(folder.questions), "--api-key", "sk-right\u2026"]) == 2
    assert "is not ASCII" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--concurrency", "0"], ["--retries", "-1"], ["--mode", "both"]])
def test_bad_option_is_status_2(folder: Folder, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(folder.questions), *arguments])
    assert stopped.value.code == 2
