"""TextVQA: how many of ten people gave the answer, after EvalAI's normalisation.

The rule of LLaVA's `m4c_evaluator.py`, which lmms-eval has too. VLMEvalKit normalises in another way (it takes no
commas out first, and leaves a full stop behind a digit).
"""

import re
from statistics import fmean

from dualfocus_eval.samples import Sample

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(_DIGITS)}}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_->@`,?!<'
# A count where the rule means a flag (re.UNICODE is 32): the full stops behind these stay.
_FULL_STOPS = 32

# Each is written in full where exactly one of its apostrophes is missing.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_IN_FULL = {
    full[: apostrophe.start()] + full[apostrophe.end() :]: full
    for full in _CONTRACTIONS.split()
    for apostrophe in re.finditer("'", full)
} | {"somebody'd": "somebodyd"}


def score(sample: Sample, reply: str) -> float:
    """Return the mean over the people of min(1, others who gave this answer / 3), both normalised."""
    said = normalized(reply)
    answers = [normalized(answer) for answer in sample.answers]
    return fmean(min(1.0, (answers.count(said) - (answer == said)) / 3) for answer in answers)


def normalized(text: str) -> str:
    """Return an answer as EvalAI compares it: lower case, without punctuation and articles, numbers as digits."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    words = [_NUMBERS.get(word, word) for word in _without_punctuation(re.sub(r"[\n\t]", " ", text)).split()]
    return " ".join(_IN_FULL.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(text: str) -> str:
    """Take a sign out where it stands beside a blank anywhere in the text; elsewhere it becomes a blank."""
    cleaned = text
    for sign in _PUNCTUATION:
        beside_blank = f"{sign} " in text or f" {sign}" in text
        cleaned = cleaned.replace(sign, "" if beside_blank else " ")
    return re.sub(r"\.(?!\d)", "", cleaned, count=_FULL_STOPS)
