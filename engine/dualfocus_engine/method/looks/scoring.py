"""Two answers scored under one prompt."""

from collections.abc import Mapping, Sequence

from dualfocus_engine.method.looks.attempt import Zoomed
from dualfocus_engine.method.multiple_choice import chosen_option
from dualfocus_engine.method.prompts import Prompt
from dualfocus_engine.method.questions import Question
from dualfocus_engine.method.results import Score, Scoring, Shared, Turn
from dualfocus_engine.method.selection import released_texts
from dualfocus_engine.method.turn_engine import TurnEngine


async def score_under(
    engine: TurnEngine, question: Question, prompt: Prompt, zoomed: Zoomed, macro: Turn, micro: Turn
) -> Shared | None:
    """Score both answers under a prompt that continues a look; None where one does not fit the context."""
    box = await _box_score(engine, zoomed) if question.scoring is Scoring.RELEASED else ()
    tokens = _tokens_to_score(engine, question, macro, micro)
    scores = [await engine.score(name, prompt, tokens[name]) for name in ("macro", "micro")]
    both = [Score(box + score.logprobs, score.cached_tokens) for score in scores if score is not None]
    return Shared(*both) if len(both) == len(scores) else None


async def _box_score(engine: TurnEngine, zoomed: Zoomed) -> tuple[float, ...]:
    """Return the log-probabilities of the grounding answer that micro continues, its closing token included."""
    closing = engine.closing_token
    body = zoomed.reply[:-1] if zoomed.reply and zoomed.reply[-1] == closing else zoomed.reply
    score = await engine.score("grounding", zoomed.prompt, [*body, closing])
    assert score is not None  # micro's prompt, which holds it, fitted
    return score.logprobs


def _tokens_to_score(engine: TurnEngine, question: Question, macro: Turn, micro: Turn) -> Mapping[str, Sequence[int]]:
    """Return what is scored of both answers: their tokens, or those of the option that one names."""
    options, turns = question.options, {"macro": macro, "micro": micro}
    if question.scoring is Scoring.RELEASED:
        texts = zip(turns, released_texts(macro, micro, options), strict=True)
        return {name: _closed(engine, text) for name, text in texts}
    named = {name: chosen_option(turn.text, options) for name, turn in turns.items()}
    return {name: turns[name].answer_ids if text is None else _closed(engine, text) for name, text in named.items()}


def _closed(engine: TurnEngine, text: str) -> list[int]:
    return [*engine.encode(text), engine.closing_token]
