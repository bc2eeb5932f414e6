"""Models to go on from: any image-text model of transformers, or a Qwen-VL in its original layout."""

from pathlib import Path
from typing import Any

import torch
from dualfocus_engine.conversion.reading import read_json
from huggingface_hub import snapshot_download
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import cached_file

from dualfocus_training.models.qwen_vl.model import QwenVL
from dualfocus_training.models.qwen_vl.processor import QwenVLProcessor
from dualfocus_training.models.qwen_vl.shape import is_qwen_vl


def load_processor(base: str) -> Any:
    """The processor of a model: a folder, or a name on the hub."""
    folder = _qwen_vl_folder(base)
    return QwenVLProcessor(folder) if folder else AutoProcessor.from_pretrained(base)


def load_model(base: str) -> nn.Module:
    """The model, in 32 bits."""
    folder = _qwen_vl_folder(base)
    if folder:
        return QwenVL.from_pretrained(folder)
    model: nn.Module = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    return model


def _qwen_vl_folder(base: str) -> Path | None:
    """The folder of a Qwen-VL, downloaded where need be; None of a model that transformers has."""
    if not is_qwen_vl(read_json(Path(cached_file(base, "config.json")))):
        return None
    return Path(base) if Path(base).is_dir() else Path(snapshot_download(base))
