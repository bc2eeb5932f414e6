"""What is to be converted: folders or names on the hub, and what their config.json says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dualfocus_engine.conversion.reading import WHOLE
from dualfocus_engine.errors import ConfigError
from dualfocus_engine.families.choosing import is_folder

_ARCHITECTURES = ("LlavaLlamaForCausalLM", "Share4VLlamaForCausalLM")
_BESIDE = ("*.json", "tokenizer.model", "mm_projector.bin", "non_lora_trainables.bin", "adapter_model.*")


def folder_of(name: str) -> Path:
    """Return the folder of a model: the one named, or what the hub has under the name (downloaded where need be).

    Raises ConfigError where there is neither.
    """
    if is_folder(name):
        return Path(name)
    try:
        from huggingface_hub import snapshot_download

        beside = Path(snapshot_download(name, allow_patterns=[*_BESIDE]))
        return Path(snapshot_download(name, allow_patterns=[*_BESIDE, *_weights_of(beside)]))
    except (OSError, ValueError) as error:  # the hub's own errors are OSErrors, a name that is none a ValueError
        raise ConfigError(
            f"{name}: it is no folder, and the hub can't give it: {str(error).splitlines()[0]}. "
            "Name a folder, or a model on the hub (with HF_TOKEN where it asks for one)."
        ) from error


def _weights_of(folder: Path) -> tuple[str, ...]:
    """Return which files are a model's weights, by its index: repositories may have them in both forms."""
    for whole in WHOLE:
        if (folder / f"{whole}.index.json").is_file():
            stem, _, ending = whole.partition(".")
            return (f"{stem}-*.{ending}",)
    return WHOLE


def check_original(name: str, config: Mapping[str, Any]) -> None:
    """Raise ConfigError where a config.json is not that of a model that can be converted."""
    architectures = config.get("architectures") or []
    if "mm_vision_tower" not in config and "mm_projector_type" not in config:
        served = "it can be served as it is" if "LlavaForConditionalGeneration" in architectures else "it is no LLaVA"
        raise ConfigError(
            f"{name}: its config.json names neither mm_vision_tower nor mm_projector_type, so it is not in LLaVA's "
            f"original format ({', '.join(architectures) or 'no architecture'}): {served}."
        )
    if not set(architectures) & set(_ARCHITECTURES):
        raise ConfigError(f"{name}: {architectures} can't be converted, {' and '.join(_ARCHITECTURES)} can.")
    for field, (accepted, default) in _ACCEPTED.items():
        if (value := config.get(field, default)) not in accepted:
            raise ConfigError(f"{name}: {field} is {value!r} in its config.json; {list(accepted)} can be converted.")
    if is_unpadded(config) and not is_tiled(config):
        raise ConfigError(
            f"{name}: its config.json has mm_patch_merge_type spatial_unpad without image_aspect_ratio anyres: only "
            "LLaVA-1.6, which has both, can be converted."
        )


def is_tiled(config: Mapping[str, Any]) -> bool:
    """Whether pictures are seen in tiles: by LLaVA-1.6 (LLaVA-NeXT) and LLaVA-HighRes."""
    return bool(config.get("image_aspect_ratio") == "anyres")


def is_unpadded(config: Mapping[str, Any]) -> bool:
    """Whether tiles are joined by their place in the picture, by LLaVA-1.6, or one behind the other (LLaVA-HighRes)."""
    return bool(config.get("mm_patch_merge_type") == "spatial_unpad")


# What else LLaVA's code knows needs a model that neither vLLM nor transformers has under this name.
_ACCEPTED: dict[str, tuple[tuple[Any, ...], Any]] = {
    "mm_projector_type": (("mlp2x_gelu",), "linear"),
    "mm_vision_select_feature": (("patch", "cls_patch"), "patch"),
    "mm_use_im_start_end": ((False,), False),
    "mm_use_im_patch_token": ((False,), False),
    "mm_patch_merge_type": (("flat", "spatial_unpad"), "flat"),
    "image_aspect_ratio": (("pad", "anyres"), "pad"),
}
