"""Made-up questions and replies for the benchmarks: the same ones each time, odd ones among them."""

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, islice, product
from string import ascii_uppercase
from typing import Any

# The least for a benchmark; replies of each form make it more.
QUESTIONS = 200
SEED = 20261128

Question = dict[str, Any]
"""A question's id, category and group, its options, right answers, and the reply to it."""

THINGS = "cat|dog|red car|blue bus|umbrella|one|two|3|12|Stop sign|bee|a|Ed's cafe"
WORDS = "yes|no|cat|a dog|the umbrella|two|ten|3|3.5|1,000|stop|coca-cola|dr. pepper"
# Forms of a reply: {L} is a letter, {T} its option; {M} and {U} are another's, small ones are in lower case.
OF_A_LETTER = (
    "{L}|{L}|{l}|{L}.|({L})|({l})|{L}. {T}|{L}: {T}|{L}) {T}| {L}\n|**{L}**|[{L}]|{L};{T}|{T}|{t}|{T}.|{T}, {U}|{T} {M}"
    "|I think it's a {T}|I think it's {L}|Both {T} and {U}|A {t} is what I see|It's:{L}|It might be {L} though"
    "|The answer is {L}.|The best answer is: {L}|The correct answer is {L}|The best option is {L}|The answer: {L}"
    "|The correct option is {L}|Best answer: {L}|Best option: {L}|Option {L}|Answer: {L}|answer is {t}"
    "|The answer is {l}"
    "|I say the answer is {L}, not {M}|Or the choice: {L} or {M}|It's red. Or ({L})|It's red. {L} then|It's {L}) or {M}"
    "|{L} or {M}|Not {L} but {M}|I see a {t}, so it is {L}|It is A {t}, on the whole: {L}|Maybe red.|None of them."
    "|{L} is not so far|{L} is not far|{L} is not it, it is {t}||| |.|)|Z|Z {t}|Z {L}|I|e|E|yes"
    "|Cannot determine the answer: {t}|I can't process this file. {L}"
    "|Sorry, I can't help with images of people yet. {L}"
    "|I'm sorry, but without the image provided I can't tell. {L}"
    "|Letter {L} is it in the end, says everybody who looked"
    "|The best answer is|The correct answer is|The answer is|The answer|The best option is"
    "|The correct option is"
    "|There is {t}|Perhaps it is, some say, a {t}|Well, if it has to be told: perhaps it is, some would say, a {t}"
    "|There is no telling what this might be, neither from here nor from there, but everybody who looked says {t}"
)
OF_A_WORD = (
    '{w}|{W}|{w}.|{w}...|the {w}|A {w}|an {w}|"{w}"|({w})|{w}!|{w}?|{w}, {v}|{w};|{w}-{v}|{w} - {v}|{w}/{v}|{w} / {v}'
    "|{w}'s|{w}\n|{w}\n{v}|{w}\t{v}|I think it's a {w}||| |.|...|a|1.|.5|3,5|2 , 3|none|zero|one two three"
    "|dont {w}|it's {w}|a-b;-c|a-b-;c|a-b\t-c"
    "|thats {w}|{w}@{v}|{w} @{v}|{w}_{v}|{{{w}}}|{w}<{v}>|{w} <{v}>|{w}`{v}|{w}\\{v}|{w}+{v}={v}|[{w}] {v}|{w} .|u.s.a."
    "|9.99|9.a|9. a|$5.00|5%|where?there|a-b - c|{w}........................................"
    "|. . . . . . . . . . . . . . . . . . . . . . . . . . . . . . . . . {w}.|{w}: {v}|{w}'s {v}|{w} 's|nine-ten"
)
# Said without two apostrophes, with all of them, or no contraction by the rule.
CONTRACTED = "couldntve|shed|ill|were|let's|she's|Id've|IM|ows'at|cant|won't|its"


