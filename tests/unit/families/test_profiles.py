"""Profiles: those that ship, those of users, and what their text is made of."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from dualfocus_engine.errors import ConfigError
from dualfocus_engine.families.boxes import CropPolicy
from dualfocus_engine.families.profiles import Profile, load_profile, profile_names, shipped_profile
from dualfocus_engine.models import register
from dualfocus_training.models.untrained import untrained_profile
from jinja2.sandbox import ImmutableSandboxedEnvironment
from vllm import ModelRegistry
from vllm.model_executor.models.deepseek_vl2 import DeepseekVL2MultiModalProcessor

from .test_choosing import SERVED

LLAVA = load_profile("llava-dualfocus")
UNTRAINED = untrained_profile()
SINGLE_WORD = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def _own(folder: Path, **changes: Any) -> Path:
    """A user's profile: the shipped one with changes; a value of None takes the field out."""
    fields = yaml.safe_load(shipped_profile("llava-dualfocus")) | {"name": "own"} | changes
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in fields.items() if value is not None}))
    return path


def _vicuna(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """Render with the settings that transformers gives its chat templates."""
    assert LLAVA.chat_template is not None
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(LLAVA.chat_template)
    return template.render(messages=messages, add_generation_prompt=add_generation_prompt)


def test_shipped_profiles_are_named_and_load() -> None:
    assert profile_names() == sorted({*SERVED.values(), "paper", "dualfocus-released"})
    assert [load_profile(name).name for name in profile_names()] == profile_names()
    named = [name for profile in map(load_profile, profile_names()) for name in profile.architectures]
    assert sorted(named) == sorted(SERVED), "each architecture once"


def test_architectures_are_spelled_as_vllm_knows_them() -> None:
    register()
    assert set(SERVED) <= set(ModelRegistry.get_supported_archs())


@pytest.mark.parametrize("name", [name for name in profile_names() if name not in ("llava-dualfocus", "paper")])
def test_each_profile_says_how_far_it_was_tried(name: str) -> None:
    assert load_profile(name).verified


def test_models_that_can_not_point_are_known() -> None:
    blind = [name for name in profile_names() if not load_profile(name).grounds]
    assert blind == ["gemma3", "mistral3", "no-grounding", "one-picture"]
    assert [name for name in profile_names() if load_profile(name).crop_alone] == ["one-picture"]
    assert [name for name in profile_names() if load_profile(name).crop_in_picture] == ["fifth-patch"]


@pytest.mark.parametrize("name", ["ernie-4.5-vl", "glm-v", "minicpm-v", "qwen3.5"])
def test_models_that_think_by_default_are_told_not_to(name: str) -> None:
    profile = load_profile(name)
    assert profile.chat_template_kwargs == profile.grounding_template_kwargs == {"enable_thinking": False}


@pytest.mark.parametrize("name", ["ernie-4.5-vl", "glm-v", "kimi-vl", "qwen3-vl"])
def test_models_that_always_think_have_room_for_it_before_their_box(name: str) -> None:
    assert load_profile(name).max_box_tokens == 1024


def test_a_model_that_says_the_question_again_has_room_for_it_before_its_box() -> None:
    assert load_profile("internvl").max_box_tokens == 256


def test_deepseeks_prompts_hold_as_many_pictures_as_vllm_cuts_into_tiles() -> None:
    deepseek = load_profile("deepseek-vl2")
    assert (deepseek.max_images, deepseek.max_regions, deepseek.max_looks) == (2, 1, 2)
    assert "cropping=len(images) <= 2" in inspect.getsource(DeepseekVL2MultiModalProcessor)


def test_released_checkpoints_profile_is_what_they_were_trained_on() -> None:
    assert LLAVA.grounding_text("Where is it?") == (
        "Please provide the bounding box coordinate of the region this question asks: Where is it?"
    )
    assert LLAVA.micro_text("Where is it?") == (
        "Please combine the information from these two images and answer this question: Where is it?"
    )
    assert LLAVA.system == SYSTEM
    assert (LLAVA.crop, LLAVA.pad_color, LLAVA.image_size) == (CropPolicy(square=True, margin=25), (122, 116, 104), 336)
    assert (LLAVA.temperature, LLAVA.max_answer_tokens) == (0.0, 128)


def test_untrained_models_profile_has_the_papers_wording_and_a_notice() -> None:
    assert UNTRAINED.grounding_text("Where?") == (
        "Provide the coordinates of the region this question is asking about: Where?"
    )
    assert UNTRAINED.micro_text("Where?") == "Combine these two images and answer the question: Where?"
    assert UNTRAINED.notice
    assert "untrained" in UNTRAINED.notice


def test_grounding_turn_is_long_enough_for_a_box() -> None:
    # Twice the characters of a box: no tokenizer needs more.
    assert LLAVA.max_box_tokens >= len("[0.20, 0.41, 0.37, 0.74]") * 2


@pytest.mark.parametrize(
    ("question", "grounded"),
    [
        (f"What is this?\n{SINGLE_WORD}", "What is this?"),
        (f"What is this? {SINGLE_WORD}", "What is this?"),
        (f"What is this?\n{SINGLE_WORD.removesuffix('.')}", "What is this?"),
        (f"Which one?\nA. a cat\nB. a dog\n{LETTER}", "Which one?"),
        (f"Which one?\n(A) a cat\n(B) a dog\n{LETTER}", "Which one?"),
        ("Which one?\nA) a cat\nB) a dog", "Which one?"),
        ("Which one?\r\nA. a cat\r\nB. a dog\r\n", "Which one?"),
        (
            f"What does it say?\nReference OCR token: STOP, A, 12\n{SINGLE_WORD}",
            "What does it say?",
        ),
        ("What does it say?\nReference OCR tokens: STOP", "What does it say?"),
        # What only looks like an option stays.
        ("What letter comes after A. in the sign?", "What letter comes after A. in the sign?"),
        ("A man stands there. Who is he?", "A man stands there. Who is he?"),
        ("Who?\nU.S. citizens?", "Who?\nU.S. citizens?"),
        ("  Who is it?  ", "Who is it?"),
    ],
)
def test_grounding_asks_the_question_alone(question: str, grounded: str) -> None:
    assert LLAVA.bare(question) == grounded
    assert LLAVA.grounding_text(question).endswith(f": {grounded}")


def test_option_without_text_takes_no_other_line_with_it() -> None:
    assert "(on the left sign)" in LLAVA.bare("Which is red?\nA.\n(on the left sign)")
    assert LLAVA.bare("Which is red?\nA.\ta cat\nB. a dog\n(on the left sign)").endswith("(on the left sign)")


@pytest.mark.parametrize(
    "question",
    ["A. a cat\nB. a dog", f"{SINGLE_WORD}", f"(A) left\n(B) right\n{LETTER}", "Reference OCR token: STOP"],
)
def test_question_that_is_only_options_is_kept(question: str) -> None:
    assert LLAVA.bare(question) == question


def test_micro_turn_asks_the_question_as_it_was_sent() -> None:
    question = f"  Which one?\nA. a cat\nReference OCR token: STOP\n{LETTER}"
    assert LLAVA.micro_text(question).endswith(f": {question}")


@pytest.mark.parametrize("text", ["{x1} of {}", "{question}", "100 % {0}", r"\1 \g<0>"])
def test_braces_in_a_question_are_only_text(text: str) -> None:
    assert LLAVA.micro_text(text).endswith(f": {text}")
    assert LLAVA.grounding_text(text).endswith(f": {text}")


def test_profile_that_leaves_nothing_out_grounds_everything() -> None:
    assert UNTRAINED.bare(f"Which?\nA. a cat\n{SINGLE_WORD}") == f"Which?\nA. a cat\n{SINGLE_WORD}"


def test_first_turn_renders_as_vicuna_v1() -> None:
    text = "Please answer: What?"
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"<image>\n{text}"}]
    assert _vicuna(messages) == f"{SYSTEM} USER: <image>\n{text} ASSISTANT:"


