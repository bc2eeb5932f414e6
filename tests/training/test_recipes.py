"""The recipes that are committed can be read, and weigh every loss that their stages have."""

from dataclasses import astuple
from pathlib import Path

import pytest
from dualfocus_training.learning.objective import TERMS
from dualfocus_training.recipe import Stage, load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "training" / "recipes").glob("*.yaml"))
OF_PATCHES = {"look", "decimals", "corners", "print", "ranks", "cover"}


@pytest.mark.parametrize("path", [p for p in RECIPES if not p.name.endswith(".profile.yaml")], ids=lambda p: p.stem)
def test_a_recipe_is_whole(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.load_profile()
    for stage in recipe.stages:
        assert losses_of(stage) <= set(stage.losses)


def losses_of(stage: Stage) -> set[str]:
    if stage.scenes is None:
        return set(TERMS)
    mixture = stage.scenes.mixture
    return OF_PATCHES | ({*TERMS, "points"} if any(astuple(mixture)[:-1]) else set())
