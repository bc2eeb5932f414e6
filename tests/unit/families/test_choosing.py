"""Which profile a model is served with: the one named, its own, or that of its architecture and kind."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from dualfocus_engine.errors import ConfigError
from dualfocus_engine.families.choosing import PROFILE_FILE, ChosenProfile, choose_profile, profile_of
from dualfocus_engine.families.profiles import shipped_profile
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import LlavaConfig

# What config.json names, and the profile it is served with.
SERVED = {
    "DeepseekVLV2ForCausalLM": "deepseek-vl2",
    "Ernie4_5_VLMoeForConditionalGeneration": "ernie-4.5-vl",
    "Gemma3ForConditionalGeneration": "gemma3",
    "Gemma4ForConditionalGeneration": "gemma4",
    "Gemma4UnifiedForConditionalGeneration": "gemma4",
    "Glm4vForConditionalGeneration": "glm-v",
    "Glm4vMoeForConditionalGeneration": "glm-v",
    "InternVLChatModel": "internvl",
    "InternVLForConditionalGeneration": "internvl",
    "IsaacForConditionalGeneration": "isaac",
    "KimiVLForConditionalGeneration": "kimi-vl",
    "LlavaForConditionalGeneration": "llava-dualfocus",
    "LlavaHighResForConditionalGeneration": "fifth-patch",
    "LlavaNextForConditionalGeneration": "llava-next",
    "LlavaOnevisionForConditionalGeneration": "llava-next",
    "MiniCPMV": "minicpm-v",
    "Mistral3ForConditionalGeneration": "mistral3",
    "MolmoForCausalLM": "molmo",
    "Molmo2ForConditionalGeneration": "molmo2",
    "Gemma3nForConditionalGeneration": "no-grounding",
    "Idefics3ForConditionalGeneration": "no-grounding",
    "Llama4ForConditionalGeneration": "no-grounding",
    "Phi3VForCausalLM": "no-grounding",
    "Phi4ForCausalLMV": "no-grounding",
    "Phi4MMForCausalLM": "no-grounding",
    "PixtralForConditionalGeneration": "no-grounding",
    "SmolVLMForConditionalGeneration": "no-grounding",
    "Blip2ForConditionalGeneration": "one-picture",
    "GLM4VForCausalLM": "one-picture",
    "HfMoondream": "one-picture",
    "Moondream3ForCausalLM": "one-picture",
    "Ovis2_5": "ovis2.5",
    "Ovis2_6ForCausalLM": "ovis2.5",
    "Ovis2_6_MoeForCausalLM": "ovis2.5",
    "QWenLMHeadModel": "qwen-vl",
    "Qwen2VLForConditionalGeneration": "qwen2-vl",
    "Qwen2_5_VLForConditionalGeneration": "qwen2.5-vl",
    "Qwen3VLForConditionalGeneration": "qwen3-vl",
    "Qwen3VLMoeForConditionalGeneration": "qwen3-vl",
    "Qwen3_5ForConditionalGeneration": "qwen3.5",
    "Qwen3_5MoeForConditionalGeneration": "qwen3.5",
    "Qwen4ExpForConditionalGeneration": "qwen3.5",
}


def _write_own(folder: Path) -> None:
    own = shipped_profile("llava-dualfocus").replace("name: llava-dualfocus", "name: own")
    (folder / PROFILE_FILE).write_text(own)


def test_model_brings_its_own_profile(tmp_path: Path) -> None:
    _write_own(tmp_path)
    assert profile_of(str(tmp_path)).name == "own"


def test_named_profile_goes_before_the_models_own(tmp_path: Path) -> None:
    _write_own(tmp_path)
    assert profile_of(str(tmp_path), "paper").name == "paper"


@pytest.mark.parametrize("model", ["someone/some-model", "/no/such/folder", ".", "x" * 300])
def test_model_that_can_not_be_read_is_refused_and_not_taken_for_a_llava(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", _unreachable)
    with pytest.raises(ConfigError, match=r"there is no config.json that can be read"):
        profile_of(model)


@pytest.mark.parametrize("text", ["[]", "{", '"a"', '{"architectures": 3}'])
def test_configuration_that_can_not_be_read_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"its config.json can't be read"):
        profile_of(str(tmp_path))


def _unreachable(repo_id: str, filename: str, revision: str | None, token: str | None) -> str:
    raise OSError("no network")


@pytest.mark.parametrize(
    ("architectures", "profile"),
    [*(([name], profile) for name, profile in SERVED.items()), (["SomeOtherModel"], "paper"), (None, "paper")],
)
def test_profile_is_the_one_that_names_the_models_architecture(
    architectures: Any, profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": architectures}))
    assert profile_of(str(tmp_path)).name == profile
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", partial(_downloaded, tmp_path))
    assert profile_of("someone/some-model").name == profile


LLAVA_15: dict[str, Any] = {  # of llava-hf/llava-1.5-7b-hf
    "text_config": {"model_type": "llama", "vocab_size": 32064},
    "vision_config": {"model_type": "clip_vision_model", "image_size": 336},
}
OTHER_LLAVAS: dict[str, dict[str, Any]] = {
    "text_config.model_type": {"text_config": {"model_type": "mistral", "vocab_size": 32064}},  # BakLLaVA
    "text_config.vocab_size": {"text_config": {"model_type": "llama", "vocab_size": 128320}},  # LLaVA-Llama-3
    "vision_config.model_type": {  # Pixtral
        "text_config": {"model_type": "mistral", "vocab_size": 131072},
        "vision_config": {"model_type": "pixtral", "image_size": 1024},
    },
    "vision_config.image_size": {"vision_config": {"model_type": "clip_vision_model"}},  # transformers' 224
}


def _choose_llava(folder: Path, **parts: Any) -> ChosenProfile:
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlavaForConditionalGeneration"], **parts}))
    return choose_profile(str(folder))


@pytest.mark.parametrize(
    "parts", [LLAVA_15, {}, {"text_config": None}, {"text_config": {"model_type": "llama"}}, {"vision_config": None}]
)
def test_llava_15_is_asked_as_the_released_checkpoints(parts: dict[str, Any], tmp_path: Path) -> None:
    assert _choose_llava(tmp_path, **parts).profile.name == "llava-dualfocus"


@pytest.mark.parametrize("trait", OTHER_LLAVAS)
def test_other_models_of_its_architecture_keep_their_own_conversation_and_pictures(trait: str, tmp_path: Path) -> None:
    profile, why = _choose_llava(tmp_path, **LLAVA_15 | OTHER_LLAVAS[trait])
    assert (profile.name, profile.grounds) == ("no-grounding", False)
    assert (profile.chat_template, profile.system, profile.pad_color, profile.views) == (None, None, None, None)
    assert f"but {trait} in config.json is of another kind than llava-dualfocus is for" in why


@pytest.mark.parametrize("parts", [{}, {"vision_config": {}}, {"text_config": {}}])
def test_what_a_configuration_leaves_out_is_what_transformers_takes(parts: dict[str, Any], tmp_path: Path) -> None:
    filled = LlavaConfig(**json.loads(json.dumps(parts))).to_dict()
    named = {part: {name: filled[part][name] for name in told} for part, told in LLAVA_15.items()}
    assert _choose_llava(tmp_path, **parts).profile == _choose_llava(tmp_path, **named).profile


def _downloaded(
    folder: Path, repo_id: str, filename: str, revision: str | None, token: str | None, wanted: str | None = None
) -> str:
    """As the hub's client: what is not there, or not for who has no token, is an OSError."""
    if token != wanted:
        raise OSError("401")
    file = folder / (revision or ".") / filename
    if not file.exists():
        raise OSError("404")
    return str(file)


