"""The other forms that checkpoints come in: a tower inside, ShareGPT4V's names, adapters, projectors, the hub."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from dualfocus_engine.conversion.convert import convert, plan
from dualfocus_engine.conversion.sources import folder_of
from dualfocus_engine.errors import ConfigError

from .original import (
    HEADS,
    LAYERS,
    WIDTH,
    Weights,
    config,
    inside,
    language_weights,
    projector_weights,
    tower_weights,
    write_beside,
    write_checkpoint,
    write_tower,
)
from .test_convert import assert_same, converted

RANK, ALPHA = 4, 8


@pytest.fixture
def tower(tmp_path: Path) -> Path:
    return write_tower(tmp_path / "clip", tower_weights(), whole_clip=True)


def write_dualfocus(folder: Path, own: Weights, tower: str, *, bins: bool = True, **fields: Any) -> Path:
    """A checkpoint as the released ones are: `.bin`, a tower inside."""
    weights = language_weights() | projector_weights() | inside(own)
    return write_checkpoint(folder, config(tower, **fields), weights, bins=bins)


def test_a_dualfocus_checkpoint_converts_from_itself(tmp_path: Path) -> None:
    """The tower that it names can't be had here: its own is taken, and no second download is needed."""
    source = write_dualfocus(tmp_path / "dualfocus", tower_weights(), "/nowhere/clip-vit-large-patch14-336")
    planned = plan(str(source))
    assert planned.tower.why == "the checkpoint's own, since /nowhere/clip-vit-large-patch14-336 can't be had"
    assert_same(converted(source, tmp_path / "out"), language_weights() | projector_weights(), tower_weights())


@pytest.mark.parametrize("bins", [False, True], ids=["safetensors", "bin"])
def test_a_frozen_towers_copy_gives_way_to_the_named_one(tmp_path: Path, tower: Path, bins: bool) -> None:
    rounded = {name: tensor.bfloat16().half() for name, tensor in tower_weights().items()}
    source = write_dualfocus(tmp_path / "dualfocus", rounded, str(tower), bins=bins)
    planned = plan(str(source))
    assert (planned.tower.why, planned.tower.warning) == (f"{tower}: config.json names it", None)
    assert_same(converted(source, tmp_path / "out"), language_weights() | projector_weights(), tower_weights())


def test_a_tower_that_differs_from_the_named_one_is_told(tmp_path: Path, tower: Path) -> None:
    other = tower_weights(seed=5)
    source = write_dualfocus(tmp_path / "dualfocus", other, str(tower))
    assert "differs from this one in" in (plan(str(source)).tower.warning or "")
    folder = converted(source, tmp_path / "out", vision_tower=str(source))
    assert_same(folder, language_weights() | projector_weights(), other)


def test_a_tower_that_was_trained_is_taken_from_inside(tmp_path: Path, tower: Path) -> None:
    trained = tower_weights(seed=5)
    source = write_dualfocus(tmp_path / "dualfocus", trained, str(tower), unfreeze_mm_vision_tower=True)
    assert_same(converted(source, tmp_path / "out"), language_weights() | projector_weights(), trained)


def share4v(tower: str) -> dict[str, Any]:
    """ShareGPT4V's fields over LLaVA's."""
    fields = {"architectures": ["Share4VLlamaForCausalLM"], "model_type": "share4v", "torch_dtype": "bfloat16"}
    return config(tower, **fields)


def test_sharegpt4v_with_a_tower_of_its_own_beside(tmp_path: Path) -> None:
    """Its tower is a CLIPVisionModel saved apart."""
    beside = write_tower(tmp_path / "vit-large336-l12", tower_weights(seed=6))
    weights = {name: tensor.bfloat16() for name, tensor in (language_weights() | projector_weights()).items()}
    source = write_checkpoint(tmp_path / "share4v", share4v(str(beside)), weights)
    folder = converted(source, tmp_path / "out")
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert_same(folder, weights, {name: tensor.bfloat16() for name, tensor in tower_weights(seed=6).items()})


