"""What evaluators write beside a question: its options, and how to write the answer. Q1 leaves it out.

tests/unit/families/test_hints.py has each one's prompt, and ordinary questions, of which nothing may be left out.
"""

_ASK_FOR_A_LETTER = (
    "Answer with the option's letter from the given choices directly",  # LLaVA, lmms-eval, V*
    "Answer the option letter directly",  # lmms-eval: HR-Bench
    "Please select the correct answer from the options above",  # VLMEvalKit
    r"Select the best answer to the above multiple-choice question based on the image\. "
    r"Respond with only the letter \([A-Z, or]+\) of the correct option",  # MME-RealWorld
    "Please answer directly with only the letter of the correct option and nothing else",  # RealWorldQA
)
_ASK_FOR_WORDS = (
    "Answer the question using a single word or phrase",  # LLaVA, lmms-eval, VLMEvalKit
    "Please respond to the question with a single word or phrase",  # lmms-eval: MME-RealWorld
    "Please answer directly with a single word or number",  # RealWorldQA
    "Please answer YES or NO without an explanation",  # evalscope: POPE
)
_LETTER_HINT, _HINT = (f"(?:{'|'.join(hints)})" for hints in (_ASK_FOR_A_LETTER, _ASK_FOR_A_LETTER + _ASK_FOR_WORDS))
# VLMEvalKit, lmms-eval's MMBench, MME-RealWorld.
_LEAD_IN = r"(?:(?:^|[ \t])(?:Options|There are several options|The choices are listed below):[ \t]*)?"


def _option(letters: str) -> str:
    """Return how a line with an option begins: `A. `, `A) `, `(A) `."""
    return rf"[ \t]*\(?{letters}[.)]\)?[ \t]"


# One after the other. None looks far from where it stands: long texts take no time by the square of their length.
HINTS = (
    # VLMEvalKit: Hint: … / Question: … / Options: …
    r"\AHint:[ \t]*(?=(?:.*\n){1,50}?Question:)",
    r"^Question:[ \t]*(?=(?:.*\n){1,50}?Options:[ \t]*$)",
    # Options that a letter is asked for, of any number of lines.
    rf"(?:\A|{_LEAD_IN}\n{{1,3}}){_option('A')}.*(?:\n(?!{_option('A')}).*){{0,100}}?(?=\n\s{{0,3}}{_LETTER_HINT})",
    # Others: lines that begin with A, B and so on, behind the question. One alone may be anybody's initial.
    rf"{_LEAD_IN}\n{{1,3}}{_option('A')}.*\n{{1,2}}{_option('B')}.*(?:\n{{1,2}}{_option('[C-Z]')}.*)*",
    rf"(?<!\S){_HINT}\.?(?!\S)",  # what is quoted in a question stays there
    "^Reference OCR tokens?:.*$",  # LLaVA, lmms-eval: TextVQA
    # evalscope, before the question and behind it.
    r"^(?:Answer the following multiple choice question|Read the picture and solve the following problem step by step|"
    r"Remember to put your answer on its own line at the end)\b.*? \W?ANSWER: .*$",
    # At the very end: MME-RealWorld, and lmms-eval for Qwen-VL.
    r"^The best answer is:\s*\Z",
    r"(?:(?<=[.?!])[ \t]+|\n[ \t]*)Answer:\s*\Z",
)
