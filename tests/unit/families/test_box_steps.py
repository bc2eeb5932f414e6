"""The steps that a box takes in each family's words, as docs/performance.md has them."""

import re
from collections.abc import Callable
from pathlib import Path

import mistral_common
import pytest
from dualfocus_engine import Box, load_profile, profile_names
from dualfocus_server.check.openings import with_opening
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from sentencepiece import SentencePieceProcessor

PAGE = Path(__file__).parents[3] / "docs" / "performance.md"
DATA = Path(mistral_common.__file__).parent / "data"
BOX = Box(0.2, 0.41, 0.37, 0.74)
# A token each in their own family's vocabulary, of which other families know nothing.
TAGS = re.compile(r"(<\|[a-z_/]+\|>|</?(?:ref|box)>)")
# Of Llama's kind, whose vocabulary Mistral's first one follows; the others' are of tekken's kind.
LLAMA = ("dualfocus-released", "fifth-patch", "llava-dualfocus", "llava-next", "paper")
OPENABLE = [name for name in profile_names() if with_opening(load_profile(name).box_format) is not None]


@pytest.fixture(scope="module")
def tekken() -> Callable[[str], int]:
    tokenizer = Tekkenizer.from_file(str(DATA / "tekken_240911.json"))
    return lambda text: len(tokenizer.encode(text, bos=False, eos=False))


@pytest.fixture(scope="module")
def llama() -> Callable[[str], int]:
    tokenizer = SentencePieceProcessor(str(DATA / "tokenizer.model.v1"))
    return lambda text: len(tokenizer.encode(text))


@pytest.mark.parametrize("name", [name for name in OPENABLE if load_profile(name).grounds])
def test_the_page_has_what_a_box_takes(name: str, llama: Callable[[str], int], tekken: Callable[[str], int]) -> None:
    opened = with_opening(load_profile(name).box_format)
    assert opened is not None
    assert opened.stop is not None
    count = llama if name in LLAMA else tekken

    def tokens(text: str) -> int:
        return sum(1 if TAGS.fullmatch(piece) else count(piece) for piece in TAGS.split(text) if piece)

    written = opened.write(BOX)
    whole = tokens(written) + 1
    stopped = tokens(written.removesuffix(opened.closing) + opened.stop)
    besides = stopped - tokens(opened.opening)
    assert f"| `{name}` | {whole} | {stopped} | {besides} |" in PAGE.read_text(encoding="utf-8")
    assert besides < stopped < whole