@pytest.mark.parametrize("fields", [{}, {"architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava"}])
def test_dualfocus_sharegpt4v_looks_through_the_tower_it_holds(tmp_path: Path, fields: dict[str, Any]) -> None:
    """The tower its config.json names is another model's (the released one is of the 7B): it is not taken."""
    other = write_tower(tmp_path / "ShareGPT4V-7B_Pretrained_vit-large336-l12", tower_weights(seed=6))
    weights = language_weights() | projector_weights() | inside(tower_weights())
    named = share4v(str(other)) | {"torch_dtype": "float16"} | fields
    source = write_checkpoint(tmp_path / "share4v", named, weights, bins=True)
    assert_same(converted(source, tmp_path / "out"), language_weights() | projector_weights(), tower_weights())


def adapter() -> tuple[Weights, Weights]:
    """LoRA matrices by peft's names, and the weights of `language_weights` that they change, changed."""
    random = torch.Generator().manual_seed(3)
    matrices, changed = {}, {}
    for layer in range(LAYERS):
        for part in ("q_proj", "v_proj"):
            name = f"model.layers.{layer}.self_attn.{part}"
            low, high = torch.randn(RANK, WIDTH, generator=random) / 8, torch.randn(WIDTH, RANK, generator=random) / 8
            matrices[f"base_model.model.{name}.lora_A.weight"] = low.half()
            matrices[f"base_model.model.{name}.lora_B.weight"] = high.half()
            delta = ALPHA / RANK * (high.half().float() @ low.half().float())
            changed[f"{name}.weight"] = (language_weights()[f"{name}.weight"].float() + delta).half()
    return matrices, changed


