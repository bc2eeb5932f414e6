"""An exported model, asked through transformers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from dualfocus_engine.families.choosing import profile_of
from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.method.perplexity import mean_nll, perplexity
from dualfocus_engine.pictures.fitting import fit
from dualfocus_eval.report.outcomes import Said
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from dualfocus_training.learning.conversations import Message

_BATCH = 32
# Enough for an answer, and for a box.
_MOST_TOKENS = 24


@dataclass(frozen=True)
class Turn:
    """A conversation to continue, and the pictures in it."""

    messages: list[Message]
    pictures: list[Image.Image]


class Looker:
    """An exported model that answers turns in batches, greedily; each conversation begins with `system` if given."""

    def __init__(self, folder: Path, system: str | None = None) -> None:
        self._system: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        self.profile: Profile = profile_of(str(folder))
        self._processor = AutoProcessor.from_pretrained(folder)
        self._model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(self, turns: Sequence[Turn], most_tokens: int = _MOST_TOKENS) -> list[Said]:
        """Each turn's answer."""
        answers: list[Said] = []
        for start in range(0, len(turns), _BATCH):
            answers += self._answer(turns[start : start + _BATCH], most_tokens)
        return answers

    def _answer(self, turns: Sequence[Turn], most_tokens: int) -> Iterator[Said]:
        pictures = [
            fit(shown, self.profile.pad_color, self.profile.image_size) for turn in turns for shown in turn.pictures
        ]
        inputs = self._processor(
            text=[self._rendered(turn.messages) for turn in turns],
            images=pictures,
            padding=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            made = self._model.generate(
                **inputs,
                max_new_tokens=most_tokens,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        return self._read(made, inputs["input_ids"].shape[1])

    def _rendered(self, messages: Sequence[Message]) -> str:
        rendered: str = self._processor.apply_chat_template([*self._system, *messages], add_generation_prompt=True)
        return rendered

    def _read(self, made: Any, prompt: int) -> Iterator[Said]:
        tokenizer = self._processor.tokenizer
        written = made.sequences[:, prompt:]
        logprobs = torch.stack(made.logits, 1).log_softmax(-1).gather(2, written[..., None])[..., 0]
        for tokens, scores in zip(written.tolist(), logprobs.tolist(), strict=True):
            ends = tokens.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in tokens else len(tokens)
            text = tokenizer.decode(tokens[:ends], skip_special_tokens=True)
            yield Said(text, perplexity(mean_nll(scores[:ends])))
