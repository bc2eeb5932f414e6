"""Weights of a folder, one after another: safetensors or `.bin`, in shards or in one file."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dualfocus_engine.errors import ConfigError

WHOLE = ("model.safetensors", "pytorch_model.bin")
_INDEXES = tuple(f"{name}.index.json" for name in WHOLE)
_ZIP = b"PK\x03\x04"
_DAMAGE = (SafetensorError, RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError)


def read_json(file: Path) -> dict[str, Any]:
    """Return what a JSON file holds. Raises ConfigError where it can't be read or holds no object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{file.parent}: there is no {file.name}.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: it can't be read: {error}. Download it again.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: it holds no JSON object. Download it again.")
    return content


def has_weights(folder: Path) -> bool:
    """Whether a folder holds a model's weights (those of an adapter or a projector alone are none)."""
    return any((folder / name).is_file() for name in (*_INDEXES, *WHOLE))


def shards(folder: Path) -> list[Path]:
    """Return the files that hold a folder's weights, safetensors first. Raises ConfigError where one is missing."""
    for index, whole in zip(_INDEXES, WHOLE, strict=True):
        if (folder / index).is_file():
            files = sorted({folder / name for name in read_json(folder / index).get("weight_map", {}).values()})
        elif (folder / whole).is_file():
            files = [folder / whole]
        else:
            continue
        if missing := [file.name for file in files if not file.is_file()]:
            raise ConfigError(f"{folder}: {', '.join(missing)} is missing, which {index} names. Download it again.")
        return files
    raise ConfigError(f"{folder}: there are no weights: neither {' nor '.join((*_INDEXES, *WHOLE))}.")


def tensors_of(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a file's weights by name, mapped from the disk where its format allows that.

    Pickles are read as tensors alone (`weights_only`). Raises ConfigError where the file can't be read.
    """
    try:
        if _is_mapped(file):
            for name in _names_of(file):
                yield name, _mapped(file, name)
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
            # The largest last, when the others are let go.
            for name in sorted(weights, key=lambda name: weights[name].nbytes):
                yield name, weights.pop(name)
    except _DAMAGE as error:
        raise ConfigError(
            f"{file}: it can't be read as weights: it is cut off or damaged, or it holds more than tensors, which is "
            f"never run. Download it again. ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error


def tensors_in(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a folder's weights by name. Raises ConfigError."""
    for file in shards(folder):
        yield from tensors_of(file)


def names_in(folder: Path) -> set[str]:
    """Return the names of a folder's weights. Raises ConfigError."""
    for index in _INDEXES:
        if (folder / index).is_file():
            return set(read_json(folder / index).get("weight_map", {}))
    return {name for name, _ in tensors_in(folder)}


def _names_of(file: Path) -> list[str]:
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            return sorted(opened.keys())
    return list(torch.load(file, map_location="cpu", weights_only=True, mmap=True))


def _mapped(file: Path, name: str) -> torch.Tensor:
    """Read a weight from a mapping of its own: all that was read of one stays in memory as long as it does."""
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            return opened.get_tensor(name)
    weights: dict[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    return weights[name]


def _is_mapped(file: Path) -> bool:
    """Whether a file can be mapped: safetensors, and the form of `.bin` that torch writes since 1.6."""
    with file.open("rb") as opened:
        return file.suffix == ".safetensors" or opened.read(len(_ZIP)) == _ZIP
