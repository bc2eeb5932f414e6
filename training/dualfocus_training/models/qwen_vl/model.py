"""Qwen-VL as one module: reads and writes the layout of the released checkpoints."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from dualfocus_engine.conversion.reading import read_json, tensors_in
from dualfocus_engine.conversion.writing import ShardWriter
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput

from dualfocus_training.models.qwen_vl.language import Block, position_turns
from dualfocus_training.models.qwen_vl.shape import Shape
from dualfocus_training.models.qwen_vl.vision import VisionTower


class Transformer(nn.Module):
    """All but the output matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.wte = nn.Embedding(shape.vocabulary, shape.width)
        self.h = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.ln_f = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        self.visual = VisionTower(shape.vision)


class QwenVL(nn.Module):
    """A Qwen-VL after its config.json, freshly initialised."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._config, self._shape = dict(config), Shape.from_config(config)
        self.transformer = Transformer(self._shape)
        self.lm_head = nn.Linear(self._shape.width, self._shape.vocabulary, bias=False)

    @classmethod
    def from_pretrained(cls, folder: Path) -> Self:
        """Read a checkpoint in the original layout, in 32 bits.

        Raises ConfigError where a file can't be read, and RuntimeError naming weights that are missing or too many.
        """
        with torch.device("meta"):
            model = cls(read_json(folder / "config.json"))
        model.load_state_dict({name: tensor.float() for name, tensor in tensors_in(folder)}, assign=True)
        return model

    def save_pretrained(self, folder: Path) -> None:
        """Write weights, in bfloat16, and config.json as the original has them."""
        writer = ShardWriter(folder)
        for name, tensor in self.state_dict().items():
            writer.add(name, tensor.to(torch.bfloat16))
        writer.finish()
        text = json.dumps(self._config, indent=2, ensure_ascii=False)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")

    def forward(
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None, use_cache: bool = False
    ) -> CausalLMOutput:
        """Logits (sequences, length, vocabulary); pictures, (count, 3, side, side), in the order of their tokens.

        Sequences are padded on the right, so that a causal model sees no padding: `attention_mask` changes nothing.
        Raises ValueError beyond the context, where the model has other positions and scales queries.
        """
        length = input_ids.shape[1]
        if length > self._shape.context:
            raise ValueError(f"{length} tokens: Qwen-VL is trained on {self._shape.context} at most")
        hidden = self._embedded(input_ids, pixel_values)
        turns = position_turns(length, self._shape, hidden.device)
        for block in self.transformer.h:
            hidden = block(hidden, turns)
        return CausalLMOutput(logits=self.lm_head(self.transformer.ln_f(hidden)))

    def _embedded(self, ids: Tensor, pixels: Tensor) -> Tensor:
        words: Tensor = self.transformer.wte(ids)
        pictured = (ids == self._shape.picture_token)[..., None]
        features = self.transformer.visual(pixels)
        return words.masked_scatter(pictured, features.to(words.dtype))
