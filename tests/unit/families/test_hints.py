"""Q1 holds the question alone: each evaluator's prompt as it sends it, and questions of which nothing is left out."""

import pytest
from dualfocus_engine.families.hints import HINTS
from dualfocus_engine.families.profiles import Profile, load_profile, profile_names

PROFILES = [load_profile(name) for name in profile_names()]
QUESTION = "What is written on the small sign, e.g. its first word?"
CONTEXT = "The picture shows Bay St. at noon.\nIt was taken by A. Smith."
LETTER = "Answer with the option's letter from the given choices directly."
WORD = "Answer the question using a single word or phrase."
LINES = "A. Stop\nB. Go left, then right\nC. A. Smith & Sons\nD. None"
BRACKETED = "(A) Stop\n(B) Go\n(C) Slow\n(D) Wait\n(E) This image doesn't feature the content."
PARENTHESES = "A) Stop\nB) Go"
CODE = "A. <html>\n<body>Stop</body>\n\n</html>\nB. <html>\n<b>Go</b>\n</html>"
BEST = (
    "Select the best answer to the above multiple-choice question based on the image. "
    "Respond with only the letter (A, B, C, D, or E) of the correct option."
)
STEPS = (
    "Answer the following multiple choice question. The last line of your response should be of the following format: "
    "'ANSWER: [LETTER]' (without quotes) where [LETTER] is one of A,B. Think step by step before answering."
)
SELECT = "Please select the correct answer from the options above. \n"
FORM = '"ANSWER: [ANSWER]" (without quotes) where [ANSWER] is the answer to the problem'
READ = (
    "Read the picture and solve the following problem step by step."
    f"The last line of your response should be of the form {FORM}."
)
REMEMBER = (
    f"Remember to put your answer on its own line at the end in the form {FORM}, "
    "and you do not need to use a \\boxed command."
)
REAL_WORLD = "Please answer directly with only the letter of the correct option and nothing else."

# What each sends (SYSTEMS.md, sections 5.1 to 5.9, and the harnesses' own sources) where it asks QUESTION.
PROMPTS = {
    "LLaVA: TextVQA": f"{QUESTION}\nReference OCR token: STOP, A, B., 12:30\n{WORD}",
    "LLaVA: GQA, POPE; lmms-eval: GQA, TextVQA; VLMEvalKit: TextVQA, GQA": f"{QUESTION}\n{WORD}",
    "LLaVA: SEED-Bench; lmms-eval: SEED-Bench, V*": f"{QUESTION}\n{LINES}\n{LETTER}",
    "LLaVA: GQA*": f"{QUESTION}\n{LINES}\n{LETTER}",
    "LLaVA: MMBench": f"{QUESTION}\n{LINES}\n{LETTER}",
    "LLaVA: MMBench, options of many lines": f"{QUESTION}\n{CODE}\n{LETTER}",
    "V*: its own questions": f"{QUESTION}\n{BRACKETED}\n{LETTER}",
    "lmms-eval: TextVQA with OCR tokens": f"{QUESTION}\nReference OCR token: STOP\n{WORD}",
    "lmms-eval: TextVQA for Qwen-VL": f"{QUESTION} Answer:",
    "lmms-eval: MMBench": f"{QUESTION} There are several options: \n{LINES}\n\n{LETTER}",
    "lmms-eval: HR-Bench": f"{QUESTION}\n{LINES}\nAnswer the option letter directly.",
    "lmms-eval: RealWorldQA": f"{QUESTION}\n\n{LINES}\n{REAL_WORLD}",
    "lmms-eval: RealWorldQA, open": f"{QUESTION}\nPlease answer directly with a single word or number.",
    "lmms-eval: MME-RealWorld": f"{QUESTION} The choices are listed below:\n{BRACKETED}\n{BEST}\nThe best answer is: ",
    "lmms-eval: MME-RealWorld, open": f"{QUESTION}\nPlease respond to the question with a single word or phrase.",
    "MME-RealWorld's own": f"{QUESTION} The choices are listed below: \n{BRACKETED}\n{BEST}\nThe best answer is:",
    "VLMEvalKit: MME-RealWorld": f"{QUESTION} The choices are listed below:\n{BRACKETED}\n{BEST} \nThe best answer is:",
    "VLMEvalKit: MMBench, SEED-Bench, V*; HR-Bench's authors": f"Question: {QUESTION}\nOptions:\n{LINES}\n{SELECT}",
    "VLMEvalKit: MMBench, options of many lines": f"Question: {QUESTION}\nOptions:\n{CODE}\n{SELECT}",
    "evalscope: MMBench, SEED-Bench-2-Plus": f"{STEPS}\n\n{QUESTION}\n\n{PARENTHESES}",
    "evalscope: V*": f"{STEPS}\n\n{QUESTION}\n{BRACKETED}\n{LETTER}",
    "evalscope: POPE": f"{QUESTION}\nPlease answer YES or NO without an explanation.",
    "evalscope: RealWorldQA": f"{READ}\n\n{QUESTION}\n\n{LINES}\n{REAL_WORLD}\n\n{REMEMBER}",
}
# A context is part of what is asked: the released code keeps MMBench's in Q1.
WITH_CONTEXT = {
    "LLaVA: MMBench": f"{CONTEXT}\n{QUESTION}\n{LINES}\n{LETTER}",
    "lmms-eval: MMBench": f"{CONTEXT}\n{QUESTION} There are several options: \n{LINES}\n\n{LETTER}",
    "VLMEvalKit: MMBench": f"Hint: {CONTEXT}\nQuestion: {QUESTION}\nOptions:\n{LINES}\n{SELECT}",
    "evalscope: MMBench": f"{STEPS}\n\n{CONTEXT}\n{QUESTION}\n\n{PARENTHESES}",
}


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
@pytest.mark.parametrize("harness", PROMPTS)
def test_of_an_evaluators_prompt_q1_holds_the_question_alone(profile: Profile, harness: str) -> None:
    assert profile.bare(PROMPTS[harness]) == QUESTION
    assert profile.grounding_text(PROMPTS[harness]) == profile.grounding_prompt.replace("{question}", QUESTION)


