"""What the method needs of an engine: `backend` fulfils it with vLLM, tests with a script."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.families.views import Views
from dualfocus_engine.method.prompts import Prompt, TurnOptions
from dualfocus_engine.method.questions import Message
from dualfocus_engine.method.results import OnText, Score, Turn
from dualfocus_engine.pictures.picture_cache import EncoderInput, PictureCache
from dualfocus_engine.pictures.pictures import Picture

if TYPE_CHECKING:
    from vllm import SamplingParams


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """One turn to run: what it is called in request ids and spans, its prompt, how its tokens are drawn.

    `on_start` is called once the prompt is known to fit, `on_accepted` with the first token, when the engine refuses
    nothing of it any more, `on_text` with what the turn writes as it comes. A turn that is no answer is never compared,
    so its log-probabilities may be those under a grammar.
    """

    name: str
    prompt: Prompt
    sampling: "SamplingParams"
    on_text: OnText | None = None
    on_start: Callable[[], None] | None = None
    is_answer: bool = True
    on_accepted: Callable[[], None] | None = None


class TurnEngine(Protocol):
    """Renders conversations into prompts and runs them."""

    profile: Profile
    pictures: PictureCache
    views: Views | None

    @property
    def context_length(self) -> int:
        """Tokens that a prompt and its answer may have together."""

    @property
    def max_images(self) -> int:
        """Images that a prompt may hold."""

    @property
    def pictures_first(self) -> bool:
        """Whether the chat template shows a message's pictures before its text, whatever is sent."""

    @property
    def closing_token(self) -> int:
        """The token that ends an answer."""

    def encode(self, text: str) -> list[int]:
        """Tokenize a piece from the middle of a conversation."""

    def grounding_sampling(self, boxes: int = 1, seed: int | None = None) -> "SamplingParams":
        """Return how up to that many boxes are written; `seed` draws other ones than the likeliest."""

    def verdict_sampling(self) -> "SamplingParams":
        """Return how one token is written, with the log-probabilities of the likeliest."""

    def answer_sampling(self) -> "SamplingParams":
        """Return how answers are drawn where the client says nothing."""

    async def prompt(self, messages: Sequence[Message], options: TurnOptions) -> Prompt:
        """Render a conversation up to where the model is to answer."""

    async def continuation(self, messages: Sequence[Message], follow_up: Message, options: TurnOptions) -> Prompt:
        """Render what follows the model's reply to `messages`: its closing token, then the user's follow-up."""

    async def encoder_input(self, picture: Picture) -> EncoderInput | None:
        """Make what the encoder is shown of a picture; None where the engine has it already."""

    async def generate(self, request: TurnRequest) -> Turn:
        """Run one turn to its end. Raises ContextFull, BadQuestion, EngineDead."""

    async def score(self, name: str, prompt: Prompt, answer: Sequence[int]) -> Score | None:
        """Score an answer's tokens behind a prompt; None where they do not fit the context."""
