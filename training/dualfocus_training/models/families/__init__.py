"""Tiny models of the families that are served, for tests: their architecture, processor, tokens and chat template.

Their weights are random, seeded and few: they know nothing and write on for as long as they may. But what vLLM does
with a picture (how it is resized, how many tokens it takes, where they stand) is what it does with the real models'.
`python -m dualfocus_training.models.families FAMILY` makes one and says where.
"""

import hashlib
import sys
from importlib import import_module
from pathlib import Path

from dualfocus_training.models.made_once import make_once

# Each is written by `write_tiny(folder, seed)` of its module.
FAMILIES = {
    "qwen2-vl": "qwen.qwen2_vl",
    "qwen2.5-vl": "qwen.qwen2_5_vl",
    "qwen3-vl": "qwen.qwen3_vl",
    "qwen3-vl-moe": "qwen.qwen3_vl_moe",
    "qwen3.5": "qwen.qwen3_5",
    "qwen3.5-moe": "qwen.qwen3_5_moe",
    "internvl": "internvl",
    "internvl-chat": "internvl_chat",
    "glm-v": "glm4v",
    "glm-v-moe": "glm4v_moe",
    "gemma4": "google.gemma4",
    "gemma3": "google.gemma3",
    "llava-next": "llava.llava_next",
    "llava-onevision": "llava.llava_onevision",
    "mistral3": "mistral3",
    "idefics3": "idefics3",
    "smolvlm": "smolvlm",
    "isaac": "isaac",
}


def tiny_path(family: str) -> Path:
    """Where the tiny model of a family is kept in this environment: one of another version has another place."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    stamp = hashlib.blake2b(b"".join(source.read_bytes() for source in sources), digest_size=4).hexdigest()
    return Path(sys.prefix) / "share" / "dualfocus" / f"tiny-{family}-{stamp}"


def ensure_tiny(family: str) -> Path:
    """Return the folder of a family's tiny model, made first where it is absent (a few seconds)."""
    return make_once(tiny_path(family), lambda folder: write_tiny(family, folder))


def write_tiny(family: str, folder: Path, seed: int = 0) -> None:
    """Write a family's tiny model as it is published on the hub; the same seed gives the same bytes."""
    import_module(f"{__name__}.{FAMILIES[family]}").write_tiny(folder, seed)
