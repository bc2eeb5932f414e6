"""A folder that is written aside and takes its name only once it is whole; weights in shards."""

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from dualfocus_engine.errors import ConfigError

# Held in memory at once, and more only where one weight is larger.
_SHARD_BYTES = 256 << 20


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Give `TARGET.part` to write to, and rename it to `target` at the end; on an error nothing is left.

    What a run that was killed left there goes first. Raises ConfigError where the target exists or can't be written.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(f"{target}: it exists already. Name another folder, or remove it.")
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        part.replace(target)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{target}: {_why(error)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_space(folder: Path, needed: int) -> None:
    """Raise ConfigError where a folder's disk has less than `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"{folder}: the disk has {free / 1e9:.1f} GB free, the converted model needs {needed / 1e9:.1f} GB. "
            "Make room, or name a target on another disk."
        )


def _why(error: Exception) -> str:
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return "the disk is full. Make room, or name a target on another disk; nothing was kept."
    return f"it can't be written: {error}. Nothing was kept."


class ShardWriter:
    """Writes weights to numbered files with an index, so that few are in memory at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[str, torch.Tensor] = {}
        self._files: list[list[str]] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._bytes = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Take one more weight. Raises OSError or SafetensorError where a file can't be written."""
        if name in self.shapes:
            raise ConfigError(f"The weight {name} is there twice.")
        if self._waiting and sum(map(_size, self._waiting.values())) + _size(tensor) > _SHARD_BYTES:
            self.flush()
        self._waiting[name] = tensor.contiguous()
        self.shapes[name] = tuple(tensor.shape)
        self._bytes += _size(tensor)
        if _size(tensor) > _SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits, so that it is held no longer."""
        if self._waiting:
            self._files.append(list(self._waiting))
            save_file(self._waiting, self._folder / _part_name(len(self._files)), metadata={"format": "pt"})
            self._waiting = {}

    def finish(self) -> None:
        """Write what waits and the index, once the number of files is known."""
        self.flush()
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._files, 1):
            file = f"model-{number:05}-of-{len(self._files):05}.safetensors"
            (self._folder / _part_name(number)).replace(self._folder / file)
            weight_map |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": self._bytes}, "weight_map": dict(sorted(weight_map.items()))}
        (self._folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _part_name(number: int) -> str:
    return f"part-{number:05}"


def _size(tensor: torch.Tensor) -> int:
    return int(tensor.nbytes)
