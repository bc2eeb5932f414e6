"""Keys: which are good, whose they are, and what a changing file does."""

import hmac
from pathlib import Path
from typing import Any

import pytest
from dualfocus_engine import ConfigError
from dualfocus_server.guards import keys as keys_module
from dualfocus_server.guards.keys import KeyRing
from starlette.datastructures import Headers


def authenticate(ring: KeyRing, value: str) -> str | None:
    return ring.authenticate(Headers({"authorization": value}))


def test_no_keys_are_needed_where_none_are_set() -> None:
    assert not KeyRing().is_needed


@pytest.mark.parametrize("keys", [[""], [" "], ["good", ""]])
def test_a_key_that_is_empty_leaves_nothing_open(keys: list[str]) -> None:
    """An unset variable in `--api-key "$KEY"` must not mean that no key is needed."""
    with pytest.raises(ConfigError, match="An API key is empty"):
        KeyRing(keys)


def test_an_empty_file_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# nobody yet\n")
    ring = KeyRing(file=tmp_path / "keys")
    assert ring.is_needed
    assert authenticate(ring, "Bearer ") is None
    assert authenticate(ring, "Bearer # nobody yet") is None


@pytest.mark.parametrize("value", ["Bearer good", "bearer good", "BEARER  good "])
def test_the_scheme_is_read_as_http_has_it(value: str) -> None:
    assert authenticate(KeyRing(["good"]), value) is not None


@pytest.mark.parametrize("value", ["", "good", "Basic good", "Bearer", "Bearer Good", "Bearer good x", "Token good"])
def test_anything_else_is_no_key(value: str) -> None:
    assert authenticate(KeyRing(["good"]), value) is None


def test_anthropics_clients_send_theirs_in_a_header_of_its_own() -> None:
    ring = KeyRing(["good"])
    assert ring.authenticate(Headers({"x-api-key": "good"})) == authenticate(ring, "Bearer good")
    assert ring.authenticate(Headers({"x-api-key": "bad"})) is None
    assert ring.authenticate(Headers({"x-api-key": "good", "authorization": "Bearer bad"})) is None


def test_an_owner_is_named_without_its_key() -> None:
    ring = KeyRing(["one", "two"])
    names = {authenticate(ring, "Bearer one"), authenticate(ring, "Bearer two")}
    assert len(names) == 2
    assert not any("one" in str(name) or "two" in str(name) for name in names)


def test_a_missing_file_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        KeyRing(file=tmp_path / "nothing")


def test_a_file_that_disappears_leaves_its_keys_good_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    path.write_text("good\n")
    ring = KeyRing(file=path)
    for _ in range(2):
        path.unlink(missing_ok=True)
        assert [authenticate(ring, "Bearer good") is not None for _ in range(3)] == [True] * 3
        path.write_text("good\n")
        authenticate(ring, "Bearer good")
    assert caplog.text.count("can't be read") == 2, "each time it goes, and not with each request"
    assert "good" not in caplog.text.replace("good;", "")


@pytest.mark.parametrize("content", [b"good\nf\xfc\n", b"\xff\xfeg\x00o\x00o\x00d\x00"])
def test_a_file_that_is_no_text_is_said_and_fails_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        KeyRing(file=path)
    path.write_text("first\n")
    ring = KeyRing(file=path)
    path.write_bytes(content)
    assert authenticate(ring, "Bearer first") is not None
    assert "is not UTF-8 text" in caplog.text


def test_a_file_may_begin_with_a_mark_of_its_encoding(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("good\nother\n", encoding="utf-8-sig")
    ring = KeyRing(file=tmp_path / "keys")
    assert authenticate(ring, "Bearer good") is not None


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "keys", keys_module._read
    path.write_text("old\n")

    def read_then_change(file: Path) -> list[bytes]:
        digests = real(file)
        path.write_text("newer\n")
        return digests

    monkeypatch.setattr(keys_module, "_read", read_then_change)
    ring = KeyRing(file=path)
    monkeypatch.setattr(keys_module, "_read", real)
    assert authenticate(ring, "Bearer newer") is not None
    assert authenticate(ring, "Bearer old") is None


@pytest.mark.parametrize("value", ["Bearer one", "Bearer three", "Bearer nothing", "Basic one", ""])
def test_every_key_is_compared_whatever_was_given(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The time a refusal takes says nothing about the keys."""
    compared: list[Any] = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda *both: compared.append(both) or real(*both))
    authenticate(KeyRing(["one", "two", "three"]), value)
    assert len(compared) == 3
    assert {len(digest) for both in compared for digest in both} == {32}
