"""The tiny models of the families: always the same bytes; pictures and templates as the published models have them."""

import filecmp
from pathlib import Path

import numpy as np
import pytest
from dualfocus_training.models import families
from dualfocus_training.models.families import FAMILIES, ensure_tiny, tiny_path, write_tiny
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor, AutoTokenizer

_LOOK = [{"type": "image"}, {"type": "text", "text": "What?"}]
_CHAT = [
    {"role": "user", "content": _LOOK},
    {"role": "assistant", "content": "A cat."},
    {"role": "user", "content": _LOOK},
]
_QWEN = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n"
    "<|im_start|>assistant\nA cat.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n"
    "<|im_start|>assistant\n"
)
_QWEN2 = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + _QWEN
_CHATS = {
    "qwen2-vl": _QWEN2,
    "qwen2.5-vl": _QWEN2,
    "qwen3-vl": _QWEN,
    "qwen3-vl-moe": _QWEN,
    "internvl": _QWEN.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n"),
    "qwen3.5": _QWEN + "<think>\n",
    "glm-v": (
        "[gMASK]<sop><|user|>\n<|begin_of_image|><|image|><|end_of_image|>What?<|assistant|>\nA cat."
        "<|user|>\n<|begin_of_image|><|image|><|end_of_image|>What?<|assistant|>\n"
    ),
    "gemma4": (
        "<bos><|turn>user\n<|image|>What?<turn|>\n<|turn>model\nA cat.<turn|>\n"
        "<|turn>user\n<|image|>What?<turn|>\n<|turn>model\n"
    ),
    "gemma3": (
        "<bos><start_of_turn>user\n<start_of_image>What?<end_of_turn>\n<start_of_turn>model\nA cat.<end_of_turn>\n"
        "<start_of_turn>user\n<start_of_image>What?<end_of_turn>\n<start_of_turn>model\n"
    ),
    "llava-next": "USER: <image>\nWhat? ASSISTANT: A cat.</s>USER: <image>\nWhat? ASSISTANT:",
    "llava-onevision": (
        "<|im_start|>user <image>\nWhat?<|im_end|><|im_start|>assistant \nA cat.<|im_end|>"
        "<|im_start|>user <image>\nWhat?<|im_end|><|im_start|>assistant\n"
    ),
    "mistral3": "<s>[INST][IMG]What?[/INST]A cat.</s>[INST][IMG]What?[/INST]",
    "idefics3": (
        "<|begin_of_text|>User:<image>What?<end_of_utterance>\nAssistant: A cat.<end_of_utterance>\n"
        "User:<image>What?<end_of_utterance>\nAssistant:"
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_the_same_bytes_every_time(family: str, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("other", 0), ("another", 1)):
        write_tiny(family, tmp_path / name, seed)
    files = [path.name for path in (tmp_path / "one").iterdir()]
    assert sum((tmp_path / "one" / name).stat().st_size for name in files) < 5e6
    same, *others = filecmp.cmpfiles(tmp_path / "one", tmp_path / "other", files, shallow=False)
    assert (sorted(same), others) == (sorted(files), [[], []])
    _, different, _ = filecmp.cmpfiles(tmp_path / "one", tmp_path / "another", files, shallow=False)
    assert different == ["model.safetensors"]


@pytest.mark.parametrize("family", _CHATS)
def test_a_conversation_is_written_as_the_published_template_writes_it(family: str) -> None:
    processor = AutoProcessor.from_pretrained(ensure_tiny(family))
    assert processor.apply_chat_template(_CHAT, add_generation_prompt=True) == _CHATS[family]


def test_internvls_own_form_takes_messages_as_texts_and_has_the_other_forms_weights_and_tokens() -> None:
    forms = [ensure_tiny(family) for family in ("internvl-chat", "internvl")]
    own, other = (AutoTokenizer.from_pretrained(form) for form in forms)
    chat = [{"role": "user", "content": "<image>\nWhat?"}]
    written = "<|im_start|>user\n<image>\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    assert own.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == written
    assert own.get_vocab() == other.get_vocab()
    sums = [
        sum(float(tensor.double().sum()) for tensor in load_file(form / "model.safetensors").values()) for form in forms
    ]
    assert sums[0] == pytest.approx(sums[1], rel=1e-12)


def test_the_tool_that_returns_a_crop_answers_as_a_user_in_marks() -> None:
    arguments = {"bbox_2d": [1, 2, 3, 4]}
    calls = [{"type": "function", "function": {"name": "zoom", "arguments": arguments}}]
    chat = [{"role": "assistant", "content": "", "tool_calls": calls}, {"role": "tool", "content": _LOOK}]
    processor = AutoProcessor.from_pretrained(ensure_tiny("qwen3-vl"))
    assert processor.apply_chat_template(chat) == (
        '<|im_start|>assistant\n<tool_call>\n{"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}\n</tool_call>'
        "<|im_end|>\n<|im_start|>user\n<tool_response>\n<|vision_start|><|image_pad|><|vision_end|>What?\n"
        "</tool_response><|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("family", "vanishing", "surviving"),
    [
        ("qwen2.5-vl", "<|object_ref_start|> <|box_start|> <|box_end|> <|im_end|>", "<tool_call>"),
        ("qwen3-vl", "<|box_start|> <|box_end|> <|im_end|>", "<think> </think> <tool_call> <tool_response>"),
        ("internvl", "<ref> </ref> <box> </box> <IMG_CONTEXT> <|im_end|>", "<tool_call>"),
        ("glm-v", "<|begin_of_box|> <|end_of_box|> <|user|>", "<think> </think> <answer>"),
        ("gemma4", "<|channel> <channel|> <|image|> <turn|>", "box_2d"),
    ],
)
def test_special_tokens_vanish_from_answers_and_others_survive(family: str, vanishing: str, surviving: str) -> None:
    tokenizer = AutoProcessor.from_pretrained(ensure_tiny(family)).tokenizer
    tokens = tokenizer.encode(f"{vanishing} é 12 {surviving}", add_special_tokens=False)
    assert tokenizer.decode(tokens, skip_special_tokens=True).strip() == f"é 12 {surviving}"
    assert tokenizer.convert_tokens_to_ids(vanishing.split()[0]) == tokens[0], "one token each"


@pytest.mark.parametrize(
    ("family", "size"),
    [
        ("qwen2.5-vl", (448, 224)),
        ("qwen3-vl", (512, 256)),
        ("internvl", (448, 448)),
        ("qwen3.5", (512, 256)),
        ("glm-v", (448, 224)),
        ("gemma3", (896, 896)),
        ("mistral3", (448, 224)),
    ],
)
def test_a_picture_of_whole_steps_is_shown_as_it_is(family: str, size: tuple[int, int]) -> None:
    """Whoever resizes pictures to such sizes decides by himself what the model sees."""
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    processor = AutoProcessor.from_pretrained(ensure_tiny(family)).image_processor
    seen = np.asarray(processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"])
    expected = (pixels / 255 - np.array(processor.image_mean)) / np.array(processor.image_std)
    # In another order, and Qwen's twice: a still picture is two frames.
    repeated = np.repeat(expected, seen.size // expected.size)
    assert np.allclose(np.sort(seen, axis=None), np.sort(repeated), atol=1e-5)


def test_the_models_of_another_version_have_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tiny_path("qwen3-vl")
    assert tiny_path("qwen3-vl") == before != tiny_path("qwen2.5-vl")
    (tmp_path / "other.py").write_text("")
    monkeypatch.setattr(families, "__file__", str(tmp_path / "__init__.py"))
    assert tiny_path("qwen3-vl") != before