def test_second_turn_renders_as_vicuna_v1() -> None:
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "<image>\nWhere?"},
        {"role": "assistant", "content": "[0.20, 0.41, 0.37, 0.74]"},
        {"role": "user", "content": "<image>\nWhat?"},
    ]
    assert _vicuna(messages) == (
        f"{SYSTEM} USER: <image>\nWhere? ASSISTANT: [0.20, 0.41, 0.37, 0.74]</s>USER: <image>\nWhat? ASSISTANT:"
    )
    assert _vicuna(messages, add_generation_prompt=False).endswith("USER: <image>\nWhat? ")


def test_users_profile_loads_from_its_file(tmp_path: Path) -> None:
    path = _own(tmp_path, crop={"square": False, "margin": 0}, image_size=224, system=None)
    profile = load_profile(str(path))
    assert (profile.name, profile.image_size, profile.system) == ("own", 224, None)
    assert profile.crop == CropPolicy(square=False, margin=0)


def test_profile_can_not_be_changed_once_loaded() -> None:
    with pytest.raises(ValueError, match="frozen"):
        LLAVA.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "name", ["vicuna", "", "/no/such/file.yaml", "..", "llava-dualfocus.yaml", pytest.param("x" * 300, id="long")]
)
def test_unknown_profile_names_those_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match=r"give one of .*internvl.*, paper, qwen-vl, .*, or a YAML file"):
        load_profile(name)


