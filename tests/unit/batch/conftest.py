"""What all tests of `dualfocus batch` ask."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dualfocus_client import asking

from ..local_web import serving
from .model import ROUTES, Folder, Form, Model, OpenAIForm, OwnForm


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.01)


@pytest.fixture
def model() -> Iterator[Model]:
    model = Model()
    with serving(dict.fromkeys(ROUTES, model.page)) as web:
        model.address = web.address
        yield model


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture(params=[OwnForm(), OpenAIForm()], ids=["own", "openai"])
def form(request: pytest.FixtureRequest) -> Form:
    """Either format of lines: what a test does with it holds for both."""
    return request.param  # type: ignore[no-any-return]
