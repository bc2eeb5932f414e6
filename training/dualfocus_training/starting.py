"""What a run learns: a small model made from nothing, or one to go on from, in whole or in part."""

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from dualfocus_eval.scenes.layout import Difficulty, compose
from dualfocus_eval.scenes.mixes import APART
from dualfocus_eval.scenes.questions import ask
from dualfocus_eval.scenes.together import ask_together
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from dualfocus_training.learning.conversations import Wording
from dualfocus_training.learning.courses import ConversationCourse, Course, SceneCourse
from dualfocus_training.learning.learner import SceneLearner
from dualfocus_training.learning.rounds import RoundsLearner
from dualfocus_training.models.bases import load_model, load_processor
from dualfocus_training.models.small_model import build_model, build_processor
from dualfocus_training.models.vocabulary import build_tokenizer
from dualfocus_training.recipe import Lora, Recipe

_TOKENIZER_SCENES = 2000


def build_processor_of(recipe: Recipe) -> Any:
    """The processor of the recipe's model."""
    if recipe.size is None:
        return load_processor(str(recipe.base))
    return build_processor(recipe.size, scene_tokenizer(Wording(recipe.load_profile())))


def scene_tokenizer(wording: Wording) -> PreTrainedTokenizerFast:
    """The small model's tokenizer: the words of scenes, and of the turns around their questions."""
    texts = [wording.verdict(enough) for enough in (True, False)]
    for number in range(_TOKENIZER_SCENES):
        rng = Random(f"words/{number}")
        apart = number % 4 == 0
        scene = compose(rng, APART if apart else Difficulty())
        for asked in ask_together(scene, rng) if apart else ask(scene, rng):
            texts += [wording.macro(asked.question), wording.grounding(asked.question)]
            texts += [wording.micro(asked.question), asked.answer, wording.boxes(asked.boxes)]
    return build_tokenizer(wording.phrases, texts)


def build_learner(recipe: Recipe, processor: Any) -> SceneLearner | RoundsLearner:
    """The model with its losses; weights that are not learned ask for no gradient."""
    if recipe.size is not None:
        torch.manual_seed(recipe.seed)
        learner: SceneLearner | RoundsLearner = SceneLearner(build_model(recipe.size, processor.tokenizer))
    else:
        model = load_model(str(recipe.base))
        learner = RoundsLearner(_with_lora(model, recipe.lora) if recipe.lora else model)
    _freeze(learner, recipe.learned)
    return learner


def load_weights(learner: SceneLearner, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Begin with the weights of an exported small model. Its words are found by name: the new ones stay as they are."""
    exported = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).state_dict()
    before, now = PreTrainedTokenizerFast.from_pretrained(folder).get_vocab(), tokenizer.get_vocab()
    known = [word for word in now if word in before]
    own = learner.model.state_dict()
    for name, weight in exported.items():
        if len(weight) == len(before):  # a row for each word
            weight, rows = own[name].clone(), weight
            weight[[now[word] for word in known]] = rows[[before[word] for word in known]]
        own[name].copy_(weight)


def _with_lora(model: nn.Module, lora: Lora) -> nn.Module:
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.modules)
    return get_peft_model(model, config)


def _freeze(learner: nn.Module, learned: Sequence[str]) -> None:
    """Learn what matches one of the patterns, and low-rank updates; raises ValueError if nothing does."""
    for name, weight in learner.named_parameters():
        weight.requires_grad = "lora_" in name or any(re.search(part, name) for part in learned)
    if not any(weight.requires_grad for weight in learner.parameters()):
        raise ValueError(f"no weight's name matches {', '.join(learned)}")


def build_course(recipe: Recipe, number: int, processor: Any) -> Course:
    """The data of a stage; each stage of a recipe draws its own."""
    stage, seed = recipe.stages[number], recipe.seed * 1000 + number
    if stage.scenes:
        return SceneCourse(recipe, stage.scenes, seed, processor.tokenizer)
    return ConversationCourse(stage.conversations, seed, processor, recipe.load_profile())
