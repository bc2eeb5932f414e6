"""Twenty conversations, macro and micro, put to the original weights and to the converted model."""

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from dualfocus_engine.families.profiles import load_profile
from PIL import Image
from sentencepiece import SentencePieceProcessor
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

from .original import VOCABULARY, tokenizer_model
from .plain_forward import IMAGE, logits

_SYSTEM = load_profile("llava-dualfocus").system
_QUESTIONS = (
    "What color is the dog?", "How many towels are in the image?\nA. One\nB. Two", "Où est le chat ?", "Is it 12:45?",
    "What does the sign say?\nAnswer the question using a single word or phrase.", "两只狗", "Who  is   there?",
    "Which one is left: a cup, a fork?", "[0.1, 0.2]?", "A",
)  # fmt: skip


class Asked(NamedTuple):
    """A prompt as text, and its pictures."""

    text: str
    pictures: list[Image.Image]


def conversations() -> list[Asked]:
    """Ten questions, each as a macro turn and as a micro turn with a crop."""
    return [asked for number, question in enumerate(_QUESTIONS) for asked in _both(question, number)]


def original_logprobs(
    language: Mapping[str, torch.Tensor], tower: Mapping[str, torch.Tensor], asked: Asked
) -> torch.Tensor:
    """Log-probabilities (tokens, vocabulary) by the plain forward, tokenized by the legacy rule."""
    return logits(language, tower, original_ids(asked.text), asked.pictures).log_softmax(-1)


def original_ids(text: str) -> list[int]:
    """LLaVA's tokenizing: cut at special tokens, each text by sentencepiece on its own."""
    pieces = SentencePieceProcessor(model_proto=tokenizer_model())
    special = {"<s>": 1, "</s>": 2, "<image>": IMAGE}
    parts = [part for part in re.split("(<s>|</s>|<image>)", text) if part]
    return [id for part in parts for id in ([special[part]] if part in special else pieces.encode(part))]


def converted_logprobs(folder: Path, asked: Sequence[Asked], dtype: torch.dtype) -> list[torch.Tensor]:
    """The same by the converted model in transformers, over the original vocabulary."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).eval()
    processor = AutoProcessor.from_pretrained(folder)
    # Pillow's resizing, as LLaVA's is; torchvision's is another by a grey level here and there.
    processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    found = []
    for text, pictures in asked:
        inputs = processor(images=pictures, text=text, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            scores = model(**inputs).logits[0, :, :VOCABULARY]
        found.append(scores.float().log_softmax(-1))
    return found


def _both(question: str, seed: int) -> list[Asked]:
    chance = random.Random(seed)
    whole = _picture(chance)
    crop = whole.crop((whole.width // 4, whole.height // 5, whole.width // 2, whole.height // 2))
    turn = f"USER: <image>\nPlease provide the bounding box: {question} ASSISTANT: [0.20, 0.41, 0.37, 0.74]</s>"
    micro = f"{turn}USER: <image>\nPlease combine: {question} ASSISTANT:"
    opening = f"<s>{_SYSTEM} "
    return [Asked(f"{opening}USER: <image>\n{question} ASSISTANT:", [whole]), Asked(opening + micro, [whole, crop])]


def _picture(chance: random.Random) -> Image.Image:
    """Coarse noise of a random size, wide or tall."""
    noise = Image.frombytes("RGB", (4, 3), chance.randbytes(36))
    return noise.resize((chance.randint(40, 200), chance.randint(40, 200)), Image.Resampling.BICUBIC)
