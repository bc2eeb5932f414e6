"""Runs: learning, stopping, going on, and what comes out."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dualfocus_engine.families.profiles import Profile, load_profile
from dualfocus_eval.scenes.generate import scenes
from dualfocus_training import train
from dualfocus_training.learning.objective import TERMS
from dualfocus_training.recipe import Recipe
from dualfocus_training.train import Run, Start
from transformers import AutoProcessor, LlavaForConditionalGeneration

RecipeOf = Callable[..., Recipe]


def losses_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "losses.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]


def stop_after(run: Run, steps: int) -> None:
    """Make a run fail at a step, as if its machine went away."""
    taken = iter(range(steps))
    step = run._take_step

    def fails(*arguments: Any) -> dict[str, float]:
        if next(taken, None) is None:
            raise KeyboardInterrupt
        return step(*arguments)

    run._take_step = fails  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


def test_a_stopped_run_goes_on_with_the_same_losses(
    recipe_of: RecipeOf, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, given_back = recipe_of(), []
    with monkeypatch.context() as patched:
        patched.setattr(train, "give_back_memory", lambda: given_back.append(True))
        Run(recipe, trained).train()
    checkpoints = sum(stage.steps // recipe.keep_every + 1 for stage in recipe.stages)
    assert len(given_back) == checkpoints, "what is free is given back with each"
    stopped = Run(recipe, tmp_path)
    stop_after(stopped, 6)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    before = losses_of(tmp_path)
    Run(recipe, tmp_path).train()
    # Step 3 of the second stage came after its last checkpoint and is taken again.
    assert losses_of(tmp_path) == before + losses_of(trained)[5:]
    assert before == losses_of(trained)[:6]


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc and tcmalloc")
def test_free_memory_can_be_given_back_here() -> None:
    assert train.give_back_memory()


def test_two_processes_share_a_steps_rows(recipe_of: RecipeOf, trained: Path, tmp_path: Path) -> None:
    """What `make model` does: a line for each step of both, and one model; stopped, it goes on with the same losses."""
    stages = [stage.model_dump(mode="json") for stage in recipe_of().stages]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    _train_by_two(tmp_path / "recipe.yaml", whole)
    recipe_of(stages=stages[:1])
    _train_by_two(tmp_path / "recipe.yaml", stopped)
    recipe_of()
    _train_by_two(tmp_path / "recipe.yaml", stopped)
    alone, shared = losses_of(trained), losses_of(whole)
    assert [(one["stage"], one["step"]) for one in shared] == [(one["stage"], one["step"]) for one in alone]
    # Nothing is learned before the first step; what covers each patch is a mean over all patches of all rows.
    assert shared[0]["cover"] == pytest.approx(alone[0]["cover"], rel=1e-4)
    assert losses_of(stopped) == [pytest.approx(one) for one in shared]
    assert LlavaForConditionalGeneration.from_pretrained(whole / "model").num_parameters()


def _train_by_two(recipe: Path, out: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    train = ["-m", "dualfocus_training.train", str(recipe), "--out", str(out)]
    subprocess.run([*launch, *train], check=True, timeout=300)


def test_the_model_is_an_ordinary_checkpoint(trained: Path, profile: Profile) -> None:
    folder = trained / "model"
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert processor.tokenizer.decode(processor.tokenizer("Ünïcode 42 🙂").input_ids) == "Ünïcode 42 🙂"
    assert load_profile(str(folder / "dualfocus.yaml")).micro_prompt == profile.micro_prompt
    picture, questions = next(scenes(1, 1))
    inputs = processor(
        text=f"USER: <image>\n{questions[0].question} ASSISTANT: ", images=picture.resize((32, 32)), return_tensors="pt"
    )
    assert model.generate(**inputs, max_new_tokens=3, do_sample=False).shape[1] > inputs["input_ids"].shape[1]


def test_later_stages_begin_with_an_exported_model(recipe_of: RecipeOf, trained: Path, tmp_path: Path) -> None:
    """Also where its words are others than the recipe's: they are found by name."""
    recipe = recipe_of()
    run = Run(recipe, tmp_path, Start(_with_other_words(trained / "model", tmp_path / "model"), "words"))
    own = {name: weight.clone() for name, weight in run._learner.model.state_dict().items()}
    exported = LlavaForConditionalGeneration.from_pretrained(trained / "model", dtype=torch.float32).state_dict()
    tables = [name for name, weight in exported.items() if "embed_tokens" in name or "lm_head" in name]
    assert len(tables) == 2
    for name, weight in exported.items():
        rows = torch.arange(len(weight))
        if name in tables:
            rows[[_SWAPPED, _SWAPPED + 1]] = rows[[_SWAPPED + 1, _SWAPPED]]
        assert torch.equal(own[name], weight[rows])
    run.train()
    assert [one["stage"] for one in losses_of(tmp_path)] == ["words"] * 5


# The first of two words of the vocabulary that stand in each other's place.
_SWAPPED = 300


def _with_other_words(model: Path, folder: Path) -> Path:
    """A copy of a model in which two words have each other's numbers, and so each other's rows of the tables."""
    shutil.copytree(model, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    one, other = (next(word for word, place in vocabulary.items() if place == _SWAPPED + step) for step in (0, 1))
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def test_curves_are_drawn(trained: Path) -> None:
    assert (trained / "losses.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def conversations(conversations_of: Callable[[Profile], Path], profile: Profile) -> Path:
    return conversations_of(profile)


PROJECTOR_AND_LANGUAGE = {"learned": ["multi_modal_projector", "language_model", "lm_head"]}
LORA_AND_CONNECTOR = {
    "learned": ["multi_modal_projector"],
    "lora": {"rank": 4, "alpha": 8, "dropout": 0.1, "modules": r".*language_model.*\.(q_proj|v_proj)"},
}


@pytest.mark.parametrize("part", [PROJECTOR_AND_LANGUAGE, LORA_AND_CONNECTOR])
def test_a_part_of_a_model_learns_from_conversations(
    part: dict[str, Any], recipe_of: RecipeOf, trained: Path, conversations: Path, tmp_path: Path
) -> None:
    base = trained / "model"
    stage = {
        "name": "conversations",
        "steps": 6,
        "rows": 6,  # all there are: each step sees the same ones
        "slices": 2,
        "conversations": [str(conversations)],
        "rates": {"adam": 1e-2, "warmup": 1},
    }
    Run(recipe_of(base=str(base), stages=[stage], **part), tmp_path).train()
    before, after = (LlavaForConditionalGeneration.from_pretrained(f).state_dict() for f in (base, tmp_path / "model"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("multi_modal_projector" in name for name in changed)
    assert any("language_model" in name for name in changed)
    assert not any("vision_tower" in name for name in changed)
    first, last = losses_of(tmp_path)[0], losses_of(tmp_path)[-1]
    assert (tmp_path / "adapter").exists() == (tmp_path / "base").exists() == ("lora" in part)
    # What is minimised is the sum: two low-rank projections can lower it for all terms only together.
    assert sum(last[term] for term in TERMS) < sum(first[term] for term in TERMS)
