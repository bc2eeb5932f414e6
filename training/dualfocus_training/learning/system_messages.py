"""System messages that change nothing: a model that saw none loses its box beside one."""

from random import Random

_SENTENCES = (
    "You are a helpful assistant.",
    "You are a careful assistant that looks at pictures.",
    "You are an AI vision model.",
    "Answer briefly.",
    "Answer with a single word or phrase.",
    "Be concise and accurate.",
    "Look closely before you answer.",
    "Always reply in English.",
    "Do not make anything up.",
    "If you are not sure, say so.",
    "The user will show you a picture and ask about it.",
    "Keep your answers short and factual.",
    "Today is 29 November 2026.",
    "You work for a quality control team.",
    "Reply without any explanation.",
    "Follow the user's instructions carefully.",
    "Think step by step, but write only the answer.",
    "Current user: anna, plan: free.",
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MADE_UP = 0.3


def system_message(rng: Random) -> str:
    """A sentence or two; now and then of words that mean nothing, so that any text is passed over."""
    count = rng.randint(1, 2)
    if rng.random() < _MADE_UP:
        return " ".join(_made_up(rng) for _ in range(count))
    return " ".join(rng.sample(_SENTENCES, count))


def _made_up(rng: Random) -> str:
    words = ("".join(rng.choices(_LETTERS, k=rng.randint(2, 9))) for _ in range(rng.randint(2, 6)))
    return " ".join(words).capitalize() + rng.choice((".", ".", ":", "!"))
