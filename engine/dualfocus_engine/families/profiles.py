"""Profiles: what differs between model families, as data; the method's code has no `if model == …`."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dualfocus_engine.errors import ConfigError
from dualfocus_engine.families.box_format import BoxFormat
from dualfocus_engine.families.boxes import CropPolicy
from dualfocus_engine.families.hints import HINTS
from dualfocus_engine.families.patterns import Regex, without
from dualfocus_engine.families.views import Views

_Level = Annotated[int, Field(ge=0, le=255)]
_SHIPPED = resources.files("dualfocus_engine.families") / "profiles"


_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def _with_question(prompt: str) -> str:
    if "{question}" not in prompt:
        raise ValueError("the prompt has no {question} in it")
    return prompt


_Prompt = Annotated[str, AfterValidator(_with_question)]


class Crops(NamedTuple):
    """How many crops a turn shows behind how many other images, and which of those they are parts of, from 0."""

    number: int = 1
    behind: int = 1
    whole: int = 0

    def named_in(self, prompt: str) -> str:
        """Return a prompt that says which images are meant: {whole}, {crop} (the first one) and {crops}, their number.

        With one picture and one crop those are first, second and 1.
        """
        told = {"{whole}": _ordinal(self.whole + 1), "{crop}": _ordinal(self.behind + 1), "{crops}": str(self.number)}
        for name, words in told.items():
            prompt = prompt.replace(name, words)
        return prompt


ONE_CROP = Crops()


class ReleasedPrompts(BaseModel):
    """What the released code scores both answers under, by its script; {question} is the question alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    options: _Prompt = Field(description="of a question with options")
    words: _Prompt = Field(description="of a question that is answered in words")