def test_a_profile_is_read_beside_a_models_configuration_on_the_hub_at_its_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", partial(_downloaded, tmp_path))
    (tmp_path / "v2").mkdir()
    _write_own(tmp_path / "v2")
    chosen = choose_profile("someone/some-model", revision="v2")
    assert (chosen.profile.name, chosen.why) == ("own", "the model's own dualfocus.yaml")
    with pytest.raises(ConfigError, match=r"no config\.json"):
        choose_profile("someone/some-model")
    assert choose_profile("someone/some-model", "paper", "v2").why == "it was named"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", partial(_downloaded, tmp_path, wanted="hf_mine"))
    assert profile_of("someone/some-model", None, "v2", "hf_mine").name == "own", "a gated model"
    with pytest.raises(ConfigError, match=r"no config\.json"):
        profile_of("someone/some-model", None, "v2")


@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_that_does_not_answer_is_told_from_a_model_without_a_profile(
    offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def answers_once(repo_id: str, filename: str, revision: str | None, token: str | None) -> str:
        if filename == PROFILE_FILE:
            raise LocalEntryNotFoundError("not in the cache") from TimeoutError("it took over 10 s")
        return _downloaded(tmp_path, repo_id, filename, revision, token)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answers_once)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    (tmp_path / "config.json").write_text("{}")
    assert profile_of("someone/some-model").name == "paper", "a machine that is cut off serves what it has"
    told = "someone/some-model: the hub could not be asked for dualfocus.yaml: it took over 10 s"
    assert caplog.messages == ([] if offline else [told])


def test_models_bad_profile_is_said_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / PROFILE_FILE).write_text("name: broken")
    with pytest.raises(ConfigError, match="grounding_prompt"):
        profile_of(str(tmp_path))