def write_adapter(folder: Path, tower: str, matrices: Weights, **settings: Any) -> Path:
    """A folder of LLaVA's LoRA training: adapter, what was trained beside it, config.json."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config(tower)))
    (folder / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA} | settings))
    torch.save(matrices, folder / "adapter_model.bin")
    others = {f"base_model.model.{name}": tensor for name, tensor in projector_weights().items()}
    torch.save(others, folder / "non_lora_trainables.bin")
    return folder


@pytest.fixture
def vicuna(tmp_path: Path) -> Path:
    """A language model alone, with its tokenizer."""
    fields = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_attention_heads": HEADS}
    return write_checkpoint(tmp_path / "vicuna", fields, language_weights(), bins=True)


def test_an_adapter_is_merged_into_its_base(tmp_path: Path, tower: Path, vicuna: Path) -> None:
    matrices, changed = adapter()
    source = write_adapter(tmp_path / "llava-lora", str(tower), matrices)
    folder = converted(source, tmp_path / "out", base=str(vicuna))
    assert_same(folder, language_weights() | projector_weights() | changed, tower_weights())


@pytest.mark.parametrize("trained", ["replaced", "by deltas"])
def test_a_tower_that_an_adapter_changes_does_not_give_way_unsaid(
    tmp_path: Path, tower: Path, vicuna: Path, trained: str
) -> None:
    matrices, _ = adapter()
    name = "model.vision_tower.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj"
    if trained == "by deltas":
        for which, shape in (("lora_A", (RANK, 8)), ("lora_B", (8, RANK))):
            matrices[f"base_model.model.{name}.{which}.weight"] = torch.ones(shape)
    source = write_adapter(tmp_path / "llava-lora", str(tower), matrices)
    if trained == "replaced":
        others = torch.load(source / "non_lora_trainables.bin")
        torch.save(others | {f"base_model.model.{name}.weight": torch.ones(8, 8)}, source / "non_lora_trainables.bin")
    with pytest.raises(ConfigError, match="it changes the vision tower"):
        converted(source, tmp_path / "out", base=str(vicuna))
    assert not (tmp_path / "out").exists()


def test_an_adapter_over_a_llava_replaces_its_projector(tmp_path: Path, tower: Path) -> None:
    base = write_checkpoint(tmp_path / "llava", config(str(tower)), language_weights() | projector_weights(seed=8))
    matrices, changed = adapter()
    source = write_adapter(tmp_path / "llava-lora", str(tower), matrices)
    folder = converted(source, tmp_path / "out", base=str(base))
    assert_same(folder, language_weights() | projector_weights() | changed, tower_weights())


@pytest.mark.parametrize("prefix", ["model.mm_projector.", "mm_projector."])
def test_a_projector_is_put_on_its_base(tmp_path: Path, tower: Path, vicuna: Path, prefix: str) -> None:
    source = tmp_path / "projector"
    source.mkdir()
    write_beside(source, config(str(tower)))
    named = {name.replace("model.mm_projector.", prefix): tensor for name, tensor in projector_weights().items()}
    torch.save(named, source / "mm_projector.bin")
    folder = converted(source, tmp_path / "out", base=str(vicuna))
    assert_same(folder, language_weights() | projector_weights(), tower_weights())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"r": None}, "r and lora_alpha must be positive numbers"),
        ({"r": 0}, "r and lora_alpha"),
    ],
)
def test_adapters_that_can_not_be_merged(
    tmp_path: Path, tower: Path, vicuna: Path, settings: dict[str, Any], told: str
) -> None:
    source = write_adapter(tmp_path / "llava-lora", str(tower), adapter()[0], **settings)
    with pytest.raises(ConfigError, match=told):
        plan(str(source), base=str(vicuna))


def test_half_an_adapter(tmp_path: Path, tower: Path, vicuna: Path) -> None:
    matrices, _ = adapter()
    matrices.popitem()
    source = write_adapter(tmp_path / "llava-lora", str(tower), matrices)
    with pytest.raises(ConfigError, match=r"only half of the LoRA of model\.layers\.1\.self_attn\.v_proj\.weight"):
        plan(str(source), base=str(vicuna))


def test_an_adapter_of_another_base(tmp_path: Path, tower: Path, vicuna: Path) -> None:
    matrices = {name.replace("layers.1", "layers.7"): tensor for name, tensor in adapter()[0].items()}
    source = write_adapter(tmp_path / "llava-lora", str(tower), matrices)
    with pytest.raises(ConfigError, match=r"The base has no model\.layers\.7\.self_attn\.q_proj\.weight"):
        converted(source, tmp_path / "out", base=str(vicuna))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, without a network: what was downloaded once."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cached(hub: Path, name: str) -> Path:
    """The folder of a model's one snapshot in the hub's cache."""
    model = hub / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("a" * 40)
    return model / "snapshots" / ("a" * 40)


def test_names_on_the_hub_are_found_for_model_and_tower(tmp_path: Path, offline_hub: Path) -> None:
    write_tower(cached(offline_hub, "openai/clip-vit-large-patch14-336"), tower_weights(), whole_clip=True)
    weights = language_weights() | projector_weights()
    fields = config("openai/clip-vit-large-patch14-336")
    write_checkpoint(cached(offline_hub, "liuhaotian/llava-v1.5-7b"), fields, weights, bins=True)
    planned = plan("liuhaotian/llava-v1.5-7b")
    convert(planned, tmp_path / "out", lambda done: None)
    assert_same(tmp_path / "out", weights, tower_weights())


def test_a_name_that_the_hub_does_not_have(offline_hub: Path) -> None:
    with pytest.raises(ConfigError, match=r"liuhaotian/llava-v1\.5-70b: it is no folder, and the hub can't give it"):
        plan("liuhaotian/llava-v1.5-70b")


@pytest.mark.parametrize(
    ("indexes", "taken"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model-*.safetensors"]),
        (["pytorch_model.bin"], ["pytorch_model-*.bin"]),
        ([], ["model.safetensors", "pytorch_model.bin"]),
    ],
)
def test_one_form_of_the_weights_is_downloaded(
    indexes: list[str], taken: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    for name in indexes:
        (tmp_path / f"{name}.index.json").write_text("{}")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert folder_of("liuhaotian/llava-v1.5-7b") == tmp_path
    assert asked[1] == asked[0] + taken


def test_a_whole_model_takes_no_base(tmp_path: Path, tower: Path, vicuna: Path) -> None:
    source = write_checkpoint(tmp_path / "llava", config(str(tower)), language_weights() | projector_weights())
    with pytest.raises(ConfigError, match="it is a whole model"):
        plan(str(source), base=str(vicuna))
