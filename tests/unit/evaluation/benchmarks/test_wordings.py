"""What each harness asks, word for word, and that the server leaves just the question of it in Q1."""

from collections.abc import Mapping

import pytest
from dualfocus_engine.families.profiles import load_profile, profile_names
from dualfocus_eval.benchmarks import wordings
from dualfocus_eval.samples import Sample, Wording

PROFILES = [load_profile(name) for name in profile_names()]
QUESTION = "What is written on the sign, e.g. by Bay St.?"
HINT = "The picture was taken by A. Smith.\nIt shows Bay St. at noon."
OCR = "Reference OCR token: STOP, A., 12:30, B."
OPTIONS = ("Stop", "Go left, then right", "A. Smith & Sons", "1")
CODE = ("<html>\n<body>Stop</body>\n\n</html>", "<html>\n<b>Go</b>\n</html>")
REFUSAL = "This image doesn't feature the content."

LINES = "A. Stop\nB. Go left, then right\nC. A. Smith & Sons\nD. 1"
BRACKETED = "(A) Stop\n(B) Go left, then right\n(C) A. Smith & Sons\n(D) 1"
WORD = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
SELECT = "Please select the correct answer from the options above. \n"
BEST = (
    "Select the best answer to the above multiple-choice question based on the image. "
    "Respond with only the letter (A, B, C, D, or E) of the correct option."
)


def sample(options: tuple[str, ...] = (), context: str = "", question: str = QUESTION) -> Sample:
    return Sample("1", b"", question, ("A",), options, context)


OPEN, READ = sample(), sample(context=OCR)
CHOICE, HINTED, FIVE = sample(OPTIONS), sample(OPTIONS, HINT), sample((*OPTIONS, REFUSAL))

# Benchmark, harness: a sample and what is asked of it.
ASKED: list[tuple[str, Mapping[str, Wording], str, Sample, str]] = [
    ("textvqa", wordings.TEXTVQA, "llava", READ, f"{QUESTION}\n{OCR}\n{WORD}"),
    ("textvqa", wordings.TEXTVQA, "lmms-eval", READ, f"{QUESTION.capitalize()}\n{WORD}"),
    ("textvqa", wordings.TEXTVQA, "vlmevalkit", READ, f"{QUESTION}\n{WORD}"),
    *(("gqa", wordings.GQA, harness, OPEN, f"{QUESTION}\n{WORD}") for harness in wordings.GQA),
    ("gqa-mcq", wordings.GQA_MCQ, "llava", CHOICE, f"{QUESTION}\n{LINES}\n{LETTER}"),
    *(("pope", wordings.POPE, harness, OPEN, f"{QUESTION}\n{WORD}") for harness in wordings.POPE),
    ("mmbench", wordings.MMBENCH, "llava", CHOICE, f"{QUESTION}\n{LINES}\n{LETTER}"),
    ("mmbench", wordings.MMBENCH, "llava", HINTED, f"{HINT}\n{QUESTION}\n{LINES}\n{LETTER}"),
    (
        "mmbench",
        wordings.MMBENCH,
        "lmms-eval",
        CHOICE,
        f"{QUESTION} There are several options:\n{LINES}\n\n{LETTER}",
    ),
    (
        "mmbench",
        wordings.MMBENCH,
        "lmms-eval",
        HINTED,
        f"{HINT} {QUESTION} There are several options:\n{LINES}\n\n{LETTER}",
    ),
    ("mmbench", wordings.MMBENCH, "vlmevalkit", CHOICE, f"Question: {QUESTION}\nOptions:\n{LINES}\n{SELECT}"),
    (
        "mmbench",
        wordings.MMBENCH,
        "vlmevalkit",
        HINTED,
        f"Hint: {HINT}\nQuestion: {QUESTION}\nOptions:\n{LINES}\n{SELECT}",
    ),
    ("seed", wordings.SEED, "llava", CHOICE, f"{QUESTION}\n{LINES}\n{LETTER}"),
    ("seed", wordings.SEED, "lmms-eval", CHOICE, f"{QUESTION}\n{LINES}\n{LETTER}"),
    ("seed", wordings.SEED, "vlmevalkit", CHOICE, f"Question: {QUESTION}\nOptions:\n{LINES}\n{SELECT}"),
    ("vstar", wordings.VSTAR, "llava", CHOICE, f"{QUESTION}\n{BRACKETED}\n{LETTER}"),
    ("vstar", wordings.VSTAR, "lmms-eval", CHOICE, f"{QUESTION}\n{LINES}\n{LETTER}"),
    ("vstar", wordings.VSTAR, "vlmevalkit", CHOICE, f"Question: {QUESTION}\nOptions:\n{LINES}\n{SELECT}"),
    ("hrbench", wordings.HRBENCH, "llava", CHOICE, f"{QUESTION}\n{LINES}\n{LETTER}"),
    ("hrbench", wordings.HRBENCH, "lmms-eval", CHOICE, f"{QUESTION}\n{LINES}\nAnswer the option letter directly."),
    ("hrbench", wordings.HRBENCH, "vlmevalkit", CHOICE, f"Question: {QUESTION}\nOptions:\n{LINES}\n{SELECT}"),
    (
        "mme-realworld",
        wordings.MME_REALWORLD,
        "llava",
        FIVE,
        f"{QUESTION} The choices are listed below: \n{BRACKETED}\n(E) {REFUSAL}\n{BEST}\nThe best answer is:",
    ),
    (
        "mme-realworld",
        wordings.MME_REALWORLD,
        "lmms-eval",
        FIVE,
        f"{QUESTION} The choices are listed below:\n{BRACKETED}\n(E) {REFUSAL}\n{BEST}\nThe best answer is: ",
    ),
    (
        "mme-realworld",
        wordings.MME_REALWORLD,
        "vlmevalkit",
        FIVE,
        f"{QUESTION} The choices are listed below:\n{BRACKETED}\n(E) {REFUSAL}\n{BEST} \nThe best answer is:",
    ),
    ("file", wordings.FILE, "llava", OPEN, f"{QUESTION}\n{WORD}"),
    ("file", wordings.FILE, "llava", CHOICE, f"{QUESTION}\n{LINES}\n{LETTER}"),
]
IDS = [f"{benchmark} by {harness}" for benchmark, _, harness, _, _ in ASKED]


