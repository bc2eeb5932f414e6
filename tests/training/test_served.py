"""Tiny runs of the committed recipes: trained, saved, served, and asked by two looks."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from dualfocus_engine import Box, DualFocus, Question
from dualfocus_engine.families.profiles import Profile
from dualfocus_training.models.small_model import Size
from dualfocus_training.recipe import Recipe, Stage, load_recipe
from dualfocus_training.train import Run
from PIL import Image

pytestmark = pytest.mark.slow
RECIPES = Path(__file__).parents[2] / "training" / "recipes"
Photo = Callable[[str], Image.Image]
# Heads that vLLM's attention takes.
SIZE = Size(side=32, patch=16, vision_width=64, vision_layers=1, text_width=64, text_layers=3, head=32)


def shrunk(name: str, **changes: object) -> Recipe:
    """A committed recipe whose stages take two steps of two rows."""
    recipe = load_recipe(RECIPES / name)
    stages = tuple(_shrunk(stage) for stage in recipe.stages)
    return recipe.model_copy(update={"stages": stages, "workers": 0, "precision": "no", **changes})


def _shrunk(stage: Stage) -> Stage:
    rates = stage.rates.model_copy(update={"warmup": 1, "cooldown": 0})
    return stage.model_copy(update={"steps": 2, "rows": 2, "slices": 1, "rates": rates})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model made from nothing by `small.yaml`."""
    folder = tmp_path_factory.mktemp("small")
    Run(shrunk("small.yaml", size=SIZE), folder).train()
    return folder / "model"


@pytest.fixture(scope="module")
def llava(small: Path, conversations_of: Callable[[Profile], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, gone on with by `llava.yaml`."""
    folder, recipe = tmp_path_factory.mktemp("llava"), shrunk("llava.yaml", base=str(small))
    conversations = (conversations_of(recipe.load_profile()),)
    stages = tuple(stage.model_copy(update={"conversations": conversations}) for stage in recipe.stages)
    Run(recipe.model_copy(update={"stages": stages}), folder).train()
    return folder / "model"


@pytest.fixture(scope="module")
async def served(small: Path) -> AsyncIterator[DualFocus]:
    async with DualFocus(str(small), dtype="float32", kv_cache_memory_bytes=1 << 29, enforce_eager=True) as running:
        yield running


async def test_what_the_recipes_train_is_served_and_looks_twice(served: DualFocus, llava: Path, photo: Photo) -> None:
    small = await _look_twice(served, photo("coffee"))
    # Of one architecture: the engine that has one's weights takes the other's, and drops what it kept of pictures.
    await served.engine.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(llava)})
    await served.engine.llm.reset_encoder_cache()
    await served.engine.llm.reset_prefix_cache()
    assert await _look_twice(served, photo("coffee")) != small


async def _look_twice(served: DualFocus, picture: Image.Image) -> float:
    """Ask by two looks; returns macro's perplexity. A model that hardly learned is told where to look."""
    question = Question.about(picture, "What colour is the cup?")
    result = await served.answer(replace(question, box=Box(0.2, 0.2, 0.7, 0.7)))
    assert result.macro is not None
    assert result.look is not None
    assert result.look.micro is not None
    assert result.winner in ("macro", "micro")
    return result.macro.perplexity
