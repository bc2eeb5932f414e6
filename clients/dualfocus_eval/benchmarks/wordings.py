"""The words in which each harness asks (`--prompts`): question, options, and how to write the answer.

What stands beside the question is left out of the grounding turn by the server, which knows these words.
"""

from collections.abc import Mapping

from dualfocus_eval.benchmarks.reading import letters
from dualfocus_eval.samples import Sample, Wording

LLAVA, LMMS_EVAL, VLMEVALKIT = "llava", "lmms-eval", "vlmevalkit"

_WORD = "Answer the question using a single word or phrase."
_LETTER = "Answer with the option's letter from the given choices directly."
_BEST = (
    "Select the best answer to the above multiple-choice question based on the image. "
    "Respond with only the letter (A, B, C, D, or E) of the correct option."
)


def _words(sample: Sample) -> str:
    return "\n".join(part for part in (sample.question, sample.context, _WORD) if part)


def _words_alone(sample: Sample) -> str:
    return f"{sample.question}\n{_WORD}"


def _capitalized_words(sample: Sample) -> str:
    # lmms-eval's own: all behind the first letter becomes lower case. Its default has no OCR line.
    return f"{sample.question.capitalize()}\n{_WORD}"


def _lines(sample: Sample, form: str = "{}. {}") -> str:
    pairs = zip(letters(sample.options), sample.options, strict=True)
    return "\n".join(form.format(letter, option) for letter, option in pairs)


def _letter(sample: Sample) -> str:
    return "\n".join(part for part in (sample.context, sample.question, _lines(sample), _LETTER) if part)


def _bracketed_letter(sample: Sample) -> str:
    return f"{sample.question}\n{_lines(sample, '({}) {}')}\n{_LETTER}"


def _several_options(sample: Sample) -> str:
    asked = " ".join(part for part in (sample.context, sample.question) if part)
    return f"{asked} There are several options:\n{_lines(sample)}\n\n{_LETTER}"


def _letter_directly(sample: Sample) -> str:
    return f"{sample.question.strip()}\n{_lines(sample)}\nAnswer the option letter directly."


def _select(sample: Sample) -> str:
    hint = f"Hint: {sample.context}\n" if sample.context else ""
    select = "Please select the correct answer from the options above. \n"
    return f"{hint}Question: {sample.question}\nOptions:\n{_lines(sample)}\n{select}"


def _listed_below(behind_below: str, behind_best: str, at_the_end: str) -> Wording:
    """MME-RealWorld's words, which differ between harnesses by blanks alone."""

    def wording(sample: Sample) -> str:
        asked = f"{sample.question} The choices are listed below:{behind_below}\n{_lines(sample, '({}) {}')}"
        return f"{asked}\n{_BEST}{behind_best}\nThe best answer is:{at_the_end}"

    return wording


def _own(sample: Sample) -> str:
    return _letter(sample) if sample.options else _words(sample)


TEXTVQA: Mapping[str, Wording] = {LLAVA: _words, LMMS_EVAL: _capitalized_words, VLMEVALKIT: _words_alone}
GQA: Mapping[str, Wording] = {LLAVA: _words, LMMS_EVAL: _words, VLMEVALKIT: _words}
GQA_MCQ: Mapping[str, Wording] = {LLAVA: _letter}
# VLMEvalKit asks the text of a table of its own, which this reader doesn't know.
POPE: Mapping[str, Wording] = {LLAVA: _words, LMMS_EVAL: _words}
MMBENCH: Mapping[str, Wording] = {LLAVA: _letter, LMMS_EVAL: _several_options, VLMEVALKIT: _select}
SEED: Mapping[str, Wording] = {LLAVA: _letter, LMMS_EVAL: _letter, VLMEVALKIT: _select}
# V*'s own question file has its options in brackets, for LLaVA too.
VSTAR: Mapping[str, Wording] = {LLAVA: _bracketed_letter, LMMS_EVAL: _letter, VLMEVALKIT: _select}
HRBENCH: Mapping[str, Wording] = {LLAVA: _letter, LMMS_EVAL: _letter_directly, VLMEVALKIT: _select}
# The first is what the authors' script for LLaVA asks.
MME_REALWORLD: Mapping[str, Wording] = {
    LLAVA: _listed_below(" ", "", ""),
    LMMS_EVAL: _listed_below("", "", " "),
    VLMEVALKIT: _listed_below("", " ", ""),
}
FILE: Mapping[str, Wording] = {LLAVA: _own}
