"""Twenty conversations with one and two pictures, as Qwen-VL-Chat is asked, and what the plain forward says of them."""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tiktoken
import torch
from PIL import Image

from tests.engine.qwen_vl.original import PIECES, QUERIES, SPECIAL_IDS, ranks
from tests.engine.qwen_vl.plain_forward import logits

_QUESTIONS = (
    "What color is the sign?", "How many people are there?\nA. One\nB. Two", "Où est le chat ?", "Is it 12:45?",
    "What does it say?\nAnswer the question using a single word or phrase.", "两个人", "Who  is   there?", "A",
    "Which one is left: a cup, a fork?", "Where is <ref>the dog</ref>?",
)  # fmt: skip
_PICTURE = (SPECIAL_IDS["<img>"], SPECIAL_IDS["</img>"])


class Asked(NamedTuple):
    """A prompt as text, and its pictures."""

    text: str
    pictures: list[Image.Image]


def conversations() -> list[Asked]:
    """Ten questions, each as a macro turn and as a micro turn with a crop."""
    return [asked for seed, question in enumerate(_QUESTIONS) for asked in _both(question, random.Random(seed))]


def original_ids(text: str) -> list[int]:
    """Token ids by tiktoken, with 256 tokens for each picture between its own two."""
    reference = tiktoken.Encoding("qwen", pat_str=PIECES, mergeable_ranks=ranks(), special_tokens=SPECIAL_IDS)
    ids = reference.encode(text, allowed_special="all")
    shown = [SPECIAL_IDS["<imgpad>"]] * QUERIES
    return [one for id in ids for one in ([*shown, id] if id == _PICTURE[1] else [id])]


def original_logprobs(weights: Mapping[str, torch.Tensor], asked: Asked) -> torch.Tensor:
    """Log-probabilities of a prompt's tokens after the first, by the plain forward in 32 bits."""
    return logprobs(weights, original_ids(asked.text), asked.pictures)


def logprobs(weights: Mapping[str, torch.Tensor], ids: Sequence[int], pictures: Sequence[Image.Image]) -> torch.Tensor:
    """The same of token ids."""
    wide = {name: tensor.float() for name, tensor in weights.items()}
    scores = logits(wide, ids, pictures).log_softmax(-1)
    return scores[torch.arange(len(ids) - 1), list(ids[1:])]


def _both(question: str, chance: random.Random) -> Sequence[Asked]:
    whole = _picture(chance)
    crop = whole.crop((whole.width // 4, whole.height // 5, whole.width // 2, whole.height // 2))
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    macro = f"<|im_start|>user\nPicture 1: <img></img>\n{question}<|im_end|>\n<|im_start|>assistant\n"
    micro = (
        f"<|im_start|>user\nPicture 1: <img></img>\nProvide the coordinates: {question}<|im_end|>\n"
        "<|im_start|>assistant\n<ref>region</ref><box>(250,200),(500,500)</box><|im_end|>\n"
        f"<|im_start|>user\nPicture 2: <img></img>\nCombine these two: {question}<|im_end|>\n<|im_start|>assistant\n"
    )
    return Asked(system + macro, [whole]), Asked(system + micro, [whole, crop])


def _picture(chance: random.Random) -> Image.Image:
    """Coarse noise of a random size, wide or tall."""
    noise = Image.frombytes("RGB", (4, 3), chance.randbytes(36))
    return noise.resize((chance.randint(40, 600), chance.randint(40, 600)), Image.Resampling.BICUBIC)
