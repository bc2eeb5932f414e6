"""What vLLM is told of Qwen-VL: its configuration, its tokenizer, its class; and which forms of it are refused."""

import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dualfocus_engine.models import register
from dualfocus_engine.models.qwen_vl import QwenVLForConditionalGeneration
from dualfocus_engine.models.qwen_vl_config import QwenVLConfig
from dualfocus_engine.models.qwen_vl_tokenizer import QWenTokenizer
from transformers import AutoConfig, AutoTokenizer
from vllm import ModelRegistry
from vllm.transformers_utils.config import get_config

from tests.engine.qwen_vl.original import HEADS, SPECIAL_IDS, WIDE, config, weights, write_beside

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    register()
    register()  # as vLLM may
    return write_beside(tmp_path_factory.mktemp("qwen-vl"))


def test_vllm_is_told_by_its_plugins_of_all_models() -> None:
    plugins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["vllm.general_plugins"]
    assert plugins == {"dualfocus": f"{register.__module__}:{register.__name__}"}
    register()
    assert "QWenLMHeadModel" in ModelRegistry.get_supported_archs()


@pytest.mark.parametrize("trusted", [False, True])
def test_the_repositorys_own_code_is_not_run(folder: Path, trusted: bool) -> None:
    read = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
    assert type(read) is QwenVLConfig
    assert type(AutoTokenizer.from_pretrained(folder, config=read, trust_remote_code=trusted)) is QWenTokenizer


def test_the_language_model_is_qwen2s_by_other_names(folder: Path) -> None:
    read = get_config(str(folder), trust_remote_code=False)
    text = read.get_text_config()
    assert (text.intermediate_size, text.num_key_value_heads, text.max_position_embeddings) == (WIDE, HEADS, 2048)
    assert text.rope_parameters == {"rope_type": "default", "rope_theta": 10000}
    tokens = (read.image_start_id, read.image_end_id, read.image_token_id)
    assert tokens == tuple(SPECIAL_IDS[token] for token in ("<img>", "</img>", "<imgpad>"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"visual": None}, "text-only"),
        ({"no_bias": False}, "no_bias False"),
        ({"rotary_pct": 0.25}, "rotary_pct 0.25"),
        ({"kv_channels": 32}, "kv_channels 32"),
    ],
)
def test_another_form_is_refused_by_its_field(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        QwenVLConfig(**config(**changes))


def test_a_context_that_vllm_was_made_to_take_is_refused() -> None:
    forced = SimpleNamespace(model_config=SimpleNamespace(hf_config=QwenVLConfig(**config()), max_model_len=4096))
    with pytest.raises(ValueError, match="4096 is more than Qwen-VL's 2048"):
        QwenVLForConditionalGeneration(vllm_config=forced)


def test_every_weight_of_the_hub_has_its_place() -> None:
    mapper = QwenVLForConditionalGeneration.hf_to_vllm_mapper
    placed = {name: mapper.map_name(name) for name in weights()}
    assert {new.partition(".")[0] for new in placed.values()} == {"language_model", "visual"}
    assert placed["transformer.h.1.mlp.w1.weight"] == placed["transformer.h.1.mlp.w2.weight"]
    tower = "transformer.resblocks.1.mlp.c_proj.weight"
    assert placed[f"transformer.visual.{tower}"] == f"visual.{tower}", "it keeps the hub's names"
