"""GQA: a reply is right where it is the answer, letter for letter."""

from dualfocus_eval.samples import Sample


def score(sample: Sample, reply: str) -> float:
    """Return 1 where the reply, in lower case and without full stops at its end, is the answer.

    What LLaVA hands to GQA's own `eval.py`, and what that does. VLMEvalKit takes off no full stops ("Yes." is wrong
    there); lmms-eval takes no notice of punctuation anywhere.
    """
    return float(reply.strip().rstrip(".").lower() in sample.answers)
