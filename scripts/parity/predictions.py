"""Made-up questions and replies for the benchmarks: the same ones each time, odd ones among them."""

import random
from collections.abc import Callable, Iterator
from string import ascii_uppercase
from typing import Any

QUESTIONS = 200
SEED = 20261128

Question = dict[str, Any]
"""A question's id, category and group, its options, right answers, and the reply to it."""

THINGS = [
    "cat",
    "dog",
    "red car",
    "blue bus",
    "umbrella",
    "one",
    "two",
    "3",
    "12",
    "Stop sign",
    "bee",
    "a",
    "Ed's cafe",
]
WORDS = [
    "yes",
    "no",
    "cat",
    "a dog",
    "the umbrella",
    "two",
    "ten",
    "3",
    "3.5",
    "1,000",
    "stop",
    "coca-cola",
    "dr. pepper",
]

OF_A_LETTER: list[str] = [
    *(
        "{L}",
        "{L}",
        "{L}",
        "{l}",
        "{L}.",
        "({L})",
        "({l})",
        "{L}. {T}",
        "{L}: {T}",
        "{L}) {T}",
        " {L}\n",
        "**{L}**",
        "[{L}]",
    ),
    *(
        "{T}",
        "{t}",
        "{T}.",
        "{T}, {U}",
        "I think it's a {T}",
        "I think it's {L}",
        "Both {T} and {U}",
        "A {t} is what I see",
    ),
    *(
        "The answer is {L}.",
        "The best answer is: {L}",
        "Answer: {L}",
        "answer is {t}",
        "Best option: {L}",
        "Option {L}",
    ),
    *(
        "{L} or {M}",
        "Not {L} but {M}",
        "The answer is {l}",
        "I see a {t}, so it is {L}",
        "It is A {t}, on the whole: {L}",
    ),
    *(
        "",
        " ",
        ".",
        ")",
        "Z",
        "Z {t}",
        "I",
        "e",
        "E",
        "yes",
        "None of them.",
        "Cannot determine the answer",
        "Maybe red.",
    ),
    "I'm sorry, but without the image provided I can't tell the {t}",
    "Letter {L} might be it at first sight, but there is more to be seen: {t}",
    "Letter {L} is right in the end, says everybody who looked",
    "There is no telling what this might be, neither from here nor from there, nor from anywhere else: perhaps {t}, "
    "perhaps not, who knows, for it is far away and the light is bad",
]
OF_TWO_WORDS: list[str] = ["{y}", "{y}", "{y}", "{Y}", "{Y}"]
OF_A_WORD: list[str] = [
    *(
        "{w}",
        "{w}",
        "{w}",
        "{W}",
        "{w}.",
        "{w}...",
        "the {w}",
        "A {w}",
        '"{w}"',
        "({w})",
        "{w}!",
        "{w}?",
        "{w}, {v}",
        "{w};",
    ),
    *(
        "{w}-{v}",
        "{w} - {v}",
        "{w}/{v}",
        "{w} / {v}",
        "{w}'s",
        "{w}\n",
        "{w}\t{v}",
        "I think it's a {w}",
        "",
        " ",
        ".",
        "...",
    ),
    *(
        "a",
        "1.",
        ".5",
        "3,5",
        "2 , 3",
        "none",
        "zero",
        "one two three",
        "dont {w}",
        "it's {w}",
        "thats {w}",
        "{w}@{v}",
        "{w} @",
    ),
    *(
        "{w}" + "." * 40,
        ". " * 33 + "{w}.",
        "{w}_{v}",
        "{{{w}}}",
        "{w} <{v}>",
        "{w} .",
        "u.s.a.",
        "9.99",
        "9.a",
        "$5.00",
        "5%",
    ),
]
# Said without one of their apostrophes, with all of them, or no contraction by the rule.
CONTRACTED = ["couldntve", "shed", "ill", "were", "let's", "she's", "Id've", "IM", "ows'at", "cant", "won't", "its"]


def letters(rng: random.Random, most: int) -> Iterator[Question]:
    """Questions with two options or more."""
    for number in range(QUESTIONS):
        options = rng.sample(THINGS, rng.randint(2, most))
        right = rng.choice(ascii_uppercase[: len(options)])
        picked = rng.choice([right, rng.choice(ascii_uppercase[: len(options)])])
        reply = said(rng, rng.choice(OF_A_LETTER), options, picked)
        category = rng.choice(["direct_attributes", "relative_position"])
        yield question(number, [right], reply, options=options, category=category)


def rotations(rng: random.Random) -> Iterator[Question]:
    """Four rotations of each question, one after the other, at MMBench's ids; in half of the groups all replies fit."""
    for number in range(QUESTIONS // 4):
        options, sure = rng.sample(THINGS, 4), rng.random() < 0.5
        category = rng.choice(["single", "cross"])
        for turn in range(4):
            shown = options[turn:] + options[:turn]
            right = shown.index(options[0])
            template = rng.choice(["{L}", "({L})", "{L}. {T}", "{L}."] if sure else OF_A_LETTER)
            picked = ascii_uppercase[right if sure else rng.randrange(4)]
            reply = said(rng, template, shown, picked)
            more = {"options": shown, "category": category, "group": str(number)}
            yield question(number + turn * 1_000_000, [ascii_uppercase[right]], reply, **more)


def said(rng: random.Random, template: str, options: list[str], letter: str) -> str:
    """Fill a template with a letter, its option, and another's."""
    option = options[ascii_uppercase.index(letter)]
    other = rng.randrange(len(options))
    names = {"L": letter, "l": letter.lower(), "T": option, "t": option.lower()}
    return template.format(**names, M=ascii_uppercase[other], U=options[other])


def words(rng: random.Random, people: int) -> Iterator[Question]:
    """Open questions, each answered by some people who mostly agree."""
    for number in range(QUESTIONS):
        answer = rng.choice(WORDS)
        others = [rng.choice([answer, answer, rng.choice(WORDS), answer.upper()]) for _ in range(people - 1)]
        word = rng.choice([answer, rng.choice(WORDS)])
        reply = rng.choice(OF_A_WORD).format(w=word, W=word.capitalize(), v=rng.choice(WORDS))
        yield question(number, [answer, *others], reply, category=rng.choice(["query", "verify"]))


def contractions(known: dict[str, str]) -> Iterator[Question]:
    """Each contraction that a tool knows, said its way, and some that it doesn't."""
    for number, word in enumerate([*known, *known.values(), *CONTRACTED], start=QUESTIONS):
        yield question(number, [known.get(word, word.replace("'", ""))] * 10, word, category="query")


def yes_or_no(rng: random.Random) -> Iterator[Question]:
    """POPE's three categories; the replies are plain ones, which every tool reads alike."""
    for number in range(QUESTIONS):
        answer = rng.choice(["yes", "no"])
        word = rng.choice([answer, answer, rng.choice(["yes", "no"])])
        reply = rng.choice(OF_TWO_WORDS).format(y=word, Y=word.capitalize())
        yield question(number, [answer], reply, category=rng.choice(["random", "popular", "adversarial"]))


def question(number: int, answers: list[str], reply: str, **more: Any) -> Question:
    """Put a question together."""
    return {"id": str(number), "answers": answers, "options": [], "category": "", "group": "", **more, "reply": reply}


def made(make: Callable[..., Iterator[Question]], *how: Any) -> list[Question]:
    """Make a benchmark's questions anew from the seed."""
    return list(make(random.Random(SEED), *how))