@pytest.mark.parametrize("harness", WITH_CONTEXT)
def test_the_context_of_a_question_stays_in_q1(harness: str) -> None:
    assert PROFILES[0].bare(WITH_CONTEXT[harness]) == f"{CONTEXT}\n{QUESTION}"


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_macro_and_micro_keep_all_of_it(prompt: str) -> None:
    assert PROFILES[0].micro_text(prompt).endswith(prompt)


@pytest.mark.parametrize(
    "question",
    [
        "Who wrote the book on the table?",
        "A. Smith is written on the door. What is below it?",
        "Who is on the photo?\nA. Smith signed it below.",
        "A. Smith stands on the left.\nB. Jones stands on the right.\nWho is taller?",
        "Which letter comes after A. on the keyboard, B. or S.?",
        "Is it A or B?\nA is the red one.\nB is the blue one.",
        "Read the list:\n1. the title\n2. the author\n3. the year, e.g. 1999",
        "Find these:\n- a red cup\n- a blue cup\na) the small one\nb) the large one",
        "What do vitamins A, B and C on the label add up to?",
        "U.S. or U.K. plate?\nU.S. plates are white.",
        "What is the Answer: to the riddle on the poster?",
        "What follows the word Answer:",
        "Question: what does the sign say?",
        "Hint: it is red.\nWhat does the sign say?",
        "Options:\nwhat does this menu entry open?",
        "Which of the options above the door is lit?",
        "There are several options: which one is ticked?",
        "The choices are listed below: which is the cheapest?",
        f"What does '{WORD}' mean, as it stands on the page?",
        f'The slide says "{LETTER}" What does its footer say?',
        "The best answer is: what does the blackboard say next?",
        "Select the best answer to the first problem on the sheet.",
        "Answer the question on the blackboard.",
        "Answer the following multiple choice question on the sheet: which box is ticked?",
        "What is 'ANSWER: 42' about?",
        "Reference OCR: what does it say?",
        "Wie heißt das Schiff?\nÄ. ist abgekürzt.",
        "これは何ですか",
    ],
)
@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_of_an_ordinary_question_nothing_is_left_out(profile: Profile, question: str) -> None:
    assert profile.bare(question) == question


def test_a_profile_leaves_out_what_evaluators_write_unless_it_says_otherwise() -> None:
    asked = f"{QUESTION}\n{WORD}"
    fields = PROFILES[0].model_dump() | {"strip_patterns": []}
    assert Profile.model_validate(fields).bare(asked) == asked
    assert Profile.model_validate(fields | {"strip_patterns": [" sign"]}).bare(asked) == asked.replace(" sign", "")
    del fields["strip_patterns"]
    assert Profile.model_validate(fields).strip_patterns == HINTS
