"""The model that ships: a LLaVA of a few million parameters, made from nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from dualfocus_training.models.vocabulary import IMAGE


@dataclass(frozen=True)
class Size:
    """Widths and depths; heads are `head` wide everywhere.

    Raises ValueError where the language model's middle layer, which is taught where to look, would be its last.
    """

    side: int = 128
    patch: int = 16
    vision_width: int = 192
    vision_layers: int = 6
    text_width: int = 192
    text_layers: int = 4
    head: int = 32

    def __post_init__(self) -> None:
        if self.text_layers < 3:
            raise ValueError(f"text_layers: {self.text_layers} are too few, give 3 or more")


def build_model(size: Size, tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """A freshly initialised model for this tokenizer; draws from torch's global generator."""
    config = LlavaConfig(
        vision_config=_vision(size),
        text_config=_text(size, tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(size.side // size.patch) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config)
    _prepare_encoder(model, size)
    return model


def _vision(size: Size) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        image_size=size.side,
        patch_size=size.patch,
        hidden_size=size.vision_width,
        intermediate_size=4 * size.vision_width,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=size.vision_width // size.head,
        projection_dim=size.vision_width,
        hidden_act="gelu",
    )


def _text(size: Size, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.text_width,
        intermediate_size=8 * size.text_width // 3 // 32 * 32,
        num_hidden_layers=size.text_layers,
        num_attention_heads=size.text_width // size.head,
        num_key_value_heads=size.text_width // size.head,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )


def _prepare_encoder(model: LlavaForConditionalGeneration, size: Size) -> None:
    """Start the encoder from what any picture has: waves within patches, places, and likeness.

    Random filters took thousands of steps to find edges; these show them from the first.
    """
    tower = model.model.vision_tower
    grid = size.side // size.patch
    with torch.no_grad():
        tower.embeddings.position_embedding.weight[1:] = 0.5 * _places(grid, size.vision_width)
        tower.embeddings.patch_embedding.weight.copy_(_filters(size.patch, size.vision_width))
        for layer in tower.encoder.layers:
            # Queries equal to keys: a patch first attends to patches like it, and near it.
            layer.self_attn.q_proj.weight.mul_(2.0)
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)


def _filters(patch: int, width: int) -> Tensor:
    """(width, 3, patch, patch): the smoothest cosine waves of each colour channel, smoothest first.

    A wave's gain grows with its frequency, since edges weigh less than areas in a picture.
    """
    steps = (torch.arange(patch) + 0.5) / patch
    waves = torch.stack([torch.cos(torch.pi * number * steps) for number in range(patch)])
    order = sorted(
        ((down, across) for down in range(patch) for across in range(patch)),
        key=lambda wave: (wave[0] ** 2 + wave[1] ** 2, wave),
    )
    filters = torch.zeros(width, 3, patch, patch)
    for number in range(width):
        down, across = order[number // 3]
        gain = (2.0 + 5.0 * (down**2 + across**2) ** 0.5) / patch**2
        filters[number, number % 3] = gain * torch.outer(waves[down], waves[across])
    return filters


def _places(grid: int, width: int) -> Tensor:
    """(grid², width): a quarter each of sines and cosines of the row and of the column."""
    places = (torch.arange(grid) + 0.5) / grid
    speeds = torch.pi * 2.0 ** torch.linspace(-1, 3, width // 4)
    angles = places[:, None] * speeds[None]
    axis = torch.cat([angles.sin(), angles.cos()], 1)
    rows = axis[:, None].expand(grid, grid, -1)
    columns = axis[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], -1).reshape(grid * grid, width)


def build_processor(size: Size, tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """The processor that goes with the model: it pads to a square, as the profile has it."""
    square = {"height": size.side, "width": size.side}
    return LlavaProcessor(
        image_processor=LlavaImageProcessorPil(do_pad=True, size=square, crop_size=square),
        tokenizer=tokenizer,
        patch_size=size.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
        image_token=IMAGE,
    )
