"""The server's flags, from the command line and the environment."""

import argparse

import pytest
from dualfocus_engine import ConfigError
from dualfocus_server.settings import Settings, add_flags, settings_of

STORE = "VLLM_ENABLE_RESPONSES_API_STORE"


def parsed(*argv: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    parser.set_defaults(
        allowed_media_domains=None,
        allowed_origins=None,
        root_path=None,
        disable_fastapi_docs=False,
        enable_offline_docs=False,
        middleware=[],
        disable_access_log_for_endpoints=None,
        enable_tokenizer_info_endpoint=False,
    )  # of vLLM's
    return settings_of(parser.parse_args(argv))


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DUALFOCUS_API_KEY", "DUALFOCUS_ADMIN_API_KEY", "VLLM_API_KEY", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE", STORE):
        monkeypatch.delenv(name, raising=False)


def test_without_flags_it_is_the_defaults() -> None:
    assert parsed() == Settings()


def test_the_page_can_be_left_out() -> None:
    assert parsed("--no-playground") == Settings(playground=False)


@pytest.mark.parametrize("written", [["--api-key", "a", "--api-key", "b"], ["--api-key", "a", "b"]])
def test_keys_are_given_one_by_one_or_together(written: list[str]) -> None:
    assert parsed(*written).api_keys == ("a", "b")


def test_formats_and_networks_are_lists() -> None:
    found = parsed("--image-formats", "jpeg", "PNG", "--allowed-media-networks", "10.0.0.0/8", "fd00::/8")
    assert found == Settings(image_formats=("JPEG", "PNG"), allowed_media_networks=("10.0.0.0/8", "fd00::/8"))


def test_format_that_there_is_not_is_refused_naming_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--image-formats", "EPS")
    assert "invalid choice: 'EPS' (choose from 'JPEG', 'PNG', " in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--drain-timeout", "--shutdown-timeout"])
def test_drain_has_vllms_name_too(flag: str) -> None:
    assert parsed(flag, "5").drain_timeout == 5


@pytest.mark.parametrize(("name", "keys"), [("DUALFOCUS_API_KEY", ("a", "b")), ("VLLM_API_KEY", ("a,b",))])
def test_keys_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch, name: str, keys: tuple[str, ...]) -> None:
    monkeypatch.setenv(name, "a,b")
    assert parsed().api_keys == keys
    assert parsed("--api-key", "c").api_keys == ("c",)


def test_our_variable_goes_before_vllms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "theirs")
    monkeypatch.setenv("DUALFOCUS_API_KEY", "ours")
    assert parsed().api_keys == ("ours",)


def test_what_is_no_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--timeout", "nan")
    assert "argument --timeout: nan is not a number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value", "least"),
    [("--timeout", "-1", 0), ("--max-queued", "-1", 0), ("--max-image-bytes", "0", 1), ("--max-questions", "0", 1)],
)
def test_less_than_a_flags_least_is_refused(
    flag: str, value: str, least: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(flag, value)
    assert f"argument {flag}: {value} is less than {least}" in capsys.readouterr().err


def test_idle_connections_live_as_long_as_vllms_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed().idle_timeout == 120
    monkeypatch.setenv("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "5")
    assert parsed().idle_timeout == 5


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5"])
def test_what_is_no_time_for_them_is_said(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", text)
    with pytest.raises(ConfigError, match=f"VLLM_HTTP_TIMEOUT_KEEP_ALIVE={text} can't be used"):
        parsed()


@pytest.mark.parametrize(("text", "kept"), [("1", True), ("0", False), (None, False)])
def test_vllms_variable_says_whether_responses_are_kept(
    monkeypatch: pytest.MonkeyPatch, text: str | None, kept: bool
) -> None:
    if text is not None:
        monkeypatch.setenv(STORE, text)
    assert parsed().store_responses is kept


def test_one_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE, "yes")
    with pytest.raises(ConfigError, match=f"{STORE}=yes can't be used: expected 0 or 1"):
        parsed()
