"""Pictures as embeddings (`image_embeds`): judged before vLLM reads them, for which what they claim is true.

Leans on vLLM 0.32's `ImageEmbeddingMediaIO`: base64 of what `torch.save` or `numpy.save` wrote, read with
`weights_only=True` and without pickles; on `get_inputs_embeds_size`, and on the fields of Qwen's embeddings. What is
refused here beside what can't be read ends vLLM's engine.
"""

import hashlib
import io
import math
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, cast

import numpy as np
import pybase64
import torch
from dualfocus_engine import BadPicture
from pydantic_core import to_json
from vllm.config import ModelConfig

Embeddings: TypeAlias = str | Mapping[str, Any]

_NAME, _GRID, _AXES = "image_embeds", "image_grid_thw", 3
_NUMPY = b"\x93NUMPY"
_NUMBERS = (torch.float32, torch.float16, torch.bfloat16)


def check_embeddings(given: Iterable[Embeddings], config: ModelConfig) -> None:
    """Judge a request's embeddings: a tensor of a row for each image token, or with its `image_grid_thw`.

    Raises BadPicture where one is not what it claims. Without `--enable-mm-embeds` vLLM refuses them unread.
    """
    if not config.multimodal_config.enable_mm_embeds:
        return
    for value in given:
        tensor = _numbers(value if isinstance(value, str) else value[_NAME])
        if tensor.shape[-1] != (size := config.get_inputs_embeds_size()):
            raise BadPicture(f"A row of image_embeds must have the model's {size} numbers, not {tensor.shape[-1]}.")
        if not isinstance(value, str):
            vision = getattr(config.hf_config, "vision_config", None)
            _check_grid(value, tensor, getattr(vision, "spatial_merge_size", 1))


def embeddings_key(value: Embeddings, salt: str | None) -> str:
    """Return what embeddings are called in vLLM's caches: their content, hashed with the salt."""
    return f"embeddings-{hashlib.blake2b(to_json([salt, value]), digest_size=16).hexdigest()}"


def _numbers(encoded: str) -> torch.Tensor:
    tensor = _read(encoded)
    is_plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.requires_grad
    if not is_plain or tensor.dtype not in _NUMBERS:
        raise BadPicture("image_embeds must be a dense tensor of float32, float16 or bfloat16, without gradients.")
    if tensor.dim() not in (2, 3) or (tensor.dim() == 3 and len(tensor) != 1):
        raise BadPicture("image_embeds must have a row for each image token: (tokens, size) or (1, tokens, size).")
    if not 0 < tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes():
        raise BadPicture("image_embeds must hold a number for each place of its shape.")
    return tensor


def _check_grid(value: Mapping[str, Any], tensor: torch.Tensor, merge: int) -> None:
    """Raise BadPicture over fields beside a tensor that vLLM's engine would believe, and end."""
    grid = value.get(_GRID)
    if value.keys() != {_NAME, _GRID} or not isinstance(grid, list):
        raise BadPicture(f"An object of image_embeds must have a tensor as {_NAME} and a list as {_GRID}, and no more.")
    is_grid = len(grid) == _AXES and all(type(side) is int and side > 0 for side in grid) and grid[0] == 1
    patches = len(tensor) * merge**2 if tensor.dim() == 2 else 0
    if not is_grid or any(side % merge for side in grid[1:]) or math.prod(grid) != patches:
        raise BadPicture(
            f"{_GRID} must be [1, rows, columns] of patches, {merge}x{merge} of them for each row of its image_embeds, "
            "which must be of the shape (tokens, size)."
        )


def _read(encoded: str) -> torch.Tensor:
    try:
        data = pybase64.b64decode(encoded, validate=True)
        return _from_numpy(data) if data.startswith(_NUMPY) else _from_torch(data)
    except Exception as error:  # of whatever make: pickle's, zipfile's, torch's
        raise BadPicture(f"image_embeds holds no tensor that can be read: {error}") from error


def _from_numpy(data: bytes) -> torch.Tensor:
    file, npy = io.BytesIO(data), cast("Any", np.lib.format)  # without types
    read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise TypeError("it holds other objects than numbers")
    if int(np.prod(shape, dtype=object)) * dtype.itemsize != len(data) - file.tell():
        raise ValueError("its header claims another size")
    return torch.from_numpy(np.load(io.BytesIO(data), allow_pickle=False))


def _from_torch(data: bytes) -> torch.Tensor:
    with zipfile.ZipFile(io.BytesIO(data)) as packed:  # what torch.save writes, never compressed
        if sum(entry.file_size for entry in packed.infolist()) > len(data):
            raise ValueError("it is larger unpacked")
    try:
        tensor = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError:  # whose words are a page, for who trusts the file
        raise TypeError("it holds other objects than tensors") from None
    if type(tensor) is not torch.Tensor or tensor.is_nested:
        raise TypeError(f"it is a {type(tensor).__name__}")
    return tensor
