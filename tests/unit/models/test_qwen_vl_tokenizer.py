"""Qwen-VL's tokenizer: tiktoken's ids, its chat format, and what a broken file is told."""

import random
import unicodedata
from pathlib import Path

import pytest
import tiktoken
from dualfocus_engine.models.qwen_vl_tokenizer import QWenTokenizer, read_ranks

from tests.engine.qwen_vl.original import PIECES, SPECIAL, SPECIAL_IDS, ranks, write_beside

ROOT = Path(__file__).parents[3]
# Where a tokenizer goes wrong: letters of other scripts, accents of their own, spaces, digits, signs, control tokens.
ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ",
    "0123456789.,:;!()[]{}<>|/\\'\"",
    " \n\t\r\u3000",
    "àéîõüßøñ\u0301\u0308",  # not U+0338: behind a control token it would make another sign of its ">"
    "图片里有什么东西这是一张街道的照片的かなкотيد",
    "🐈🏽👩\u200d🚀",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> QWenTokenizer:
    return QWenTokenizer.from_pretrained(write_beside(tmp_path_factory.mktemp("qwen-vl")))


def _texts() -> list[str]:
    """1,000 pieces of this project's pages, and 1,000 drawn at random with control tokens among them."""
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md")))
    chance = random.Random(0)
    starts = [chance.randrange(len(pages) - 200) for _ in range(1000)]
    written = [pages[start : start + chance.randrange(1, 200)] for start in starts]
    return written + ["".join(_drawn(chance) for _ in range(chance.randrange(1, 30))) for _ in range(1000)]


def _drawn(chance: random.Random) -> str:
    if chance.random() < 0.1:
        return chance.choice(SPECIAL)
    return "".join(chance.choices(chance.choice(ALPHABETS), k=chance.randrange(1, 6)))


def test_two_thousand_texts_have_the_ids_that_tiktoken_gives(tokenizer: QWenTokenizer) -> None:
    reference = tiktoken.Encoding("qwen", pat_str=PIECES, mergeable_ranks=ranks(), special_tokens=SPECIAL_IDS)
    texts = _texts()
    assert len(texts) == 2000
    for text in texts:
        normal = unicodedata.normalize("NFC", text)
        assert tokenizer.encode(text) == reference.encode(normal, allowed_special="all"), text


def test_an_answer_is_closed_by_the_end_of_a_turn_and_keeps_its_box_as_text(tokenizer: QWenTokenizer) -> None:
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (SPECIAL_IDS["<|im_end|>"], SPECIAL_IDS["<|endoftext|>"])
    answer = "<ref>the sign</ref><box>(536,509),(588,602)</box>"
    assert tokenizer.decode(tokenizer.encode(f"{answer}<|im_end|>"), skip_special_tokens=True) == answer


def test_pictures_are_numbered_over_the_whole_conversation(tokenizer: QWenTokenizer) -> None:
    asked = [
        {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Which?"}]},
        {"role": "assistant", "content": "The first."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "And now?"}]},
    ]
    assert tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nPicture 1: <img></img>\nPicture 2: <img></img>\nWhich?<|im_end|>\n"
        "<|im_start|>assistant\nThe first.<|im_end|>\n"
        "<|im_start|>user\nPicture 3: <img></img>\nAnd now?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_system_message_of_the_clients_takes_the_place_of_the_usual_one(tokenizer: QWenTokenizer) -> None:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(asked, tokenize=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("YQ== 0\nno-base64! 1\n", "is no tiktoken file"),
        ("YQ==\n", "is no tiktoken file"),
        ("YQ== 1\n", "without a gap"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "qwen.tiktoken"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"{file.name}.*{said}"):
        read_ranks(file)
