"""One YAML per run: the model, what is learned of it, the data, and the stages of training."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from dualfocus_engine.families.profiles import Profile, load_profile
from dualfocus_eval.scenes.layout import Difficulty
from dualfocus_eval.scenes.mixes import MIXES
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from dualfocus_training.learning.objective import TERMS
from dualfocus_training.learning.rows import Mixture
from dualfocus_training.models.small_model import Size


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Rates(_Part):
    """Learning rates; both warm up over `warmup` steps and fall to 0 over the last `cooldown`."""

    adam: float
    muon: float | None = Field(default=None, description="for matrices; none leaves them to AdamW too")
    decay: float = 0.01
    warmup: int = 50
    cooldown: int = 0


def _of_mix(value: Any) -> Any:
    """The difficulty of scenes that models are judged by, where it is given by the mix's name."""
    if not isinstance(value, str):
        return value
    if value not in MIXES:
        raise ValueError(f"there is no mix {value!r}: give one of {', '.join(MIXES)}, or a difficulty")
    return MIXES[value].difficulty


class Scenes(_Part):
    """Scenes drawn as training goes; a mixture of crops alone trains the encoder without words."""

    difficulties: tuple[Annotated[Difficulty, BeforeValidator(_of_mix)], ...] = (Difficulty(),)
    mixture: Mixture
    system: float = Field(default=0.0, ge=0, le=1, description="the share of rows that begin with a system message")
    apart: bool = Field(default=False, description="the words teach the language model, not the encoder")


class Stage(_Part):
    """Steps over one sort of data: scenes drawn as training goes, or files of conversations."""

    name: str
    steps: int
    rows: int = Field(description="conversations or packed rows in a batch, over all processes")
    slices: int = Field(default=1, gt=0, description="parts in which each process takes its batch")
    scenes: Scenes | None = None
    conversations: tuple[Path, ...] = ()
    rates: Rates
    losses: dict[str, float] = Field(default=dict.fromkeys(TERMS, 1.0), description="weight of each loss by name")

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.scenes is None) == (not self.conversations):
            raise ValueError("a stage has either scenes or conversations")
        return self


class Lora(_Part):
    """Low-rank updates of the modules whose names match; merged into the model at export."""

    rank: int
    alpha: int
    dropout: float = 0.0
    modules: str = Field(description="a regular expression of module names")


class Recipe(_Part):
    """Everything a run needs. Either `size` (a model made from nothing) or `base` (one to go on from).

    `learned` holds regular expressions of weight names; weights that match none stay as they are.
    """

    seed: int
    profile: str
    size: Size | None = None
    base: str | None = None
    learned: tuple[str, ...] = (".*",)
    lora: Lora | None = None
    stages: tuple[Stage, ...]
    workers: int = 1
    precision: Literal["no", "bf16"] = "bf16"
    keep_every: int = Field(default=200, gt=0, description="steps between checkpoints")

    @model_validator(mode="after")
    def _has_one_start(self) -> Self:
        if (self.size is None) == (self.base is None):
            raise ValueError("a recipe has either a size or a base")
        if self.base and any(stage.scenes for stage in self.stages):
            raise ValueError("drawn scenes train a model made from nothing; write them out for a base")
        return self

    def load_profile(self) -> Profile:
        """The wording of the turns; raises ConfigError where there is no such profile."""
        return load_profile(self.profile)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; raises pydantic.ValidationError naming what is wrong.

    A profile given as a file is looked for beside the recipe.
    """
    settings: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    recipe = Recipe.model_validate(settings)
    beside = path.parent / recipe.profile
    return recipe.model_copy(update={"profile": str(beside)}) if beside.is_file() else recipe
