"""A checkpoint in LLaVA's original format, written as a folder that vLLM and transformers load."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import GenerationConfig, LlavaNextConfig

from dualfocus_engine.conversion.adapters import Changes, read_changes
from dualfocus_engine.conversion.configs import Config, build_processor, converted_config, expected_shapes, is_high_res
from dualfocus_engine.conversion.names import NEWLINE, PER_TOKEN, TOWER, from_original
from dualfocus_engine.conversion.reading import names_in, read_json, shards, tensors_of
from dualfocus_engine.conversion.sources import check_original, folder_of
from dualfocus_engine.conversion.tokens import CheckedPrompt, check_prompts, fast_tokenizer, read_pieces
from dualfocus_engine.conversion.tower import INSIDE, Tower, choose_tower
from dualfocus_engine.conversion.writing import ShardWriter, check_space, written_aside
from dualfocus_engine.errors import ConfigError
from dualfocus_engine.families.choosing import PROFILE_FILE
from dualfocus_engine.families.profiles import load_profile, shipped_profile

# Whose conversation, vicuna v1, all that can be converted were trained in.
_PROFILE = "llava-dualfocus"
_NEXT_PROFILE = "llava-next"
_HIGH_RES_PROFILE = "fifth-patch"
_COLUMNS = 64


@dataclass(frozen=True)
class Plan:
    """All that is known of a conversion before a weight is written."""

    weights: Path
    changes: Changes
    config: Config
    tower: Tower
    prompts: list[CheckedPrompt]
    processor: Any
    shapes: dict[str, tuple[int, ...]]

    @property
    def bytes(self) -> int:
        """Bytes of the weights as they will be written."""
        numbers = sum(torch.Size(shape).numel() for shape in self.shapes.values())
        return int(numbers * self.config.dtype.itemsize)


def plan(source: str, base: str | None = None, vision_tower: str | None = None) -> Plan:
    """Find all that `source` needs, a folder or a name on the hub. Raises ConfigError naming what is wrong."""
    folder = folder_of(source)
    original = read_json(folder / "config.json")
    check_original(source, original)
    changes = read_changes(folder)
    weights = _weights_folder(source, folder, changes, base)
    tower = choose_tower(weights, original, vision_tower)
    if vision_tower is None and changes is not None:
        _check_tower(source, tower, changes)
    config = converted_config(original, tower.config)
    _check_rows(source, weights, config)
    pieces = read_pieces(folder if (folder / "tokenizer.model").is_file() else weights, config.image_token_index)
    profile = load_profile(_PROFILE)
    tokenizer = fast_tokenizer(pieces, profile.chat_template or "")
    prompts = check_prompts(pieces, tokenizer, profile)
    if wrong := [prompt.name for prompt in prompts if not prompt.same]:
        raise ConfigError(
            f"{source}: its tokenizer can't be converted: other ids for the prompt of {', '.join(wrong)}."
        )
    processor = build_processor(tokenizer, config)
    return Plan(weights, changes or Changes(), config, tower, prompts, processor, expected_shapes(config))


def convert(planned: Plan, target: Path, progress: Callable[[int], object]) -> None:
    """Write a planned model to `target`, which is there only once it is whole.

    `progress` is told the bytes of each weight as it is written. Raises ConfigError.
    """
    with written_aside(target) as part:
        check_space(part, planned.bytes)
        writer = ShardWriter(part)
        for name, tensor in _published(planned, writer.flush):
            writer.add(name, tensor)
            progress(tensor.nbytes)
            del tensor  # it would be held while the next one is made
        _check_whole(planned.shapes, writer.shapes)
        writer.finish()
        _write_settings(planned, part)


def _weights_folder(source: str, folder: Path, changes: Changes | None, base: str | None) -> Path:
    if changes is None:
        if base is not None:
            raise ConfigError(f"{source}: it is a whole model, --base is for an adapter or a projector alone.")
        return folder
    if base is None:
        raise ConfigError(
            f"{source}: it holds an adapter or a projector alone: name the model it was trained on, --base."
        )
    return folder_of(base)


def _check_tower(source: str, tower: Tower, changes: Changes) -> None:
    """Raise ConfigError where a folder changes a vision tower in its base, and another is to be taken."""
    changed = next((name for name in (*changes.replaced, *changes.deltas) if name.startswith(INSIDE)), None)
    if tower.folder is not None and changed is not None:
        raise ConfigError(
            f"{source}: it changes the vision tower ({changed}), but the tower is {tower.folder}'s: {tower.why}. "
            "Merge it with its base by the code it was trained with, or name a tower with --vision-tower."
        )


def _check_rows(source: str, weights: Path, config: Config) -> None:
    """Raise ConfigError where patches are joined flat, while the weights close their rows: one of both is wrong."""
    if is_high_res(config) and f"model.{NEWLINE}" in names_in(weights):
        raise ConfigError(
            f"{source}: its config.json has image_aspect_ratio anyres, so patches joined flat, and its weights hold "
            f"model.{NEWLINE}. LLaVA-1.6's config.json has mm_patch_merge_type spatial_unpad besides."
        )


def _published(planned: Plan, shard_read: Callable[[], None]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield all weights as they are to be written; `shard_read` is called where none of a file is needed any more."""
    for name, tensor in _original(planned, shard_read):
        try:
            published = from_original(name)
        except KeyError as error:
            raise ConfigError(
                f"{planned.weights}: {error} is no weight of LLaVA's. Other models can't be converted."
            ) from error
        if published is None or (published.startswith(TOWER) and planned.tower.folder is not None):
            continue
        dtype, rows = planned.config.dtype, planned.config.text_config.vocab_size
        yield published, (_with_rows(tensor, rows, dtype) if published in PER_TOKEN else tensor.to(dtype))
    for name, tensor in planned.tower.tensors():
        yield name, tensor.to(planned.config.dtype)
    shard_read()