@pytest.mark.parametrize(("benchmark", "table", "harness", "one", "text"), ASKED, ids=IDS)
def test_each_harness_asks_in_its_own_words(
    benchmark: str, table: Mapping[str, Wording], harness: str, one: Sample, text: str
) -> None:
    assert table[harness](one) == text


def test_every_wording_is_held_to_its_words() -> None:
    tables = [table for name, table in vars(wordings).items() if name.isupper() and isinstance(table, Mapping)]
    held = {(id(table), harness) for _, table, harness, _, _ in ASKED}
    assert held == {(id(table), harness) for table in tables for harness in table}


@pytest.mark.parametrize(("benchmark", "table", "harness", "one", "text"), ASKED, ids=IDS)
def test_q1_holds_the_question_and_its_context_alone(
    benchmark: str, table: Mapping[str, Wording], harness: str, one: Sample, text: str
) -> None:
    question = one.question.capitalize() if (benchmark, harness) == ("textvqa", "lmms-eval") else one.question
    between = " " if harness == "lmms-eval" else "\n"
    if benchmark == "mmbench" and one.context:
        question = f"{one.context}{between}{question}"
    for profile in PROFILES:
        assert profile.bare(text) == question


# Options that read like something else: of many lines, with letters of their own, two, ten, empty but for a sign.
ODD = [CODE, ("A. B.", "B. A."), ("yes", "no"), tuple("0123456789"), ("-", "?"), ("Hint: A", "Question: B", "Options:")]
# Questions as data sets have them: with digits, without a sign at the end, of several lines, in capitals.
QUESTIONS = [
    "Is there a cup in the image?",
    "what is the number on the player's jersey",
    "Which is right?\nLook at the lower left.",
    "What does it say? Answer: look at the sign's second line.",
    "WHAT IS A. 12 B. 13?",
    "Complete the text: A",
]
CHOICES = ["gqa-mcq", "mmbench", "seed", "vstar", "hrbench", "mme-realworld", "file"]


@pytest.mark.parametrize("options", ODD, ids=lambda options: options[0][:9])
@pytest.mark.parametrize("question", QUESTIONS)
def test_q1_holds_the_question_alone_whatever_the_options(options: tuple[str, ...], question: str) -> None:
    for benchmark, table, harness, *_ in ASKED:
        if benchmark in CHOICES:
            asked = table[harness](sample(options, question=question))
            assert PROFILES[0].bare(asked) == question, (benchmark, harness)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("context", ["", OCR], ids=["alone", "with OCR tokens"])
def test_q1_holds_an_open_question_alone(context: str, question: str) -> None:
    for table in (wordings.TEXTVQA, wordings.GQA, wordings.POPE, wordings.FILE):
        for harness, wording in table.items():
            asked = question.capitalize() if (table, harness) == (wordings.TEXTVQA, "lmms-eval") else question
            assert PROFILES[0].bare(wording(sample(context=context, question=question))) == asked
