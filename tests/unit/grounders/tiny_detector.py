"""A tiny GroundingDINO with random weights, in the layout of those on the hub."""

from pathlib import Path
from string import ascii_lowercase

import torch
from transformers import (
    BertConfig,
    BertTokenizerFast,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    SwinConfig,
)

# A word that is not among these is spelled.
WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "cup", "table"),
    *ascii_lowercase,
    *(f"##{letter}" for letter in ascii_lowercase),
)
TEXT_LENGTH = 32


def write_tiny_detector(folder: Path) -> str:
    """Write the model and its processor into a folder; returns the folder's name."""
    torch.manual_seed(0)
    stages = {"depths": [1] * 4, "num_heads": [1, 1, 2, 2], "out_features": ["stage2", "stage3", "stage4"]}
    widths = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "d_model": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_n_points": 2, "decoder_n_points": 2}
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(image_size=64, embed_dim=8, window_size=4, **stages),
        text_config=BertConfig(
            vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        ),
        **widths | heads,
        num_queries=10,
        encoder_layers=1,
        decoder_layers=2,
        max_text_len=TEXT_LENGTH,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS) + "\n")
    shown = GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(shown, BertTokenizerFast(str(vocabulary))).save_pretrained(folder)
    return str(folder)
