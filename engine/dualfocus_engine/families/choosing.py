"""Which profile a model is served with, and why: the one named, else the model's own, else its architecture's."""

import json
from pathlib import Path
from typing import NamedTuple

from dualfocus_engine.errors import ConfigError
from dualfocus_engine.families.profiles import Profile, is_file, load_profile, profile_names

# What a model is asked in whose architecture no profile names: the paper's words.
OTHERS_PROFILE = "paper"
PROFILE_FILE = "dualfocus.yaml"
_CONFIG_FILE = "config.json"


class ChosenProfile(NamedTuple):
    """A profile, and why it was taken."""

    profile: Profile
    why: str


def profile_of(model: str, name: str | None = None, revision: str | None = None) -> Profile:
    """Return the profile that `choose_profile` takes. Raises ConfigError."""
    return choose_profile(model, name, revision).profile


def choose_profile(model: str, name: str | None = None, revision: str | None = None) -> ChosenProfile:
    """Choose the profile for a model: a folder, or a name on the hub at a revision.

    A model's own profile is the file `dualfocus.yaml` beside its config.json. Raises ConfigError where the profile
    can't be used, or the model's config.json can't be read.
    """
    if name is not None:
        return ChosenProfile(load_profile(name), "it was named")
    if (own := _file_of(model, PROFILE_FILE, revision)) is not None:
        return ChosenProfile(load_profile(str(own)), f"the model's own {PROFILE_FILE}")
    architectures = _architectures(model, revision)
    of = f"the model's architecture is {', '.join(architectures) or 'not named'}"
    for shipped in map(load_profile, profile_names()):
        if set(shipped.architectures) & set(architectures):
            return ChosenProfile(shipped, of)
    why = f"{of}, for which there is no profile: whether it writes boxes is not known, `dualfocus check` tells"
    return ChosenProfile(load_profile(OTHERS_PROFILE), why)


def _architectures(model: str, revision: str | None) -> list[str]:
    """Return the architectures that a model's config.json names. Raises ConfigError where it can't be read."""
    file = _file_of(model, _CONFIG_FILE, revision)
    if file is None:
        raise ConfigError(f"{model}: there is no {_CONFIG_FILE} that can be read. A model without one needs --profile.")
    try:
        return [str(name) for name in json.loads(file.read_text(encoding="utf-8")).get("architectures") or []]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{model}: its {_CONFIG_FILE} can't be read: {error}") from error


def _file_of(model: str, name: str, revision: str | None) -> Path | None:
    """Return a file of a model's, from its folder or from the hub at a revision; None where it has none."""
    if is_folder(model):
        return Path(model) / name if is_file(str(Path(model) / name)) else None
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(model, name, revision=revision))
    except (ImportError, OSError, ValueError):  # the hub's own errors are OSErrors, a name that is none a ValueError
        return None


def is_folder(model: str) -> bool:
    """Whether a model is a folder of this machine; else it is a name on the hub."""
    try:
        return Path(model).is_dir()
    except OSError:  # longer than a folder's name can be
        return False
