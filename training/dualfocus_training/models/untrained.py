"""A model for tests: a small LLaVA with seeded random weights, made in seconds.

It runs the whole method, on the real engine; it knows nothing, and writes on for as long as it may.
Architecture: CLIP vision tower, two-layer projector and Llama, as in LLaVA-1.5, one million parameters.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import yaml
from dualfocus_engine.families.choosing import PROFILE_FILE
from dualfocus_engine.families.profiles import Profile, load_profile

from dualfocus_training.models.made_once import make_once
from dualfocus_training.models.weights import save_weights

UNTRAINED_NAME = "dualfocus-untrained"
_PROFILE = Path(__file__).with_suffix(".yaml")
IMAGE_SIZE = 112
PATCH_SIZE = 14
SPECIAL_TOKENS = ["<s>", "</s>", "<pad>", "<image>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + ' ' }}"
    "{% elif message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + message['content'] + '</s>' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT: ' }}{% endif %}"
)


def untrained_profile() -> Profile:
    """The profile that is written beside it: its boxes are held to a grammar."""
    return load_profile(str(_PROFILE))


def untrained_path() -> Path:
    """Where the untrained model of this environment is kept: one of another version has another place."""
    recipe = Path(__file__).read_bytes() + _PROFILE.read_bytes()
    stamp = hashlib.blake2b(recipe, digest_size=4).hexdigest()
    return Path(sys.prefix) / "share" / "dualfocus" / f"{UNTRAINED_NAME}-{stamp}"


def ensure_untrained() -> Path:
    """Return the folder of the untrained model, made first where it is absent (a few seconds)."""
    return make_once(untrained_path(), write_untrained)


def write_untrained(folder: Path, seed: int = 0, side: int = IMAGE_SIZE) -> None:
    """Write the untrained model as a Hugging Face LLaVA checkpoint; the same seed gives the same bytes.

    `side` is what its encoder is shown, in pixels: a token for each patch of 14 x 14.
    """
    import torch
    from transformers import LlavaForConditionalGeneration

    processor = _processor(side)
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(_config(len(processor.tokenizer), side)).to(torch.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    processor.save_pretrained(folder)
    save_weights(model, folder)
    model.generation_config.save_pretrained(folder)
    model.config.save_pretrained(folder)
    profile = untrained_profile().model_copy(update={"image_size": side})
    (folder / PROFILE_FILE).write_text(yaml.safe_dump(profile.model_dump(mode="json")), encoding="utf-8")


def _processor(side: int) -> Any:
    from transformers import LlavaProcessor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    square = {"height": side, "width": side}
    # Padded to a square, as the profile has it: vLLM's own chat then sees what the macro turn sees.
    images = LlavaImageProcessorPil(do_pad=True, size=square, crop_size=square)
    return LlavaProcessor(
        image_processor=images,
        tokenizer=_tokenizer(),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def _tokenizer() -> Any:
    """Return a tokenizer of single bytes: any text encodes, digit by digit."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    names = dict(zip(("bos_token", "eos_token", "pad_token"), SPECIAL_TOKENS, strict=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, extra_special_tokens={"image_token": "<image>"}, **names)


def _config(vocabulary: int, side: int) -> Any:
    from transformers import LlavaConfig

    return LlavaConfig(
        vision_config=_vision_config(side),
        text_config=_text_config(vocabulary),
        image_token_index=SPECIAL_TOKENS.index("<image>"),
        image_seq_length=(side // PATCH_SIZE) ** 2,
        projector_hidden_act="gelu",
        architectures=["LlavaForConditionalGeneration"],
        dtype="bfloat16",
    )


def _vision_config(side: int) -> Any:
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=side,
        patch_size=PATCH_SIZE,
        projection_dim=128,
    )


def _text_config(vocabulary: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        initializer_range=0.2,  # wide, so that the untrained model's choices are clear cut
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        tie_word_embeddings=False,
    )


if __name__ == "__main__":
    print(ensure_untrained())
