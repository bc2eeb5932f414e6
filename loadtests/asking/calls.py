"""How a question is asked: in one request of this server, or in the three calls that a client makes by itself.

The three calls are those of a sensible client: macro and grounding at the same time, the crop cut where the profile
would, then micro as the grounding conversation continued.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dualfocus_engine.families.boxes import crop_region
from dualfocus_engine.families.profiles import Profile
from dualfocus_eval.asking.questions import count_looks

from loadtests.asking.questions import Asked, data_url

Json = dict[str, Any]
# Sends a chat completion request under a name and returns its answer.
Post = Callable[[str, Json], Json]
# Runs two calls side by side and returns what both return.
Together = Callable[[Callable[[], Json], Callable[[], Json]], tuple[Json, Json]]


@dataclass
class Cost:
    """What an answer took, as far as the server says: tokens by kind, seconds by stage."""

    computed_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    encoder_runs: int | None = None
    engine_steps: dict[str, int | None] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    perplexity: float | None = None
    outcome: str | None = None
    looks: int = 0
    right: bool | None = None


def ask_focus(post: Post, model: str, asked: Asked, mode: str, sampling: Json) -> Cost:
    """Ask in one request, in a mode of this server."""
    body = request_body(model, [user_turn(asked.text, asked.url)], sampling) | {"dualfocus": {"mode": mode}}
    answer = post(mode, body)
    if "dualfocus" not in answer:
        return _plain_cost("chat", answer)
    cost = _focus_cost(answer["dualfocus"])
    cost.right = asked.is_answered_by(answer["choices"][0]["message"]["content"] or "")
    return cost


def ask_chat(post: Post, model: str, asked: Asked, sampling: Json) -> Cost:
    """Ask the same of vLLM's own server, in one plain call."""
    return _plain_cost("chat", post("chat", request_body(model, [user_turn(asked.text, asked.url)], sampling)))


def ask_in_three_calls(
    post: Post, together: Together, profile: Profile, model: str, asked: Asked, sampling: Json
) -> Cost:
    """Make the three calls; a box that can't be read leaves it at two, as it does here."""
    opening = [{"role": "system", "content": profile.system}] if profile.system else []
    grounding = [*opening, user_turn(profile.grounding_text(asked.text), asked.url)]
    macro, box = together(
        lambda: post("macro", request_body(model, [*opening, user_turn(asked.text, asked.url)], sampling)),
        lambda: post("grounding", request_body(model, grounding, box_sampling(profile))),
    )
    cost = _plain_cost("macro", macro)
    add_call(cost, "grounding", box)
    written = box["choices"][0]["message"]["content"] or ""
    crop = crop_url(asked, written, profile)
    if crop is None:
        cost.outcome = "no_box"
        return cost
    follow_up = [{"role": "assistant", "content": written}, user_turn(profile.micro_text(asked.text), crop)]
    add_call(cost, "micro", post("micro", request_body(model, [*grounding, *follow_up], sampling)))
    return cost


def box_sampling(profile: Profile) -> Json:
    """Return the fields of a request that make vLLM write a box as the grounding turn does."""
    grammar = profile.box_format.grammar
    held = {"structured_outputs": {"regex": grammar}} if grammar else {}
    return {"temperature": 0.0, "max_tokens": profile.max_box_tokens, **held}


def crop_url(asked: Asked, written: str, profile: Profile) -> str | None:
    """Cut what a written box means out of the picture; None where it means nothing."""
    box = profile.box_format.read(written)
    region = crop_region(box, asked.picture.size, profile.crop) if box and not box.is_empty else None
    return None if region is None else data_url(asked.picture.crop(region))


def user_turn(text: str, url: str) -> Json:
    """Return a message that shows a picture and says a text."""
    return {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}],
    }


def request_body(model: str, messages: list[Any], sampling: Json) -> Json:
    """Return a chat completion's request, greedy unless `sampling` says otherwise."""
    return {"model": model, "messages": messages, "temperature": 0.0, **sampling}


def _plain_cost(name: str, answer: Json) -> Cost:
    cost = Cost()
    add_call(cost, name, answer)
    return cost


def add_call(cost: Cost, name: str, answer: Json) -> None:
    """Add what one call of vLLM's took. Where nothing was cached vLLM says nothing of it."""
    usage = answer["usage"]
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    cost.computed_tokens += usage["prompt_tokens"] - cached
    cost.cached_tokens += cached
    cost.completion_tokens += usage["completion_tokens"]
    if "seconds" in answer:
        cost.stages[name] = answer["seconds"]


def _focus_cost(focus: Json) -> Cost:
    turns = focus["turns"]
    runs = [turn["encoder_runs"] for turn in turns.values()]
    return Cost(
        computed_tokens=sum(turn["computed_tokens"] for turn in turns.values()),
        cached_tokens=sum(turn["cached_tokens"] for turn in turns.values()),
        completion_tokens=sum(turn["completion_tokens"] for turn in turns.values()),
        encoder_runs=None if None in runs else sum(runs),
        engine_steps={name: turn["engine_steps"] for name, turn in turns.items()},
        stages=focus["stages"],
        perplexity=(focus["macro"] or {}).get("perplexity"),
        outcome=focus["selection"],
        looks=count_looks(turns),
    )
