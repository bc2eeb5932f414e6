"""What a question's turns gave, and which answer was chosen."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from dualfocus_engine.families.boxes import Box, Region
from dualfocus_engine.method.perplexity import mean_nll, perplexity

AnswerName = Literal["macro", "micro"]


class TurnDelta(NamedTuple):
    """Some more of what a turn writes, behind its prompt; `is_last` where the turn has come to its end."""

    text: str
    token_ids: Sequence[int]
    prompt_token_ids: Sequence[int]
    is_last: bool


OnText = Callable[[TurnDelta], None]  # is given an answer as it is written


class Mode(StrEnum):
    """Which turns a question is given."""

    DUAL = "dual"
    REGIONS = "regions"  # as dual, with a crop of each thing that the question is about
    SEARCH = "search"  # as dual, then deeper into the crop, until an answer is sure enough
    ADAPTIVE = "adaptive"  # the second look ends where the macro answer is confident enough (Appendix C)
    MACRO = "macro"
    MICRO = "micro"


class Scoring(StrEnum):
    """Under which prompt the two answers are compared."""

    OWN = "own"  # each under the turn that wrote it (the paper)
    SHARED = "shared"  # both under one prompt, that of the micro turn; the answer alone counts
    RELEASED = "released"  # by the released code's rule: its prompt, and the box counts with each answer


class Selection(StrEnum):
    """Why the chosen answer was chosen."""

    LOWER_PERPLEXITY = "lower_perplexity"  # both answers stood; Eq. 8
    ONLY_ANSWER = "only_answer"  # the mode asked for one answer
    TOOL_CALL = "tool_call"  # macro called a tool: that call is the answer
    ONLY_OPTION = "only_option"  # shared or released scoring: of several options, the other answer names none
    NO_OPTION = "no_option"  # released scoring: neither answer names an option, so macro's stands
    OTHER_EMPTY = "other_answer_empty"  # an empty answer never wins
    OTHER_CUT = "other_answer_cut"  # an answer that was cut never beats one that is whole
    SAME_ANSWER = "same_answer"  # both say the same, but for case, spaces and a closing full stop: macro's stands
    NOTHING_ASKED = "nothing_asked"  # a picture without words: there is nothing to ground
    NO_GROUNDING = "no_grounding"  # neither the profile's model, nor the client, nor a grounder says where to look
    SEVERAL_PICTURES = "several_pictures"  # the last message has several, and it is not said which to zoom
    IMAGE_LIMIT = "image_limit"  # the crop would be one picture more than the engine takes in a prompt
    TIMED_OUT = "timed_out"  # the question's time was up before the second look ended
    SKIPPED = "skipped"  # adaptive: the macro answer was confident enough
    NOTHING_TO_ENLARGE = "nothing_to_enlarge"  # the crop would show no more than the first look did
    NO_BOX = "no_box"  # grounding wrote nothing that reads as a box, or the grounder found none
    GROUNDER_FAILED = "grounder_failed"  # --grounder ended in an error, or gave what is no box (logged)
    GROUNDER_TIMED_OUT = "grounder_timed_out"  # --grounder gave no box in its time
    EMPTY_BOX = "empty_box"  # the box holds no pixel
    SAME_PLACE = "same_place"  # a drawn box (`candidates`) covers what another look was at
    CONTEXT_FULL = "context_full"  # grounding or micro did not fit the context, or came to its end
    MICRO_FAILED = "micro_failed"  # grounding or micro ended in an error (logged)


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn as the engine ran it.

    `token_ids` are the generated tokens with the closing one, `logprobs` the model's own for each of an
    answer's, none of a box's.
    `prompt_tokens` = `cached_tokens` (from the prefix cache) + `computed_tokens`; `picture_tokens` of them stand for
    each of its pictures, `image_places` for all with what some models have around each; `cache_writes` were new to the
    prefix cache.
    `encoder_runs` counts images that the vision encoder ran on for this turn, `engine_steps` the steps it took part in:
    one to three for its prompt, then one for each token, or fewer where they were drafted. Both are None where the
    engine has another EC connector, or a stop string ended the turn: vLLM finds those outside its engine. `times` are
    vLLM's own of the turn (`RequestStateStats`), where it keeps any.

    Where an answer is read (`Question.read`), `text` is the answer alone: what the model thought before it is
    `reasoning`, in its first `thought_tokens` with the marks around them (`reasoning_tokens` without), and
    `tool_calls` are what it called, as its reader has them.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str
    prompt_token_ids: tuple[int, ...] = field(repr=False)
    cached_tokens: int
    encoder_runs: int | None
    engine_steps: int | None
    seconds: float
    top_logprobs: list[dict[int, Any]] = field(default_factory=list, repr=False)
    stop_reason: int | str | None = None
    rescored: bool = False  # held to a grammar, so `logprobs` were computed anew without it
    is_masked: bool = False  # held to a grammar, and not scored anew: `logprobs` are not the model's own
    times: Any = field(default=None, repr=False)
    is_cut: bool = False  # the context was full before the turn came to its end or to the tokens it was allowed
    picture_tokens: tuple[int, ...] = ()
    image_places: int = 0
    cache_writes: int = 0
    reasoning: str | None = None
    thought_tokens: int = 0
    reasoning_tokens: int = 0
    tool_calls: tuple[Any, ...] = ()

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """The tokens of the answer alone."""
        return self.token_ids[self.thought_tokens :]

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt, image tokens included."""
        return len(self.prompt_token_ids)

    @property
    def image_tokens(self) -> int:
        """Prompt tokens that stand for its pictures."""
        return sum(self.picture_tokens)

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that had to be computed."""
        return self.prompt_tokens - self.cached_tokens

    @property
    def completion_tokens(self) -> int:
        """Generated tokens, the closing one included."""
        return len(self.token_ids)

    @property
    def is_unfinished(self) -> bool:
        """Whether the turn was cut: by its allowance or the context, or for saying the same again and again."""
        return self.finish_reason != "stop"

    @property
    def is_empty(self) -> bool:
        """Whether the turn said nothing."""
        return not self.text.strip()

    @property
    def mean_nll(self) -> float:
        """Mean negative log-likelihood per token of the answer alone, in nats."""
        return mean_nll(self.logprobs[self.thought_tokens :])

    @property
    def perplexity(self) -> float:
        """Eq. 7."""
        return perplexity(self.mean_nll)

    def is_more_confident_than(self, threshold: float) -> bool:
        """Whether the turn gave a whole answer of a perplexity of its own under `threshold` (Appendix C)."""
        is_whole = not self.is_empty and not self.is_unfinished
        return is_whole and not self.is_masked and self.perplexity < threshold

    def without(self, dropped: Mapping[int, str]) -> "Turn":
        """Return the turn without some tokens, each given with what it is in the text."""
        kept = [place for place, token in enumerate(self.token_ids) if token not in dropped]
        if len(kept) == len(self.token_ids):
            return self
        text = text_without(self.text, dropped.values())
        tops = [self.top_logprobs[place] for place in kept] if self.top_logprobs else []
        token_ids = tuple(self.token_ids[place] for place in kept)
        logprobs = tuple(self.logprobs[place] for place in kept)
        return replace(self, text=text, token_ids=token_ids, logprobs=logprobs, top_logprobs=tops)

    def says_the_same_as(self, other: "Turn") -> bool:
        """Whether two answers are equal, but for case, spaces and a closing full stop."""
        return _words_of(self.text) == _words_of(other.text)


def text_without(text: str, words: Iterable[str]) -> str:
    """Return a text without some words."""
    for word in words:
        text = text.replace(word, "")
    return text


def _words_of(answer: str) -> str:
    return " ".join(answer.casefold().split()).removesuffix(".").rstrip()


@dataclass(frozen=True, slots=True)
class Score:
    """An answer scored behind a prompt: a log-probability for each token, and how much of the prompt was cached."""

    logprobs: tuple[float, ...]
    cached_tokens: int

    @property
    def mean_nll(self) -> float:
        """Mean negative log-likelihood per token, in nats."""
        return mean_nll(self.logprobs)


class Shared(NamedTuple):
    """Both answers scored under one prompt, by the released code's rule with the box's tokens before each."""

    macro: Score
    micro: Score


class Verdict(NamedTuple):
    """Whether a view is enough to answer, as the model says when asked: p(yes) : (p(yes) + p(no)) of one step.

    `share` is None where neither word is among the likeliest.
    """

    share: float | None
    turn: Turn


class LookedAt(NamedTuple):
    """One of the places that were looked at: its box, its crop, and the image tokens it was shown in."""

    box: Box
    crop: Region
    tokens: int = 0  # known once it was shown


@dataclass(frozen=True, slots=True)
class SecondLook:
    """What the second look gave: box, crop and micro turn as far as it came.

    Where several `regions` were looked at, `box` and `crop_box` hold all of them. `failed` says where it ended; a micro
    turn beside it was cut by the context, and is no answer.
    """

    box: Box | None = None
    crop_box: Region | None = None
    grounding: Turn | None = None
    micro: Turn | None = None
    failed: Selection | None = None
    regions: tuple[LookedAt, ...] = ()
    enough: Verdict | None = None  # of what was shown, where the model was asked


class Ending(StrEnum):
    """Why there was no look further than the second."""

    SURE = "sure"  # an answer's perplexity was low enough
    ENOUGH = "enough"  # what a look was shown is enough to answer, as the model says (profile's `enough`)
    MAX_LOOKS = "max_looks"
    NO_OTHER_PLACE = "no_other_place"  # not a search: all places that boxes were drawn for were looked at
    ALL_SHOWN = "all_shown"  # the last crop was shown with all the pixels it has
    LOOK_FAILED = "look_failed"  # the last look came to no answer: its `failed` says why
    TOOL_CALL = "tool_call"  # macro called a tool
    TIMED_OUT = "timed_out"


def name_of(turn: str, look: int) -> str:
    """Return the name of a turn of a look behind the first, which count from 1: micro, micro-2 …"""
    return turn if look == 1 else f"{turn}-{look}"


def kind_of(name: str) -> str:
    """Return which turn a name is of: macro, grounding, micro or enough."""
    return name.partition("-")[0]


@dataclass(frozen=True, slots=True)
class FocusResult:
    """The answer to a question and how it was found; `shared` where the answers were compared under one prompt.

    Of more than two looks `looks` are those behind the first, in order, `look` is the one of the best answer among
    them, and `ending` says why there was no further one.

    `stages` has the seconds of macro, grounding (or grounder), crop, micro and select, as far as each was run;
    `notes` say what was done otherwise than asked, such as a picture that the context could only hold smaller.
    """

    winner: AnswerName
    selection: Selection
    macro: Turn | None
    look: SecondLook
    seconds: float
    shared: Shared | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    looks: tuple[SecondLook, ...] = ()
    ending: Ending | None = None
    enough: Verdict | None = None  # of the whole picture, where the model was asked

    @property
    def answer(self) -> Turn:
        """The chosen turn."""
        turn = self.macro if self.winner == "macro" else self.look.micro
        assert turn is not None  # `select` never names a turn that did not run
        return turn

    @property
    def text(self) -> str:
        """The chosen answer."""
        return self.answer.text

    @property
    def turns(self) -> dict[str, Turn]:
        """All turns that ran, by name."""
        named = {"macro": self.macro, "enough-macro": self.enough and self.enough.turn}
        for number, look in enumerate(self.looks or (self.look,), 1):
            micro = name_of("micro", number)
            named |= {name_of("grounding", number): look.grounding, micro: look.micro}
            named |= {f"enough-{micro}": look.enough and look.enough.turn}
        return {name: turn for name, turn in named.items() if turn is not None}


def turns_of(results: Sequence[FocusResult]) -> list[tuple[str, Turn]]:
    """Return all turns that a question's answers came from, by name: there is one box for all."""
    first, *others = results
    drawn = [named for other in others for named in other.turns.items() if kind_of(named[0]) in ("macro", "micro")]
    return [*first.turns.items(), *drawn]
