"""How confident a model is of its own answer: Eq. 7 of the DualFocus paper (arXiv:2402.14767)."""

import math
from collections.abc import Sequence

# exp() of more than this is no finite double. Mean NLLs are compared, never perplexities.
_LARGEST_EXPONENT = 709.0


def mean_nll(logprobs: Sequence[float]) -> float:
    """Return the mean negative log-likelihood in nats per token: the logarithm of Eq. 7's perplexity.

    `logprobs` are the model's own (temperature 1) for each token of the answer, its closing token included.
    No tokens, or a token without a number, make it infinite: such an answer can't be preferred.
    """
    if not logprobs or any(math.isnan(logprob) for logprob in logprobs):
        return math.inf
    return max(-math.fsum(logprobs) / len(logprobs), 0.0)


def perplexity(nll: float) -> float:
    """Return Eq. 7's perplexity for a mean negative log-likelihood; infinite from e^709 (8e307) on."""
    return math.exp(nll) if nll <= _LARGEST_EXPONENT else math.inf
