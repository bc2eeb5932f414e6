"""Log lines: one an event, whatever is in it, and none of other libraries' chatter."""

import json
import logging
from collections.abc import Iterator

import pytest
from dualfocus_server.telemetry.logs import configure, log_access
from dualfocus_server.telemetry.request_ids import request_id


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The process's logging is as before at the end."""
    names = ["", "httpx", "httpcore", "PIL", "uvicorn.error", "vllm", "dualfocus.access"]
    before = [(logger := logging.getLogger(name), logger.level, list(logger.handlers)) for name in names]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


def lines(captured: pytest.CaptureFixture[str]) -> list[str]:
    """Split as whoever reads a log splits it: at everything Unicode calls a line's end."""
    return captured.readouterr().err.splitlines()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_path_writes_no_line_of_its_own(capsys: pytest.CaptureFixture[str], form: str) -> None:
    configure(form, "info")
    log_access("GET", "/\n2026-01-01 INFO root [-] all is well\r\u2028\x85\x1b[2J", 404, 0.1)
    (line,) = lines(capsys)
    assert "/%0A2026-01-01%20INFO" in line
    assert line.isprintable()


def test_a_message_of_many_lines_is_one_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")
    message = "one\ntwo\u2028three\x85four \ud800"
    logging.getLogger("any").warning(message)
    (line,) = lines(capsys)
    assert json.loads(line)["message"] == message


def test_an_error_has_its_requests_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")
    token = request_id.set("mine")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("any").exception("It failed")
    finally:
        request_id.reset(token)
    line = json.loads(*lines(capsys))
    assert (line["level"], line["request_id"]) == ("error", "mine")
    assert "ValueError: broken" in line["exception"]


@pytest.mark.parametrize("level", ["trace", "debug"])
def test_at_every_level_others_say_nothing_of_clients_images(capsys: pytest.CaptureFixture[str], level: str) -> None:
    configure("text", level)
    for name in ("httpx", "httpcore.connection", "PIL.PngImagePlugin", "PIL.TiffImagePlugin", "uvicorn.error"):
        logging.getLogger(name).debug("secret.example")
        logging.getLogger(name).info("secret.example")
    logging.getLogger("dualfocus_server").debug("ours")
    (line,) = lines(capsys)
    assert "ours" in line


def test_again_after_vllm_set_up_its_own_its_lines_are_the_servers(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")
    vllm = logging.getLogger("vllm")
    vllm.addHandler(logging.StreamHandler())
    vllm.propagate = False
    configure("json", "info")
    logging.getLogger("vllm.engine").error("dead")
    (line,) = lines(capsys)
    assert json.loads(line)["message"] == "dead"
