"""LLaVA's tokenizer as a fast one that gives the same ids, and the check that it does."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges

from dualfocus_engine.errors import ConfigError
from dualfocus_engine.families.profiles import Profile

IMAGE, PAD = "<image>", "<pad>"
_SPACE = "▁"


class CheckedPrompt(NamedTuple):
    """A prompt that was tokenized by both rules."""

    name: str
    tokens: int
    same: bool


def read_pieces(folder: Path, vocabulary: int) -> SentencePieceProcessor:
    """Read a model's tokenizer.model. Raises ConfigError where it is missing, damaged, or of another vocabulary."""
    file = folder / "tokenizer.model"
    if not file.is_file():
        raise ConfigError(f"{folder}: there is no tokenizer.model: LLaVA's tokenizer is needed beside its weights.")
    try:
        pieces = SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"{file}: it can't be read: {error}. Download it again.") from error
    if pieces.get_piece_size() != vocabulary:
        raise ConfigError(
            f"{file}: it has {pieces.get_piece_size()} pieces, config.json says vocab_size {vocabulary}: tokens were "
            "added to this model, which can't be converted."
        )
    return pieces


def fast_tokenizer(pieces: SentencePieceProcessor, chat_template: str) -> PreTrainedTokenizerFast:
    """Build the fast tokenizer: each text between special tokens begins with a space, as by the legacy rule."""
    tokenizer = Tokenizer(_byte_pairs(pieces))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    own = [pieces.id_to_piece(index) for index in (pieces.unk_id(), pieces.bos_id(), pieces.eos_id())]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in (*own, IMAGE, PAD)])
    opening = (own[1], pieces.bos_id())
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{own[1]} $A", pair=f"{own[1]} $A {own[1]} $B", special_tokens=[opening]
    )
    names = dict(zip(("unk_token", "bos_token", "eos_token"), own, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **names, pad_token=PAD, padding_side="left", chat_template=chat_template,
        extra_special_tokens={"image_token": IMAGE}, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def check_prompts(pieces: SentencePieceProcessor, tokenizer: Any, profile: Profile) -> list[CheckedPrompt]:
    """Tokenize the released code's four prompts by both rules (the reference is sentencepiece itself)."""
    checked = []
    for name, messages in _prompts(profile):
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer.encode(text, add_special_tokens=False)
        checked.append(CheckedPrompt(name, len(ids), ids == legacy_ids(pieces, text)))
    return checked


def legacy_ids(pieces: SentencePieceProcessor, text: str) -> list[int]:
    """Return the ids that LLaVA gives a prompt: each text between special tokens is tokenized on its own."""
    special = {
        pieces.id_to_piece(pieces.bos_id()): pieces.bos_id(),
        pieces.id_to_piece(pieces.eos_id()): pieces.eos_id(),
        IMAGE: pieces.get_piece_size(),
    }
    ids: list[int] = []
    for part in filter(None, re.split(f"({'|'.join(map(re.escape, special))})", text)):
        ids += [special[part]] if part in special else pieces.encode(part)
    return ids


def _prompts(profile: Profile) -> Sequence[tuple[str, list[dict[str, str]]]]:
    hint = "Answer with the option's letter from the given choices directly."
    question = f"What color is the dog's collar?\nA. Red\nB. Blue\n{hint}"
    system = {"role": "system", "content": profile.system or ""}
    grounding = _said("user", f"{IMAGE}\n{profile.grounding_text(question)}")
    box = _said("assistant", profile.box_format.template.format(x1=0.2, y1=0.41, x2=0.37, y2=0.74))
    asked = {
        "macro": [_said("user", f"{IMAGE}\n{question}")],
        "grounding": [grounding],
        "micro": [grounding, box, _said("user", f"{IMAGE}\n{profile.micro_text(question)}")],
        "scoring": [grounding, box, _said("user", f"{IMAGE}\n{profile.shared_text(question)}")],
    }
    return [(name, [system, *messages]) for name, messages in asked.items()]


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _byte_pairs(pieces: SentencePieceProcessor) -> models.BPE:
    """Return a tokenizer.model's vocabulary as byte-pair merges, the likeliest first."""
    size = range(pieces.get_piece_size())
    vocabulary = {pieces.id_to_piece(index): index for index in size}
    merged = {
        pieces.id_to_piece(index): pieces.get_score(index)
        for index in size
        if not (pieces.is_control(index) or pieces.is_byte(index) or pieces.is_unknown(index))
    }
    return models.BPE(
        vocab=vocabulary, merges=generate_merges(vocabulary, merged), unk_token=pieces.id_to_piece(pieces.unk_id()),
        fuse_unk=True, byte_fallback=True,
    )  # fmt: skip
