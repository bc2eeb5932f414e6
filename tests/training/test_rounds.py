"""What a model learns from conversations is what it will be served: its template, its pictures, where answers start."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dualfocus_engine.conversion.convert import convert, plan
from dualfocus_engine.conversion.tokens import legacy_ids, read_pieces
from dualfocus_engine.families.profiles import Profile, load_profile
from dualfocus_training.learning.conversations import Conversation, asks, macro, read_conversations, says, to_line
from dualfocus_training.learning.courses import ConversationCourse
from dualfocus_training.learning.objective import IGNORED, TERMS
from dualfocus_training.learning.rounds import RoundsBatch, Template, collate_rounds
from dualfocus_training.models.bases import load_processor
from dualfocus_training.recipe import Recipe
from dualfocus_training.train import Run
from PIL import Image
from pydantic import ValidationError
from transformers import LlavaForConditionalGeneration

from tests.unit.conversion.original import (
    SIDE,
    VOCABULARY,
    config,
    inside,
    language_weights,
    projector_weights,
    tower_weights,
    write_checkpoint,
)

IMAGE_TOKENS = 16
QUESTION, BOX = "What is on the sign?", "[0.20, 0.41, 0.37, 0.74]"
RED = Image.new("RGB", (SIDE, SIDE), "red")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint in LLaVA's own layout."""
    weights = language_weights() | projector_weights() | inside(tower_weights())
    return write_checkpoint(tmp_path_factory.mktemp("original") / "model", config("/nowhere/clip"), weights)


