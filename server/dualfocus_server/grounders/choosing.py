"""Which grounder `--grounder` names."""

import inspect
from importlib.metadata import entry_points
from typing import Any

from dualfocus_engine import ConfigError, Grounder, Profile
from dualfocus_engine.grounders.grounding_dino import DEFAULT_MODEL, GroundingDino

from dualfocus_server.grounders.http_grounder import HttpGrounder
from dualfocus_server.grounders.model_grounder import ModelGrounder

_GROUP = "dualfocus.grounders"


def make_grounder(name: str, device: str, profile: Profile) -> Grounder:
    """Return the grounder of a name, NAME or NAME:ARGUMENT; `device` is GroundingDINO's, `profile` that of `model:`.

    Other names are those of the entry points in the group `dualfocus.grounders`: classes, given the argument where
    there is one. Raises ConfigError.
    """
    kind, _, argument = name.partition(":")
    if kind == "grounding-dino":
        return GroundingDino(argument or DEFAULT_MODEL, device)
    if kind == "http":
        return HttpGrounder(argument)
    if kind == "model":
        return ModelGrounder(argument, profile)
    return _registered(kind, argument)


def _registered(name: str, argument: str) -> Grounder:
    """Return a grounder of somebody else's. Raises ConfigError."""
    found = {entry.name: entry for entry in entry_points(group=_GROUP)}
    if name not in found:
        others = "".join(f", {other}" for other in sorted(found))
        raise ConfigError(f"No --grounder {name!r}: give grounding-dino[:MODEL], http:URL, model:URL{others}.")
    try:
        grounder: Any = found[name].load()(*([argument] if argument else []))
    except Exception as error:  # it may be anything's
        raise ConfigError(f"--grounder {name} can't be made: {type(error).__name__}: {error}") from error
    if not inspect.iscoroutinefunction(getattr(grounder, "locate", None)):
        raise ConfigError(f"--grounder {name}: {type(grounder).__name__} has no `async def locate(picture, question)`.")
    made: Grounder = grounder
    return made
