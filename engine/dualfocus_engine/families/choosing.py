"""Which profile a model is served with, and why: the one named, else the model's own, else its architecture's."""

import json
import logging
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dualfocus_engine.errors import ConfigError
from dualfocus_engine.families.profiles import Profile, is_file, load_profile, profile_names

logger = logging.getLogger(__name__)
# What a model is asked in whose architecture no profile names: the paper's words.
OTHERS_PROFILE = "paper"
# What models of an architecture are served with that are of another kind than its profile is for: as they are.
_OTHER_KINDS_PROFILE = "no-grounding"
PROFILE_FILE = "dualfocus.yaml"
_CONFIG_FILE = "config.json"


class ChosenProfile(NamedTuple):
    """A profile, and why it was taken."""

    profile: Profile
    why: str


class _Trait(NamedTuple):
    """What a part of config.json says of the models that a profile is for; `unset` is what transformers takes there."""

    part: str
    name: str
    values: Container[Any]
    unset: Any

    def holds(self, config: Mapping[str, Any]) -> bool:
        part = config.get(self.part)
        # What is left out whole, transformers takes to be LLaVA-1.5's.
        return not isinstance(part, Mapping) or part.get(self.name, self.unset) in self.values


# Of profiles whose architecture other models have too. Pixtral, LLaVA-Interleave and LLaVA-Llama-3 have LLaVA-1.5's,
# but not its conversation (Vicuna's); the first two show pictures otherwise too.
_KINDS: Mapping[str, Sequence[_Trait]] = {
    "llava-dualfocus": (
        _Trait("vision_config", "model_type", ("clip_vision_model",), "clip_vision_model"),
        _Trait("vision_config", "image_size", (336,), 224),
        _Trait("text_config", "model_type", ("llama",), "llama"),
        _Trait("text_config", "vocab_size", range(32_000, 33_000), 32_000),  # LLaMA's, with a few tokens more
    )
}


def profile_of(
    model: str, name: str | None = None, revision: str | None = None, token: bool | str | None = None
) -> Profile:
    """Return the profile that `choose_profile` takes. Raises ConfigError."""
    return choose_profile(model, name, revision, token).profile


def choose_profile(
    model: str, name: str | None = None, revision: str | None = None, token: bool | str | None = None
) -> ChosenProfile:
    """Choose the profile for a model: a folder, or a name on the hub at a revision, which may want a token.

    A model's own profile is the file `dualfocus.yaml` beside its config.json. Raises ConfigError where the profile
    can't be used, or the model's config.json can't be read.
    """
    if name is not None:
        return ChosenProfile(load_profile(name), "it was named")
    if (own := _file_of(model, PROFILE_FILE, revision, token)) is not None:
        return ChosenProfile(load_profile(str(own)), f"the model's own {PROFILE_FILE}")
    config = _config(model, revision, token)
    architectures = config["architectures"]
    of = f"the model's architecture is {', '.join(architectures) or 'not named'}"
    for shipped in map(load_profile, profile_names()):
        if set(shipped.architectures) & set(architectures):
            return _of_its_kind(shipped, config, of)
    why = f"{of}, for which there is no profile: whether it writes boxes is not known, `dualfocus check` tells"
    return ChosenProfile(load_profile(OTHERS_PROFILE), why)


def _config(model: str, revision: str | None, token: bool | str | None) -> Mapping[str, Any]:
    """Return a model's config.json, its architectures as a list. Raises ConfigError where it can't be read."""
    file = _file_of(model, _CONFIG_FILE, revision, token)
    if file is None:
        raise ConfigError(f"{model}: there is no {_CONFIG_FILE} that can be read. A model without one needs --profile.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        return {**config, "architectures": [str(name) for name in config.get("architectures") or []]}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{model}: its {_CONFIG_FILE} can't be read: {error}") from error


def _of_its_kind(shipped: Profile, config: Mapping[str, Any], of: str) -> ChosenProfile:
    other = next((trait for trait in _KINDS.get(shipped.name, ()) if not trait.holds(config)), None)
    if other is None:
        return ChosenProfile(shipped, of)
    why = f"{of}, but {other.part}.{other.name} in {_CONFIG_FILE} is of another kind than {shipped.name} is for"
    return ChosenProfile(load_profile(_OTHER_KINDS_PROFILE), why)


def _file_of(model: str, name: str, revision: str | None, token: bool | str | None) -> Path | None:
    """Return a file of a model's, from its folder or from the hub at a revision; None where it has none."""
    if is_folder(model):
        return Path(model) / name if is_file(str(Path(model) / name)) else None
    try:
        from huggingface_hub import constants, errors, hf_hub_download
    except ImportError:
        return None
    try:
        return Path(hf_hub_download(model, name, revision=revision, token=token))
    except errors.LocalEntryNotFoundError as error:  # not refused: a machine that is cut off is served what it has
        if not constants.HF_HUB_OFFLINE:
            logger.warning("%s: the hub could not be asked for %s: %s", model, name, error.__cause__)
    except (OSError, ValueError):  # the hub's own errors are OSErrors, a name that is none a ValueError
        pass
    return None


def is_folder(model: str) -> bool:
    """Whether a model is a folder of this machine; else it is a name on the hub."""
    try:
        return Path(model).is_dir()
    except OSError:  # longer than a folder's name can be
        return False