@pytest.fixture(scope="module")
def converted(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "model"
    convert(plan(str(original)), folder, lambda done: None)
    return folder


@pytest.fixture(scope="module")
def llava(converted: Path) -> Template:
    profile = load_profile("llava-dualfocus").model_copy(update={"image_size": SIDE})
    return Template(load_processor(str(converted)), profile)


def learned(batch: RoundsBatch) -> list[tuple[str, list[int]]]:
    """The answers of the first conversation: which term each is, and its tokens."""
    found: list[tuple[str, list[int]]] = []
    places = (batch.targets.labels[0] != IGNORED).nonzero()[:, 0].tolist()
    for before, place in zip([-1, *places], places, strict=False):
        if place != before + 1:
            found.append((TERMS[batch.targets.terms[0, place]], []))
        found[-1][1].append(int(batch.targets.labels[0, place]))
    return found


def test_two_rounds_have_the_ids_that_llava_gives_them(llava: Template, original: Path) -> None:
    """As METHOD.md writes the conversation, by the tokenizer's own rule: no piece begins with a second space."""
    profile, pieces = llava.profile, read_pieces(original, VOCABULARY)
    words = profile.grounding_text(QUESTION), profile.micro_text(QUESTION)
    talk = Conversation(["a", "b"], [asks(words[0]), says(BOX), asks(words[1]), says("42")])
    batch = collate_rounds(llava, [(talk, [RED, RED])])
    text = (
        f"<s>{profile.system} USER: <image>\n{words[0]} ASSISTANT: {BOX}</s>USER: <image>\n{words[1]} ASSISTANT: 42</s>"
    )
    shown = [[one] * IMAGE_TOKENS if one == VOCABULARY else [one] for one in legacy_ids(pieces, text)]
    assert batch.inputs["input_ids"][0].tolist() == [one for some in shown for one in some]
    answers = [[*pieces.encode(answer), pieces.eos_id()] for answer in (BOX, "42")]
    assert learned(batch) == [("box", answers[0]), ("answer", answers[1])]


def test_the_prompt_is_what_generation_starts_from(llava: Template) -> None:
    talk = macro("a", QUESTION, "A dog.")
    batch = collate_rounds(llava, [(talk, [RED])])
    prompt = llava.inputs(talk.messages[:1], [RED], prompt=True)["input_ids"][0].tolist()
    ((term, answer),) = learned(batch)
    assert (term, prompt + answer) == ("macro", batch.inputs["input_ids"][0].tolist())


def test_several_questions_about_one_picture_are_learned(llava: Template) -> None:
    system: dict[str, Any] = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    talk = Conversation(
        ["a", "b"], [system, asks("Which?", pictures=2), says("Red."), asks("Sure?", pictures=0), says("Yes.")]
    )
    batch = collate_rounds(llava, [(talk, [RED, RED]), (macro("a", QUESTION, "Green."), [RED])])
    tokenizer = llava.processor.tokenizer
    assert [(term, tokenizer.decode(ids)) for term, ids in learned(batch)] == [
        ("macro", "Red.</s>"),
        ("macro", "Yes.</s>"),
    ]
    text = tokenizer.decode(batch.inputs["input_ids"][0])
    assert text.startswith("<s> Be brief. USER:")
    assert text.count("<image>") == 2 * IMAGE_TOKENS
    assert len(batch.inputs["pixel_values"]) == 3


def test_a_template_that_does_not_close_answers_is_refused(llava: Template) -> None:
    open_ended = (llava.profile.chat_template or "").replace(" + '</s>'", " + ' '")
    template = Template(llava.processor, llava.profile.model_copy(update={"chat_template": open_ended}))
    with pytest.raises(ValueError, match="ends no answer with eos_token"):
        collate_rounds(template, [(macro("a", QUESTION, "Green."), [RED])])


def test_pictures_are_shown_as_the_server_shows_them(llava: Template, tmp_path: Path) -> None:
    """Upright, on white, padded to a square: a box is a share of all of the picture."""
    turned = Image.new("RGB", (80, 40), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (40, 40)).save(tmp_path / "clear.png")
    lines = [to_line(macro(name, QUESTION, "Red.")) for name in ("turned.jpg", "clear.png")]
    (tmp_path / "talks.jsonl").write_text("".join(lines))
    course = ConversationCourse([tmp_path / "talks.jsonl"], 1, llava.processor, llava.profile)
    shown = {talk.images[0]: picture for talk, (picture,) in (course[0], course[1])}
    assert {picture.size for picture in shown.values()} == {(SIDE, SIDE)}
    assert shown["clear.png"].getcolors() == [(SIDE * SIDE, (255, 255, 255))]
    assert shown["turned.jpg"].getpixel((2, SIDE // 2)) == llava.profile.pad_color
    assert shown["turned.jpg"].getpixel((SIDE // 2, 2))[0] > 200


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([says("Red."), asks("What?")], "don't take turns"),
        ([asks("What?")], "don't take turns"),
        ([asks("What?", pictures=2), says("Red.")], "shows 2 pictures and names 1"),
        ([{"role": "user"}, says("Red.")], "content"),
    ],
)
def test_a_line_that_is_no_conversation_is_named(messages: list[dict[str, Any]], told: str, tmp_path: Path) -> None:
    lines = [to_line(macro("a", QUESTION, "Red.")), json.dumps({"images": ["a"], "messages": messages})]
    (tmp_path / "talks.jsonl").write_text("".join(lines))
    with pytest.raises(ValueError, match=rf"talks\.jsonl, line 2: .*{told}"):
        list(read_conversations(tmp_path / "talks.jsonl"))


def test_a_content_may_be_one_text(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *macro("a", QUESTION, "Red.").messages]
    (tmp_path / "talks.jsonl").write_text(json.dumps({"images": ["a"], "messages": messages}))
    (talk,) = read_conversations(tmp_path / "talks.jsonl")
    assert talk.messages[0]["content"] == [{"type": "text", "text": "Be brief."}]


def test_a_converted_checkpoint_learns(
    converted: Path, conversations_of: Callable[[Profile], Path], recipe_of: Callable[..., Recipe], tmp_path: Path
) -> None:
    """The recipe of LLaVA on a tiny one, in its own words; what comes out answers as it was taught."""
    profile = load_profile("llava-dualfocus")
    stage = {
        "name": "epoch",
        "steps": 4,
        "rows": 6,
        "conversations": [str(conversations_of(profile))],
        "rates": {"adam": 3e-3, "warmup": 1},
    }
    parts = ["multi_modal_projector", "language_model", "lm_head"]
    recipe = recipe_of(base=str(converted), profile="llava-dualfocus", learned=parts, stages=[stage])
    recipe = recipe.model_copy(update={"profile": _of_size(tmp_path)})
    Run(recipe, tmp_path).train()
    losses = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert sum(losses[-1][term] for term in TERMS) < sum(losses[0][term] for term in TERMS)
    assert LlavaForConditionalGeneration.from_pretrained(tmp_path / "model").num_parameters()


def _of_size(folder: Path) -> str:
    """The profile of LLaVA's file, for the tiny encoder."""
    text = load_profile("llava-dualfocus").model_copy(update={"image_size": SIDE}).model_dump_json()
    (folder / "llava.yaml").write_text(text)
    return str(folder / "llava.yaml")


def test_a_precision_that_needs_scaled_gradients_is_refused(recipe_of: Callable[..., Recipe]) -> None:
    with pytest.raises(ValidationError, match="precision"):
        recipe_of(precision="fp16")


def test_rows_that_can_not_be_shared_out_evenly_are_refused(recipe_of: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = recipe_of()
    uneven = recipe.stages[0].model_copy(update={"rows": 3, "slices": 2})
    with pytest.raises(ValueError, match="3 rows can't be shared out among 1 processes of 2 slices"):
        Run(recipe.model_copy(update={"stages": (uneven,)}), tmp_path)