class EnoughCheck(BaseModel):
    """How a model is asked whether what it sees is enough to answer a question, and how its reply is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: _Prompt = Field(
        default="{question} Can this be answered from what you see? Answer with Yes or No.",
        description="{question} stands for the question alone",
    )
    yes: tuple[str, ...] = Field(
        default=("Yes", "yes"), min_length=1, description="words that mean so; the first token of each counts"
    )
    no: tuple[str, ...] = Field(default=("No", "no"), min_length=1, description="words that mean it is not")
    above: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="p(yes) : (p(yes) + p(no)) from which a view is enough: it then goes before perplexity, in "
        "adaptive and search; none: perplexity decides",
    )


class Profile(BaseModel):
    """One model family: wording of the turns, format of boxes, crop and picture policy, defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    architectures: tuple[str, ...] = Field(
        default=(), description="what config.json names of models that are served with this profile where none is named"
    )
    verified: str = Field(default="", description="how far what it says was tried; said at start, as users should know")
    notice: str | None = Field(default=None, description="said at start-up, where users should know something")
    grounds: bool = Field(
        default=True, description="the model says where something is; else it looks closer only where a client says"
    )
    grounding_prompt: _Prompt = Field(description="Q1; {question} stands for the question to ground")
    regions_prompt: _Prompt | None = Field(
        default=None, description="Q1 of mode regions, which may be answered with several boxes; none: grounding_prompt"
    )
    deeper_prompt: _Prompt | None = Field(
        default=None, description="Q1 behind a crop (mode search), which asks where in it; none: grounding_prompt"
    )
    micro_prompt: _Prompt = Field(
        description="Q2; {question} stands for the question as the client sent it, {whole} and {crop} for the places "
        "of picture and crop among the images (first, second)"
    )
    several_crops_prompt: _Prompt | None = Field(
        default=None, description="Q2 behind several crops (mode regions), {crops} of them; none: micro_prompt"
    )
    shared_prompt: _Prompt | None = Field(
        default=None, description="what both answers are scored under, by shared scoring; none takes micro_prompt"
    )
    released_prompts: ReleasedPrompts | None = Field(
        default=None, description="the same by released scoring; none takes the prompt of shared scoring"
    )
    box_format: BoxFormat
    crop: CropPolicy = CropPolicy()
    max_regions: int = Field(default=4, gt=0, description="crops that mode regions shows at most")
    max_images: int | None = Field(
        default=None, gt=0, description="images that a prompt of this model may hold, whatever vLLM allows"
    )
    pad_color: tuple[_Level, _Level, _Level] | None = Field(
        default=None, description="pictures are padded to a square of this colour (RGB)"
    )
    image_size: int | None = Field(
        default=None, gt=0, description="then resized to this many pixels a side; only with pad_color"
    )
    views: Views | None = Field(
        default=None,
        description="what the encoder is shown, in image tokens; none leaves pictures to the model's own processor",
    )
    crop_role: Literal["user", "tool"] = Field(default="user", description="whose message the crop comes back in")
    crop_alone: bool = Field(
        default=False, description="ask about the crop in a conversation of its own: for models of one picture a prompt"
    )
    crop_in_picture: bool = Field(
        default=False, description="show the crop as a further patch of its picture: for models that take one there"
    )
    strip_patterns: tuple[Regex, ...] = Field(
        default=HINTS,
        description="regular expressions of what Q1 leaves out of the question; left out, what known evaluators write "
        "beside it: options, hints at the answer's form",
    )
    system: str | None = Field(default=None, description="the system prompt where the client sends none")
    drop_system_messages: bool = Field(
        default=False, description="leave out the client's: for a model that was trained without and loses its box"
    )
    chat_template: str | None = Field(default=None, description="Jinja; none takes the model's own")
    chat_template_content_format: Literal["auto", "string", "openai"] = Field(
        default="auto", description="whether the template takes a message's content as text or as parts"
    )
    chat_template_kwargs: dict[str, Any] = Field(default={}, description="what the template is given besides")
    grounding_template_kwargs: dict[str, Any] = Field(
        default={}, description="the same of the grounding turn alone, over those: a model that thinks need not there"
    )
    drop_tokens: tuple[str, ...] = Field(
        default=(), description="tokens that are no part of an answer: left out of its text and of its perplexity"
    )
    max_box_tokens: int = Field(default=48, gt=0, description="new tokens of the grounding turn")
    max_answer_tokens: int | None = Field(
        default=None,
        gt=0,
        description="new tokens of an answer, by default; none takes the generation config's",
    )
    skip_below_perplexity: float = Field(
        default=2.01,  # e^0.7: the paper's cautious threshold (Appendix C), which can only be a mean NLL
        ge=0,
        description="adaptive: a macro answer of less perplexity than this stands without a second look",
    )
    sure_below_perplexity: float | None = Field(
        default=None,
        ge=0,
        description="search: an answer of less perplexity than this ends it; none: skip_below_perplexity",
    )
    enough: EnoughCheck = EnoughCheck()
    max_looks: int = Field(default=4, ge=2, description="looks that mode search takes at most, the first one counted")
    temperature: float = Field(default=0.0, ge=0, description="of the answers, by default")

    @model_validator(mode="after")
    def _pictures_have_one_policy(self) -> Self:
        if self.image_size is not None and self.pad_color is None:
            raise ValueError("image_size needs pad_color: no one size fits a picture that is not padded to a square")
        if self.views is not None and self.pad_color is not None:
            raise ValueError("views and pad_color exclude each other: pictures of a view are never padded")
        if self.box_format.scale == "pixels" and self.views is None:
            raise ValueError("boxes in pixels of the picture as shown need views: else its size is not known")
        return self

    @model_validator(mode="after")
    def _crop_has_one_place(self) -> Self:
        if self.crop_alone and self.crop_in_picture:
            raise ValueError("crop_alone and crop_in_picture exclude each other: the crop is shown once")
        if self.crop_in_picture and self.box_format.lists:
            raise ValueError("crop_in_picture needs box_format.lists: false: a picture takes one crop")
        return self

    @property
    def micro_images(self) -> int:
        """Images that the micro turn of a question about one picture holds."""
        return 1 if self.crop_alone or self.crop_in_picture else 2

    def check_same_pictures(self, base: "Profile") -> None:
        """Raise ConfigError where pictures are padded, resized or given a patch otherwise than by `base`."""
        own, bases = ((one.pad_color, one.image_size, one.crop_in_picture) for one in (self, base))
        if own != bases:
            raise ConfigError(
                f"The profile {self.name!r} has another pad_color, image_size or crop_in_picture than {base.name!r}, "
                "which the model is served with: an adapter shows pictures as its model does."
            )

    def grounding_text(self, question: str, picture: int = 0, pictures: int = 1, *, regions: bool = False) -> str:
        """Return Q1 for a question: the question alone, without format hints or options.

        Where there are several pictures it says which one is meant; `picture` counts from 0. `regions`: several boxes
        may be the answer.
        """
        prompt = (self.regions_prompt if regions else None) or self.grounding_prompt
        asked = prompt.replace("{question}", self.bare(question))
        return asked if pictures == 1 else f"{_which(picture + 1, pictures)} {asked}"

    def deeper_text(self, question: str, crops: Crops = ONE_CROP) -> str:
        """Return Q1 behind a crop."""
        return crops.named_in(self.deeper_prompt or self.grounding_prompt).replace("{question}", self.bare(question))

    def micro_text(self, question: str, crops: Crops = ONE_CROP) -> str:
        """Return Q2 for a question, which stays as the client sent it, behind the crops."""
        prompt = (self.several_crops_prompt if crops.number > 1 else None) or self.micro_prompt
        return crops.named_in(prompt).replace("{question}", question)

    def shared_text(self, question: str, crops: Crops = ONE_CROP) -> str:
        """Return what both answers are scored under: the question alone, in the words of `shared_prompt`."""
        if self.shared_prompt is None:
            return self.micro_text(question, crops)
        return crops.named_in(self.shared_prompt).replace("{question}", self.bare(question))

    def released_text(self, question: str, crops: Crops = ONE_CROP, *, has_options: bool) -> str:
        """Return what both answers are scored under by the released code's rule."""
        if self.released_prompts is None:
            return self.shared_text(question, crops)
        prompts = self.released_prompts
        return (prompts.options if has_options else prompts.words).replace("{question}", self.bare(question))

    def enough_text(self, question: str) -> str:
        """Return what asks whether a view is enough to answer a question."""
        return self.enough.prompt.replace("{question}", self.bare(question))

    def bare(self, question: str) -> str:
        """Return the question without what Q1 leaves out; as it is where nothing else would be left."""
        return without(self.strip_patterns, question).strip() or question.strip()


def _ordinal(number: int) -> str:
    return _ORDINALS[number - 1] if number <= len(_ORDINALS) else f"{number}th"


def _which(number: int, count: int) -> str:
    return f"This is about picture {number} of {count}."


def profile_names() -> list[str]:
    """Names of the profiles that ship."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _SHIPPED.iterdir() if entry.name.endswith(".yaml"))


def shipped_profile(name: str) -> str:
    """Return the text of a profile that ships."""
    return (_SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")


def load_profile(name: str) -> Profile:
    """Load a profile by its name, or from a YAML file of the user's.

    Raises ConfigError naming the profiles there are, or the field that is wrong.
    """
    shipped = name in profile_names()
    if not shipped and not is_file(name):
        raise ConfigError(f"No profile {name!r}: give one of {', '.join(profile_names())}, or a YAML file.")
    try:
        text = shipped_profile(name) if shipped else Path(name).read_text(encoding="utf-8")
        return Profile.model_validate(yaml.safe_load(text))
    except (ValidationError, yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The profile {name!r} can't be used: {error}") from error


def is_file(name: str) -> bool:
    """Whether a name is that of a file."""
    try:
        return Path(name).is_file()
    except OSError:  # longer than a file's name can be
        return False
