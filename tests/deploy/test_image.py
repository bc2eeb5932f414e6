"""The `cpu` image, really built and asked a question: minutes, so in CI or where it is asked for."""

import os
from pathlib import Path

import pytest

from deploy import image_check


def test_files_that_pip_is_configured_with_are_given_to_the_build(tmp_path: Path) -> None:
    wheels, simple, more = (tmp_path / name for name in ("wheels", "index/simple", "more places/simple"))
    for folder in (wheels, simple, more):
        folder.mkdir(parents=True)
    settings = {
        "find-links": f"{wheels}\n/nothing/there",
        "extra-index-url": f"{simple.as_uri()} {more.as_uri()} https://index.test/simple",
        "cert": "/nothing/there.pem",
    }
    assert image_check.local_places(settings) == sorted([wheels, simple.parent, more.parent])


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert str(image_check.what_is_missing()).startswith("buildah, runc, debootstrap not installed")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert image_check.what_is_missing() == "root is needed to build in a chroot"


def test_the_image_is_built_and_answers() -> None:
    if os.environ.get("CI") != "true" and not os.environ.get("DUALFOCUS_IMAGE_CHECK"):
        pytest.skip("SKIPPED, UNTESTED: the image takes minutes to build; DUALFOCUS_IMAGE_CHECK=1 or make image-check")
    if why := image_check.what_is_missing():
        pytest.skip(f"SKIPPED, UNTESTED: the image can't be built: {why}")
    assert image_check.main([]) == 0
