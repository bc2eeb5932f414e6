"""SmolVLM2 in small: Idefics3 with tiles of 512 pixels, 64 tokens each, and with a processor of its own."""

from pathlib import Path

from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

from dualfocus_training.models.families import idefics3
from dualfocus_training.models.families.making import SPREAD, byte_tokenizer, small_text, write_json, write_model

_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<end_of_utterance>"),
    *("<fake_token_around_image>", "<image>", "<global-img>", *idefics3.TILES),
)
CHAT_TEMPLATE = idefics3.CHAT_TEMPLATE.replace("<|begin_of_text|>", "<|im_start|>")
# Published are patches of 16, 4 by 4 of them merged: as many tokens, and ten times the encoder's work.
_SIDE, _PATCH, _MERGE = 512, 32, 2
_SIZES = {
    "processor_class": "SmolVLMProcessor",
    "size": {"longest_edge": 4 * _SIDE},
    "max_image_size": {"longest_edge": _SIDE},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
_PREPROCESSOR = {"image_processor_type": "SmolVLMImageProcessor", "do_image_splitting": True, **_SIZES}
_VIDEO_PREPROCESSOR = {
    "video_processor_type": "SmolVLMVideoProcessor",
    **_SIZES,
    "size": {"longest_edge": _SIDE},
    "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": _SIDE}},
    "fps": 1,
    "num_frames": 64,
}
_PROCESSOR = {"processor_class": "SmolVLMProcessor", "image_seq_len": (_SIDE // _PATCH // _MERGE) ** 2}
_VISION = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": _SIDE,
    "patch_size": _PATCH,
    "initializer_range": SPREAD,
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processors' configurations into an existing or new folder."""
    tokenizer = byte_tokenizer(
        _SPECIAL,
        (),
        CHAT_TEMPLATE,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        image_token="<image>",
    )
    pad = tokenizer.pad_token_id
    config = SmolVLMConfig(
        text_config={"model_type": "llama", **small_text(tokenizer, pad_token_id=pad)},
        vision_config=_VISION,
        image_token_id=tokenizer.image_token_id,
        scale_factor=_MERGE,
        pad_token_id=pad,
    )
    write_model(folder, SmolVLMForConditionalGeneration, config, seed)
    tokenizer.save_pretrained(folder)
    write_json(
        folder,
        preprocessor_config=_PREPROCESSOR,
        video_preprocessor_config=_VIDEO_PREPROCESSOR,
        processor_config=_PROCESSOR,
        generation_config={"eos_token_id": tokenizer.eos_token_id},
    )
