"""The fast tokenizer gives LLaVA's ids: each text between special tokens is one of its own."""

from pathlib import Path

import pytest
from dualfocus_engine.conversion.tokens import check_prompts, fast_tokenizer, legacy_ids, read_pieces
from dualfocus_engine.families.profiles import Profile, load_profile
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from .conversations import conversations, original_ids
from .original import VOCABULARY, tokenizer_model
from .plain_forward import IMAGE

PROFILE: Profile = load_profile("llava-dualfocus")


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> SentencePieceProcessor:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.model").write_bytes(tokenizer_model())
    return read_pieces(folder, VOCABULARY)


@pytest.fixture(scope="module")
def tokenizer(pieces: SentencePieceProcessor) -> PreTrainedTokenizerFast:
    return fast_tokenizer(pieces, PROFILE.chat_template or "")


def test_the_four_prompts_have_the_same_ids(pieces: SentencePieceProcessor, tokenizer: PreTrainedTokenizerFast) -> None:
    checked = check_prompts(pieces, tokenizer, PROFILE)
    assert [prompt.name for prompt in checked] == ["macro", "grounding", "micro", "scoring"]
    assert all(prompt.same and prompt.tokens > 100 for prompt in checked)


def test_the_text_after_an_image_begins_with_a_space_of_its_own(
    pieces: SentencePieceProcessor, tokenizer: PreTrainedTokenizerFast
) -> None:
    space, newline = pieces.piece_to_id("▁"), pieces.piece_to_id("<0x0A>")
    ids = tokenizer.encode("USER: <image>\nWhat?", add_special_tokens=False)
    at = ids.index(VOCABULARY)
    assert ids[at - 1 : at + 3] == [space, VOCABULARY, space, newline]


@pytest.mark.parametrize("text", [asked.text for asked in conversations()])
def test_conversations_are_cut_as_the_original_cuts_them(
    pieces: SentencePieceProcessor, tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    theirs = [VOCABULARY if id == IMAGE else id for id in original_ids(text)]
    assert tokenizer.encode(text, add_special_tokens=False) == theirs == legacy_ids(pieces, text)


def test_the_check_sees_a_tokenizer_that_is_not_legacy(pieces: SentencePieceProcessor, tmp_path: Path) -> None:
    """A tokenizer that adds a space at the very beginning alone, as newer conversions have it."""
    from tokenizers import Tokenizer, pre_tokenizers

    own = fast_tokenizer(pieces, PROFILE.chat_template or "")
    rules: Tokenizer = own.backend_tokenizer
    rules.normalizer = None
    rules.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    assert not any(prompt.same for prompt in check_prompts(pieces, own, PROFILE))


def test_it_reads_back_as_it_was_written(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text, _ in conversations():
        assert loaded.encode(text) == tokenizer.encode(text)
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (1, 2, VOCABULARY + 1)
    assert loaded.decode(loaded.encode("Is it 12:45?  Où?"), skip_special_tokens=True) == "Is it 12:45?  Où?"
