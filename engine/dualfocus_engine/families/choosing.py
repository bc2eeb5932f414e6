"""Which profile a model is served with, and why: the one named, else the model's own, else its architecture's."""

import json
from pathlib import Path
from typing import NamedTuple

from dualfocus_engine.families.profiles import Profile, is_file, load_profile

# The released checkpoints' architecture and profile, and what a model of any other is asked in.
_RELEASED = "LlavaForConditionalGeneration"
DEFAULT_PROFILE = "llava-dualfocus"
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
    can't be used.
    """
    if name is not None:
        return ChosenProfile(load_profile(name), "it was named")
    if (own := _file_of(model, PROFILE_FILE, revision)) is not None:
        return ChosenProfile(load_profile(str(own)), f"the model's own {PROFILE_FILE}")
    architectures = _architectures(model, revision)
    if architectures is None:
        return ChosenProfile(load_profile(DEFAULT_PROFILE), f"the model's {_CONFIG_FILE} can't be read")
    of = ", ".join(architectures) or "none"
    chosen = DEFAULT_PROFILE if _RELEASED in architectures else OTHERS_PROFILE
    return ChosenProfile(load_profile(chosen), f"the model's architecture is {of}, and it has no {PROFILE_FILE}")


def _architectures(model: str, revision: str | None) -> list[str] | None:
    """Read a model's architectures from its config.json; None where it can't be read.

    Whatever is wrong with it, the engine fetches the same file next and says so.
    """
    file = _file_of(model, _CONFIG_FILE, revision)
    try:
        config = json.loads(file.read_text(encoding="utf-8")) if file is not None else None
        return None if config is None else list(config.get("architectures") or [])
    except (OSError, ValueError, AttributeError, TypeError):
        return None


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
