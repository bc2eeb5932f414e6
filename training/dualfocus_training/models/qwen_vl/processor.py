"""Texts and pictures as Qwen-VL takes them, with the interface that transformers' processors have."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dualfocus_engine.conversion.reading import read_json
from dualfocus_engine.models.qwen_vl_tokenizer import QWenTokenizer
from PIL import Image
from torch import Tensor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from dualfocus_training.models.qwen_vl.shape import PICTURE_TOKENS, Shape

_PICTURE = "<img></img>"
_SHOWN = f"<img>{'<imgpad>' * PICTURE_TOKENS}</img>"
# What stands beside the weights; the code is carried along and never run.
_BESIDE = ("*.tiktoken", "tokenizer_config.json", "generation_config.json", "*.py")


class QwenVLProcessor:
    """The processor of a checkpoint in the original layout."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._side = Shape.from_config(read_json(folder / "config.json")).vision.side
        self.tokenizer: Any = QWenTokenizer.from_pretrained(folder)

    def apply_chat_template(self, messages: Sequence[Any], **options: Any) -> str:
        """The conversation as text; pictures are numbered through it."""
        text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, **options)
        return text

    def __call__(self, text: str, images: Sequence[Image.Image] = (), **_: Any) -> dict[str, Tensor]:
        """Tokens, with 256 for each picture, and pixels (pictures, 3, side, side) where there are pictures."""
        tokens = self.tokenizer(text.replace(_PICTURE, _SHOWN), return_tensors="pt")
        pixels = {"pixel_values": torch.stack([self._pixels(image) for image in images])} if images else {}
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"], **pixels}

    def _pixels(self, image: Image.Image) -> Tensor:
        """Resized to a square, whatever its shape, and normalised as CLIP's pictures are."""
        square = image.convert("RGB").resize((self._side, self._side), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1) / 255
        mean, deviation = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)
        normal: Tensor = (pixels - mean[:, None, None]) / deviation[:, None, None]
        return normal

    def save_pretrained(self, folder: Path) -> None:
        """Copy what stands beside the weights."""
        for pattern in _BESIDE:
            for file in self._folder.glob(pattern):
                shutil.copy(file, folder / file.name)