def letters(rng: random.Random, most: int) -> Iterator[Question]:
    """Questions with two options or more: each form of a reply for the right letter, from A on, and for any."""
    for number, (turn, form) in enumerate(product(range(5), OF_A_LETTER.split("|"))):
        options = rng.sample(THINGS.split("|"), rng.randint(2, most))
        right, other = ascii_uppercase[turn % len(options)], rng.choice(ascii_uppercase[: len(options)])
        reply = said(rng, form, options, right if turn < 4 else other)
        category = rng.choice(["single", "cross"])
        yield question(number, [right], reply, options=options, category=category, group=str(number % 4))


def rotations(rng: random.Random) -> Iterator[Question]:
    """Four rotations of each question, one after the other, at MMBench's ids; in half of the groups all replies fit."""
    for number in range(QUESTIONS // 4):
        options, sure = rng.sample(THINGS.split("|"), 4), rng.random() < 0.5
        category = rng.choice(["logic", "attribute"])
        for turn in range(4):
            shown = options[turn:] + options[:turn]
            right = shown.index(options[0])
            form = rng.choice((OF_A_LETTER if not sure else "{L}|({L})|{L}. {T}|{L}.").split("|"))
            reply = said(rng, form, shown, ascii_uppercase[right if sure else rng.randrange(4)])
            more = {"options": shown, "category": category, "group": str(number)}
            yield question(number + turn * 1_000_000, [ascii_uppercase[right]], reply, **more)


def said(rng: random.Random, form: str, options: list[str], letter: str) -> str:
    """Fill a reply's form with a letter, its option, and another's."""
    option = options[ascii_uppercase.index(letter)]
    other = rng.choice([number for number, text in enumerate(options) if text != option])
    names = {"L": letter, "l": letter.lower(), "T": option, "t": option.lower()}
    return form.format(**names, M=ascii_uppercase[other], U=options[other])


def words(rng: random.Random, people: int) -> Iterator[Question]:
    """Open questions, each answered by some people who mostly agree."""
    known = WORDS.split("|")
    for number, form in enumerate(islice(cycle(OF_A_WORD.split("|")), QUESTIONS)):
        answer = rng.choice(known)
        others = [rng.choice([answer, answer, rng.choice(known), answer.upper()]) for _ in range(people - 1)]
        word = rng.choice([answer, answer, rng.choice(known)])
        reply = (form if number % 3 else "{w}").format(w=word, W=word.capitalize(), v=rng.choice(known))
        yield question(number, [answer, *others], reply, category=rng.choice(["query", "verify"]))


def normal_forms(rng: random.Random, normal: Callable[[str], str], contracted: Iterable[str]) -> Iterator[Question]:
    """Questions that everybody answers with what a tool makes of the reply: whoever makes something else is wrong."""
    filled = [form.format(w="cat", W="Cat", v=rng.choice(["dog", "3"])) for form in OF_A_WORD.split("|")]
    for number, reply in enumerate([*filled, *contracted, *CONTRACTED.split("|")], start=QUESTIONS):
        yield question(number, [normal(reply)] * 10, reply, category="query")


def yes_or_no(rng: random.Random) -> Iterator[Question]:
    """POPE's three categories; the replies are plain ones, which every tool reads alike."""
    for number in range(QUESTIONS):
        answer = rng.choice(["yes", "no"])
        word = rng.choice([answer, answer, rng.choice(["yes", "no"])])
        reply = rng.choice([word, word.capitalize()])
        yield question(number, [answer], reply, category=rng.choice(["random", "popular", "adversarial"]))


def question(number: int, answers: list[str], reply: str, **more: Any) -> Question:
    """Put a question together."""
    return {"id": str(number), "answers": answers, "options": [], "category": "", "group": "", **more, "reply": reply}


def made(make: Callable[..., Iterator[Question]], *how: Any) -> list[Question]:
    """Make a benchmark's questions anew from the seed."""
    return list(make(random.Random(SEED), *how))
