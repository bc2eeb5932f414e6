"""A model of a few thousand weights, rows of scenes for it, and recipes that train it in seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from dualfocus_engine.families.boxes import crop_region
from dualfocus_engine.families.profiles import Profile, load_profile
from dualfocus_eval.scenes.generate import scenes
from dualfocus_eval.scenes.layout import Difficulty
from dualfocus_training.learning.conversations import Wording, macro, to_line, two_rounds
from dualfocus_training.learning.learner import SceneLearner
from dualfocus_training.learning.packing import SceneRows
from dualfocus_training.learning.rows import Eye, Mixture
from dualfocus_training.models.small_model import Size, build_model, build_processor
from dualfocus_training.recipe import Recipe, load_recipe
from dualfocus_training.starting import scene_tokenizer
from transformers import PreTrainedTokenizerFast

SIZE = Size(side=32, patch=16, vision_width=32, vision_layers=1, text_width=32, text_layers=3, head=16)
PROFILE_FILE = Path(__file__).parents[2] / "training" / "recipes" / "small.profile.yaml"


@pytest.fixture(scope="session")
def profile() -> Profile:
    return load_profile(str(PROFILE_FILE)).model_copy(update={"image_size": SIZE.side})


@pytest.fixture(scope="session")
def wording(profile: Profile) -> Wording:
    return Wording(profile)


@pytest.fixture(scope="session")
def tokenizer(wording: Wording) -> PreTrainedTokenizerFast:
    return scene_tokenizer(wording)


@pytest.fixture(scope="session")
def processor(tokenizer: PreTrainedTokenizerFast) -> Any:
    return build_processor(SIZE, tokenizer)


@pytest.fixture
def learner(tokenizer: PreTrainedTokenizerFast) -> SceneLearner:
    torch.manual_seed(0)
    return SceneLearner(build_model(SIZE, tokenizer)).eval()


@pytest.fixture(scope="session")
def rows_of(wording: Wording, tokenizer: PreTrainedTokenizerFast) -> Callable[..., SceneRows]:
    usual = Difficulty()

    def make(mixture: Mixture, difficulty: Difficulty = usual, side: int = SIZE.side, **more: Any) -> SceneRows:
        eye = Eye(side, side // SIZE.patch, (122, 116, 104))
        return SceneRows(7, (difficulty,), mixture, tokenizer._tokenizer, wording, eye, **more)

    return make


@pytest.fixture(scope="session")
def conversations_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Profile], Path]:
    """A file with both rounds and a macro sample for each of three scenes in a profile's words, pictures beside it."""

    def write(profile: Profile) -> Path:
        folder = tmp_path_factory.mktemp("conversations")
        lines = []
        for number, (picture, questions) in enumerate(scenes(2, 3)):
            asked = questions[0]
            picture.save(folder / f"{number}.png")
            picture.crop(crop_region(asked.box, picture.size, profile.crop)).save(folder / f"{number}-crop.png")
            pictures = f"{number}.png", f"{number}-crop.png"
            lines += [to_line(two_rounds(profile, *pictures, asked.question, asked.answer, asked.box))]
            lines += [to_line(macro(pictures[0], asked.question, asked.answer))]
        (folder / "conversations.jsonl").write_text("".join(lines), encoding="utf-8")
        return folder / "conversations.jsonl"

    return write


@pytest.fixture
def recipe_of(tmp_path: Path) -> Callable[..., Recipe]:
    """Recipes as a YAML file would give them; `changes` replace whole entries."""

    def make(**changes: Any) -> Recipe:
        settings = _SCENE_RECIPE | changes
        if "base" in changes:
            del settings["size"]
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return load_recipe(path)

    return make


_LOSSES = {
    "macro": 1.0,
    "box": 1.0,
    "answer": 1.0,
    "look": 0.3,
    "decimals": 0.3,
    "corners": 1.0,
    "print": 0.3,
    "ranks": 0.3,
    "points": 0.3,
    "cover": 0.3,
}
_SCENE_RECIPE: dict[str, Any] = {
    "seed": 3,
    "profile": str(PROFILE_FILE),
    "size": vars(SIZE),
    "workers": 0,
    "precision": "no",
    "keep_every": 2,
    "stages": [
        {
            "name": "patches",
            "steps": 3,
            "rows": 2,
            "scenes": {"mixture": {"crops": 1}},
            "rates": {"adam": 1e-3, "muon": 1e-3, "warmup": 2},
            "losses": _LOSSES,
        },
        {
            "name": "words",
            "steps": 5,
            "rows": 2,
            "scenes": {"mixture": {"macro": 2, "grounding": 2, "dual": 1, "jittered": 1}},
            "rates": {"adam": 1e-3, "muon": 1e-3, "warmup": 2, "cooldown": 2},
            "losses": _LOSSES,
        },
    ],
}
