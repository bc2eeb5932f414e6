"""Keys: which are good, whose they are, and what a changing file does."""

from pathlib import Path

import pytest
from dualfocus_server.keys import KeyRing
from starlette.datastructures import Headers


def owner(ring: KeyRing, value: str) -> str | None:
    return ring.owner(Headers({"authorization": value}))


def test_no_keys_are_needed_where_none_are_set() -> None:
    assert not KeyRing().is_needed
    assert not KeyRing([""]).is_needed


def test_an_empty_file_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# nobody yet\n")
    ring = KeyRing(file=tmp_path / "keys")
    assert ring.is_needed
    assert owner(ring, "Bearer ") is None
    assert owner(ring, "Bearer # nobody yet") is None


@pytest.mark.parametrize("value", ["Bearer good", "bearer good", "BEARER  good "])
def test_the_scheme_is_read_as_http_has_it(value: str) -> None:
    assert owner(KeyRing(["good"]), value) is not None


@pytest.mark.parametrize("value", ["", "good", "Basic good", "Bearer", "Bearer Good", "Bearer good x", "Token good"])
def test_anything_else_is_no_key(value: str) -> None:
    assert owner(KeyRing(["good"]), value) is None


def test_an_owner_is_named_without_its_key() -> None:
    ring = KeyRing(["one", "two"])
    names = {owner(ring, "Bearer one"), owner(ring, "Bearer two")}
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
    path.unlink()
    assert owner(ring, "Bearer good") is not None
    assert "can't be read" in caplog.text
    assert "good" not in caplog.text.replace("good;", "")
