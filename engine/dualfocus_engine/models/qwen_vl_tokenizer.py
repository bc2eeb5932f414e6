"""Qwen-VL's tokenizer as a fast one, built from the file `qwen.tiktoken` that stands in the model's folder.

Its repository has one in Python, which recent transformers can't run. Token ids are tiktoken's: byte pairs are joined
in the order of their ranks, so the merges are all ways to put a token together from two others, by its rank.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import TokenizersBackend
from transformers.convert_slow_tokenizer import bytes_to_unicode

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# In the order of their ids, which follow those of the ranks.
_CONTROL = (END_OF_TEXT, TURN_START, TURN_END, *(f"<|extra_{number}|>" for number in range(205)))
# Not special: they stay in an answer's text, where boxes are read.
_BOXES = ("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")
_PICTURES = ("<img>", "</img>", "<imgpad>")
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CHAT_TEMPLATE = Path(__file__).with_name("qwen_vl.jinja")


class QWenTokenizer(TokenizersBackend):
    """The tokenizer that Qwen-VL's tokenizer_config.json names; an answer ends with `<|im_end|>`."""

    vocab_files_names = {"vocab_file": "qwen.tiktoken"}  # noqa: RUF012 (as transformers has it)

    @classmethod
    def convert_to_native_format(cls, vocab_file: str, **fields: Any) -> dict[str, Any]:
        """Return what the tokenizer is made with: its fields, and the fast tokenizer itself."""
        return {**fields, "vocab_file": vocab_file, "tokenizer_object": fast_tokenizer(read_ranks(Path(vocab_file)))}

    def __init__(self, **fields: Any) -> None:
        ours = {"eos_token": TURN_END, "pad_token": END_OF_TEXT}
        template = _CHAT_TEMPLATE.read_text(encoding="utf-8")
        super().__init__(**{"chat_template": template} | fields | ours)


def read_ranks(file: Path) -> dict[bytes, int]:
    """Read a tiktoken file: on each line a token in base64, and its rank. Raises ValueError."""
    lines = (line.split() for line in file.read_bytes().splitlines() if line)
    try:
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except ValueError as error:
        raise ValueError(
            f"{file} is no tiktoken file (a token in base64 and its rank on each line): {error}"
        ) from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(f"{file} does not rank its {len(ranks)} tokens from 0 on without a gap.")
    return ranks


def fast_tokenizer(ranks: Mapping[bytes, int]) -> Tokenizer:
    """Return the tokenizer whose token ids are those of tiktoken with these ranks and Qwen-VL's special tokens."""
    written = {token: _as_text(token) for token in ranks}
    vocabulary = {text: ranks[token] for token, text in written.items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=_merges(ranks, written), ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = [(token, True) for token in _CONTROL] + [(token, False) for token in _BOXES]
    added += [(token, True) for token in _PICTURES]
    tokenizer.add_tokens([AddedToken(token, special=special, normalized=False) for token, special in added])
    return tokenizer


def _merges(ranks: Mapping[bytes, int], written: Mapping[bytes, str]) -> list[tuple[str, str]]:
    """Return the pairs that are joined, those first whose token has the lower rank."""
    return [
        (written[token[:at]], written[token[at:]])
        for token in sorted(ranks, key=ranks.__getitem__)
        for at in range(1, len(token))
        if token[:at] in ranks and token[at:] in ranks
    ]


_CHARACTERS: Mapping[int, str] = bytes_to_unicode()


def _as_text(token: bytes) -> str:
    """Return a token in the characters that byte-level tokenizers write bytes with."""
    return "".join(_CHARACTERS[byte] for byte in token)
