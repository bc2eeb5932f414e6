"""`dualfocus ask`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dualfocus_client import ask as command
from dualfocus_client.ask import main
from PIL import Image

from ..local_web import respond, serving

ANSWER = {"text": "Red.", "perplexity": 1.2345, "tokens": 3, "finish_reason": "stop"}
FOCUS: dict[str, Any] = {
    "winner": "micro",
    "selection": "lower_perplexity",
    "box": [0.1, 0.2, 0.3, 0.4],
    "crop": [10, 20, 30, 40],
    "macro": {**ANSWER, "text": "Blue.", "perplexity": 21.98765},
    "micro": ANSWER,
    "seconds": 0.1234,
}


def _completion(**changes: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": "Red."}}], "dualfocus": FOCUS | changes}


def _asked(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """Run the command and return what it would have asked the server."""
    given: dict[str, Any] = {}

    def fake(image: str, question: str, **options: Any) -> dict[str, Any]:
        given.update(options, image=image, question=question)
        return _completion()

    monkeypatch.setattr(command, "ask", fake)
    assert main(["photo.jpg", "What?", *arguments]) == 0
    return given


def _run(completion: dict[str, Any], *arguments: str) -> int:
    with serving({"/v1/chat/completions": respond(body=json.dumps(completion).encode())}) as web:
        return main(["data:,x", "What?", "--base-url", web.address, *arguments])


def test_answer_stands_first_and_then_how_it_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(_completion()) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Red.",
        "",
        "macro: 'Blue.', perplexity 22",
        "micro: 'Red.', perplexity 1.23",
        "box: [0.1, 0.2, 0.3, 0.4], crop in pixels: [10, 20, 30, 40]",
        "chosen: micro (lower_perplexity), 0.12 s",
    ]


def test_an_answer_without_a_token_has_an_infinite_perplexity(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A model that thinks may be cut within its thoughts."""
    cut = {"text": "", "perplexity": None, "tokens": 9, "finish_reason": "length"}
    completion = _completion(macro=cut, micro=cut) | {"choices": [{"message": {"content": None}}]}
    Image.new("RGB", (64, 48)).save(tmp_path / "photo.png")
    with serving({"/v1/chat/completions": respond(body=json.dumps(completion).encode())}) as web:
        sheet = str(tmp_path / "sheet.png")
        assert main([str(tmp_path / "photo.png"), "What?", "--base-url", web.address, "--save", sheet]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == ["", "", "macro: '', perplexity ∞"]


def test_answer_without_a_second_look_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(_completion(winner="macro", selection="no_box", box=None, crop=None, micro=None)) == 0
    out = capsys.readouterr().out
    assert "no box" in out
    assert "micro:" not in out
    assert "chosen: macro (no_box)" in out


def test_answer_without_the_dualfocus_field_is_the_text_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run({"choices": [{"message": {"content": "Red."}}]}) == 0
    assert capsys.readouterr().out == "Red.\n"


def test_whole_answer_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    completion = _completion(macro={**ANSWER, "text": "Où ?"})
    assert _run(completion, "--json") == 0
    out = capsys.readouterr().out
    assert json.loads(out) == completion
    assert "Où ?" in out


def test_absent_server_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with serving({}) as gone:
        address = gone.address
    assert main(["data:,x", "What?", "--base-url", address]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {address} can't be reached")
    assert err.count("\n") == 1


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DUALFOCUS_API_KEY", raising=False)
    assert _asked(monkeypatch) == {
        "image": "photo.jpg",
        "question": "What?",
        "base_url": "http://127.0.0.1:8000",
        "api_key": None,
        "timeout": 120.0,
        "mode": "dual",
        "box": None,
    }


def test_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALFOCUS_API_KEY", "secret")
    assert _asked(monkeypatch)["api_key"] == "secret"
    assert _asked(monkeypatch, "--api-key", "other")["api_key"] == "other"
    monkeypatch.setenv("DUALFOCUS_API_KEY", "first, second")  # as the server takes several
    assert _asked(monkeypatch)["api_key"] == "first"


def test_options_reach_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _asked(monkeypatch, "--mode", "micro", "--box", "0.1", "0.2", "0.3", "0.4", "--timeout", "5")
    assert (asked["mode"], asked["box"], asked["timeout"]) == ("micro", [0.1, 0.2, 0.3, 0.4], 5.0)


def test_config_file_gives_options_and_the_command_line_goes_before_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "ask.yaml"
    path.write_text("base-url: http://h:1\ntimeout: 7\nmode: macro\nbox: [0, 0, 1, 1]\n")
    asked = _asked(monkeypatch, "--config", str(path), "--mode", "micro")
    assert (asked["base_url"], asked["timeout"], asked["mode"]) == ("http://h:1", 7, "micro")
    assert asked["box"] == [0, 0, 1, 1]


def test_config_file_may_be_empty_and_may_use_underscores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "ask.yaml"
    path.write_text("")
    assert _asked(monkeypatch, "--config", str(path))["mode"] == "dual"
    path.write_text("base_url: http://h:2")
    assert _asked(monkeypatch, f"--config={path}")["base_url"] == "http://h:2"


def test_mode_off_needs_no_quotes_in_the_config_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # YAML 1.1 reads a bare `off` as false.
    path = tmp_path / "ask.yaml"
    path.write_text("mode: off")
    assert _asked(monkeypatch, "--config", str(path))["mode"] == "off"


@pytest.mark.parametrize(
    ("content", "complaints"),
    [
        ("modus: dual", ["unrecognized arguments: --modus=dual\n", "--mode", "--base-url"]),
        ("- a list", ["ask.yaml", "option: value"]),
        ("just text", ["ask.yaml", "option: value"]),
        ("a: [", ["ask.yaml"]),
        ("5: x", ["--5"]),
        ("mode: both", ["both", "dual"]),
        ("timeout: soon", ["timeout", "soon"]),
        ("timeout:", ["timeout"]),
        ("json: yes", ["--json", "yes"]),
    ],
)
def test_bad_config_file_is_said_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, complaints: list[str]
) -> None:
    path = tmp_path / "ask.yaml"
    path.write_text(content)
    with pytest.raises(SystemExit) as stopped:
        main(["data:,x", "What?", "--config", str(path), "--base-url", "http://127.0.0.1:9"])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert all(complaint in err for complaint in complaints)


def test_config_file_that_is_no_text_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ask.yaml").write_bytes(b"\xff\xfe\0")
    with pytest.raises(SystemExit):
        main(["data:,x", "What?", "--config", str(tmp_path / "ask.yaml")])
    assert "ask.yaml" in capsys.readouterr().err


def test_values_of_the_config_file_may_look_like_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "ask.yaml"
    path.write_text("api-key: -secret\nbox: [-0.5, 0, 1, 1]")
    asked = _asked(monkeypatch, "--config", str(path))
    assert (asked["api_key"], asked["box"]) == ("-secret", [-0.5, 0, 1, 1])


def test_absent_config_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data:,x", "What?", "--config", "/no/such.yaml"])
    assert "/no/such.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["photo.jpg"], ["a", "b", "c"], ["a", "b", "--mode", "both"]])
def test_bad_command_line_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: dualfocus ask" in capsys.readouterr().err


@pytest.mark.parametrize("timeout", ["0", "-1", "inf", "nan", "1e9", "soon"])
def test_a_time_that_nothing_can_wait_is_status_2(timeout: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["a", "b", f"--timeout={timeout}"])
    assert stopped.value.code == 2
    assert f"'{timeout}' is not a number of seconds above 0" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": [{}]}, {"choices": 3}, {"status": "ok"}])
@pytest.mark.parametrize("how", [[], ["--json"]])
def test_what_is_no_answer_is_one_line_and_status_1(
    answer: dict[str, Any], how: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(answer, *how) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "no chat completion" in err


def test_asking_imports_no_server() -> None:
    code = "import dualfocus_client.ask, dualfocus_client.cli, sys, json; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"dualfocus_server", "dualfocus_engine", "vllm", "torch", "fastapi"} & set(json.loads(done.stdout))