def _original(planned: Plan, shard_read: Callable[[], None]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights by LLaVA's names, with what an adapter or a projector changes."""
    changes, seen = planned.changes, set()
    for file in shards(planned.weights):
        for name, tensor in tensors_of(file):
            seen.add(name)
            if name not in changes.replaced:
                yield name, changes.apply(name, tensor)
        shard_read()
    changes.check_met(seen)
    yield from changes.replaced.items()


def _with_rows(tensor: torch.Tensor, rows: int, dtype: torch.dtype) -> torch.Tensor:
    """Return a matrix with rows added that are the mean of those it has: the same whenever it is done."""
    if (known := len(tensor)) >= rows:
        return tensor.to(dtype)
    longer = tensor.new_empty((rows, tensor.shape[1]), dtype=dtype)
    longer[:known] = tensor
    parts = longer[:known].split(_COLUMNS, dim=1)
    longer[known:] = torch.cat([columns.double().mean(0) for columns in parts]).to(dtype)
    return longer


def _check_whole(expected: dict[str, tuple[int, ...]], written: dict[str, tuple[int, ...]]) -> None:
    """Raise ConfigError where a weight is missing, too many, or of another shape than config.json says."""
    for name in sorted(expected.keys() | written.keys()):
        if expected.get(name) != written.get(name):
            wanted, found = expected.get(name, "none"), written.get(name, "none")
            raise ConfigError(f"The checkpoint does not fit its config.json: {name} should be {wanted}, it is {found}.")


def _write_settings(planned: Plan, folder: Path) -> None:
    """Write what stands beside the weights; config.json, without which no folder is taken for a model, last."""
    planned.processor.save_pretrained(folder)
    _name_any_backend(folder / "processor_config.json")
    (folder / PROFILE_FILE).write_text(_profile_text(planned.config), encoding="utf-8")
    text = planned.config.text_config
    ids = {"bos_token_id": text.bos_token_id, "eos_token_id": text.eos_token_id, "pad_token_id": text.pad_token_id}
    GenerationConfig(**ids).save_pretrained(folder)
    planned.config.save_pretrained(folder)


def _profile_text(config: Config) -> str:
    """Return the profile; LLaVA-NeXT's has the conversation's form from here, since its checkpoints have several."""
    if is_high_res(config):
        return shipped_profile(_HIGH_RES_PROFILE)
    if not isinstance(config, LlavaNextConfig):
        return shipped_profile(_PROFILE)
    vicuna = load_profile(_PROFILE)
    form = {"system": vicuna.system, "chat_template": vicuna.chat_template}
    return f"{shipped_profile(_NEXT_PROFILE)}{yaml.safe_dump(form, sort_keys=False)}"


def _name_any_backend(file: Path) -> None:
    """Name the image processor without the form it was built in: loaders take the one that is installed."""
    settings = read_json(file)
    images = settings["image_processor"]
    images["image_processor_type"] = images["image_processor_type"].removesuffix("Pil")
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