BOX_FORMAT = LLAVA.box_format.model_dump()


@pytest.mark.parametrize(
    ("changes", "field", "complaint"),
    [
        ({"grounding_prompt": "Where?"}, "grounding_prompt", "{question}"),
        ({"micro_prompt": "Answer {q}"}, "micro_prompt", "{question}"),
        ({"micro_prompt": None}, "micro_prompt", "required"),
        ({"box_format": None}, "box_format", "required"),
        ({"box_format": BOX_FORMAT | {"pattern": r"\d+"}}, "box_format.pattern", "x1, x2, y1, y2"),
        ({"box_format": BOX_FORMAT | {"pattern": "("}}, "box_format.pattern", "unterminated"),
        ({"box_format": BOX_FORMAT | {"scale": 0}}, "box_format.scale", "greater than 0"),
        (
            {"box_format": BOX_FORMAT | {"pattern": "(?P<x1>a{99999999999})"}},
            "box_format.pattern",
            "not a valid",
        ),
        ({"box_format": BOX_FORMAT | {"template": "[{x1}, {y1}, {x2}, {y3}]"}}, "box_format.template", "y3"),
        ({"strip_patterns": ["fine", "("]}, "strip_patterns.1", "unterminated"),
        ({"crop": {"margin": -1}}, "crop.margin", "greater than or equal to 0"),
        ({"pad_color": [122, 116]}, "pad_color", "required"),
        ({"pad_color": "white"}, "pad_color", "tuple"),
        ({"pad_color": [0, 0, 256]}, "pad_color.2", "less than or equal to 255"),
        ({"pad_color": [-1, 0, 0]}, "pad_color.0", "greater than or equal to 0"),
        ({"pad_color": None}, "image_size", "needs pad"),
        ({"crop_alone": True, "crop_in_picture": True}, "crop_in_picture", "exclude each other"),
        ({"crop_in_picture": True, "box_format": BOX_FORMAT | {"lists": True}}, "crop_in_picture", "takes one crop"),
        ({"image_size": 0}, "image_size", "greater than 0"),
        ({"max_answer_tokens": 0}, "max_answer_tokens", "greater than 0"),
        ({"max_images": 0}, "max_images", "greater than 0"),
        ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
        ({"colour": "red"}, "colour", "not permitted"),
    ],
)
def test_bad_profile_names_the_field_and_what_is_accepted(
    tmp_path: Path, changes: dict[str, Any], field: str, complaint: str
) -> None:
    path = _own(tmp_path, **changes)
    with pytest.raises(ConfigError) as refused:
        load_profile(str(path))
    assert str(path) in str(refused.value)
    assert field in str(refused.value)
    assert complaint in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"- a list", b"just text", b"a: [", b"\xff\xfe\x00", b"\tname: x", b"a\0b"])
def test_file_that_is_no_profile_is_a_bad_question(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"own\.yaml"):
        load_profile(str(path))


def test_yaml_makes_no_python_objects(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(ConfigError):
        load_profile(str(path))


def test_model_of_any_other_family_is_asked_as_it_was_made_and_its_user_is_told() -> None:
    paper = load_profile("paper")
    assert paper.grounding_text("Where?").endswith("region this question is asking about: Where?")
    assert (paper.chat_template, paper.system, paper.pad_color, paper.image_size) == (None, None, None, None)
    assert "no profile of its own" in str(paper.notice)


def test_grammar_that_is_no_regular_expression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"box_format.grammar.*\n.*not a valid regular"):
        load_profile(str(_own(tmp_path, box_format=BOX_FORMAT | {"grammar": "[0-9"})))


def test_profile_needs_wording_and_notation_only() -> None:
    least = {"name": "x", "grounding_prompt": "{question}", "micro_prompt": "{question}", "box_format": BOX_FORMAT}
    profile = Profile.model_validate(least)
    assert (profile.pad_color, profile.image_size, profile.system, profile.chat_template) == (None, None, None, None)
    assert profile.crop == CropPolicy(square=True, margin=25)
