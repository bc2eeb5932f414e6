"""Which grounder a name means."""

from importlib.metadata import EntryPoint
from typing import Any

import pytest
from dualfocus_engine import Box, ConfigError, load_profile
from dualfocus_engine.grounders.grounding_dino import DEFAULT_MODEL, GroundingDino
from dualfocus_server.grounders import choosing
from dualfocus_server.grounders.http_grounder import HttpGrounder
from dualfocus_server.grounders.model_grounder import ModelGrounder
from dualfocus_server.startup import prepared
from dualfocus_server.startup.arguments import parse_arguments
from PIL import Image

PROFILE = load_profile("paper")


class Middle:
    """Somebody's grounder."""

    def __init__(self, share: str = "0.5") -> None:
        self.share = float(share)

    async def locate(self, picture: Image.Image, question: str) -> Box | None:
        return None


class Wordless:
    """What is no grounder."""


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {name: EntryPoint(name, f"{__name__}:{made}", "dualfocus.grounders") for name, made in OTHERS.items()}
    monkeypatch.setattr(choosing, "entry_points", lambda group: named.values() if group == choosing._GROUP else [])


OTHERS = {"middle": "Middle", "wordless": "Wordless", "missing": "Missing"}


@pytest.mark.parametrize(("name", "share"), [("middle", 0.5), ("middle:0.25", 0.25)])
def test_a_registered_class_is_made_with_its_argument(name: str, share: float) -> None:
    grounder: Any = choosing.make_grounder(name, "cpu", PROFILE)
    assert isinstance(grounder, Middle)
    assert grounder.share == share


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nobody", r"No --grounder 'nobody': .*http:URL, model:URL, middle, missing, wordless"),
        ("", "No --grounder ''"),
        ("https://host/locate", "No --grounder 'https'"),
        ("wordless", "has no `async def locate"),
        ("missing", "can't be made: AttributeError"),
        ("middle:half", "can't be made: ValueError"),
        ("http://host/locate", "expected http:http://HOST"),
    ],
)
def test_what_is_no_grounder_is_said(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        choosing.make_grounder(name, "cpu", PROFILE)


@pytest.mark.parametrize(
    ("name", "model"), [("grounding-dino", DEFAULT_MODEL), ("grounding-dino:/a/folder", "/a/folder")]
)
def test_grounding_dino_takes_a_model_and_a_device(name: str, model: str) -> None:
    grounder = choosing.make_grounder(name, "cuda:1", PROFILE)
    assert isinstance(grounder, GroundingDino)
    assert (grounder._model, grounder._device) == (model, "cuda:1")


def test_flags_choose_the_profile_that_another_model_is_asked_in() -> None:
    args = parse_arguments(["--grounder", "model:http://host/v1"])
    own = prepared._make_grounder(args, PROFILE)
    assert isinstance(own, ModelGrounder)
    assert own._profile is PROFILE
    args = parse_arguments(["--grounder", "model:http://host/v1", "--grounder-profile", "qwen3-vl"])
    other = prepared._make_grounder(args, PROFILE)
    assert isinstance(other, ModelGrounder)
    assert other._profile.name == "qwen3-vl"
    assert isinstance(
        prepared._make_grounder(parse_arguments(["--grounder", "http:http://host"]), PROFILE), HttpGrounder
    )
    assert prepared._make_grounder(parse_arguments([]), PROFILE) is None


def test_start_up_says_that_the_model_is_not_asked_where_to_look() -> None:
    args = parse_arguments(["--grounder", "middle"])
    notes = list(prepared._notes(load_profile("no-grounding"), args))
    assert any("the grounder says" in note for note in notes)
    assert not any("can't say where something is" in note for note in notes)


async def test_one_that_is_a_context_manager_is_entered_and_left() -> None:
    done: list[str] = []

    class Managed(Middle):
        async def __aenter__(self) -> None:
            done.append("entered")

        async def __aexit__(self, *error: object) -> None:
            done.append("left")

    async with prepared.running(Managed()):
        assert done == ["entered"]
    assert done == ["entered", "left"]
    async with prepared.running(Middle()), prepared.running(None):
        pass
