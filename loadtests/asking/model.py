"""A model with the shape of LLaVA-1.5 and random weights: `python -m loadtests.asking.model FOLDER [--seven-billion]`.

CLIP ViT-L/14 at 336 pixels (576 tokens a picture), the two-layer projector and a small Llama: 0.46 billion parameters.
It costs what a trained model of its size would, and knows nothing; its boxes are held to a grammar. The 7B shape is
configuration and tokenizer alone, for `--load-format dummy`.
"""

import argparse
import hashlib
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dualfocus_engine.families.choosing import PROFILE_FILE
from dualfocus_engine.families.profiles import Profile, load_profile
from dualfocus_eval.scenes.generate import scenes
from dualfocus_training.models.untrained import SPECIAL_TOKENS
from dualfocus_training.models.weights import save_weights

PATCH, SIDE = 14, 336
# What a trained model would have learned to write: a box inside the picture, never an empty one.
BOX_GRAMMAR = r"\[0\.[0-4]\d, 0\.[0-4]\d, 0\.[5-9]\d, 0\.[5-9]\d\]"
# `[0.20, 0.41, 0.37, 0.74]` in single characters, and the closing token.
BOX_TOKENS = 25
_SCENES = 200
_PIECES = " ?[A-Za-z]+"


@dataclass(frozen=True)
class Shape:
    """Widths and depths of the language model; the encoder is always ViT-L/14."""

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int | None = None


SMALL = Shape(width=1024, inner=2816, layers=14, heads=16, kv_heads=4)
SEVEN_BILLION = Shape(width=4096, inner=11008, layers=32, heads=32, kv_heads=32, vocabulary=32064)


def model_folder(place: Path, key: str) -> Path:
    """Where a model of this recipe is kept: one of another recipe has another place."""
    stamp = hashlib.blake2b(Path(__file__).read_bytes(), digest_size=4).hexdigest()
    return place.absolute() / f"model-{key}-{stamp}"


def ensure_model(folder: Path, shape: Shape = SMALL) -> Path:
    """Return a folder with the model in it, made first where it is absent (a minute for 0.46 billion parameters)."""
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, then moved: a run that is stopped here leaves no half of a model.
    with TemporaryDirectory(dir=folder.parent) as place:
        made = Path(place) / folder.name
        write_model(made, shape)
        made.rename(folder)
    return folder


def write_model(folder: Path, shape: Shape = SMALL) -> None:
    """Write the model as a Hugging Face LLaVA checkpoint; no weights where the shape is to be loaded as a dummy."""
    import torch
    from transformers import LlavaForConditionalGeneration

    folder.mkdir(parents=True)
    profile = bench_profile()
    tokenizer = build_tokenizer(profile)
    config = _config(shape, shape.vocabulary or len(tokenizer))
    _processor(tokenizer, profile).save_pretrained(folder)
    config.save_pretrained(folder)
    (folder / PROFILE_FILE).write_text(profile.model_dump_json(indent=2), encoding="utf-8")
    if shape.vocabulary is None:
        torch.manual_seed(0)
        save_weights(LlavaForConditionalGeneration(config).to(torch.bfloat16), folder)


def bench_profile() -> Profile:
    """The released checkpoints' profile, its boxes held to a grammar and to their length."""
    profile = load_profile("llava-dualfocus")
    box_format = profile.box_format.model_copy(update={"grammar": BOX_GRAMMAR})
    return profile.model_copy(update={"name": "bench", "box_format": box_format, "max_box_tokens": BOX_TOKENS})


def build_tokenizer(profile: Profile) -> Any:
    """Return a tokenizer of whole words, as far as prompts and questions hold them, and single bytes."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Split(Regex(f"{_PIECES}|."), "isolated")
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = sorted({bytes_of.pre_tokenize_str(word)[0][0] for word in _words(profile)} - set(alphabet))
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *alphabet, *words])}
    # With `ignore_merges` a piece that is in the vocabulary is one token and needs no merges.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_of])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    names = dict(zip(("bos_token", "eos_token", "pad_token"), SPECIAL_TOKENS, strict=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, extra_special_tokens={"image_token": "<image>"}, **names)


def _words(profile: Profile) -> set[str]:
    asked = [question.question for _, questions in islice(scenes(0, _SCENES), _SCENES) for question in questions]
    wording = [profile.grounding_prompt, profile.micro_prompt, profile.system or "", "USER: ASSISTANT:"]
    words = set(re.findall("[A-Za-z]+", "\n".join([*wording, *asked])))
    return words | {f" {word}" for word in words}


def _processor(tokenizer: Any, profile: Profile) -> Any:
    from transformers import LlavaProcessor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    square = {"height": SIDE, "width": SIDE}
    return LlavaProcessor(
        image_processor=LlavaImageProcessorPil(do_pad=True, size=square, crop_size=square),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=profile.chat_template,
    )


def _config(shape: Shape, vocabulary: int) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=768,
    )
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=4096,
        initializer_range=0.05,  # wide, so that answers differ from picture to picture
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        tie_word_embeddings=False,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=SPECIAL_TOKENS.index("<image>"),
        image_seq_length=(SIDE // PATCH) ** 2,
        projector_hidden_act="gelu",
        architectures=["LlavaForConditionalGeneration"],
        dtype="bfloat16",
    )


def main() -> None:
    """Write the model into a folder."""
    parser = argparse.ArgumentParser(description="Write a LLaVA-1.5-shaped model with random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seven-billion", action="store_true", help="the 7B shape, without weights")
    arguments = parser.parse_args()
    print(ensure_model(arguments.folder, SEVEN_BILLION if arguments.seven_billion else SMALL))


if __name__ == "__main__":
    main()
