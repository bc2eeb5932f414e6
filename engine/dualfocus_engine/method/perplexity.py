"""How surprising a model finds its own answer (Eq. 7), and the choice between two of them (Eq. 8)."""

import math
from collections.abc import Sequence

# exp() of more than this is not a finite double; losses are compared, never perplexities.
_LARGEST_EXPONENT = 709.0


def mean_loss(logprobs: Sequence[float]) -> float:
    """Return the mean negative log-likelihood in nats per token: the logarithm of Eq. 7's perplexity.

    `logprobs` are the model's own (temperature 1) for each token of the answer, its closing token included.
    No tokens, or a token without a number, make an infinite loss: such an answer can't be preferred.
    """
    if not logprobs or any(math.isnan(logprob) for logprob in logprobs):
        return math.inf
    return max(-math.fsum(logprobs) / len(logprobs), 0.0)


def perplexity(loss: float) -> float:
    """Return Eq. 7's perplexity for a mean loss, at most e^709 (about 8e307), so that it stays a number."""
    return math.exp(min(loss, _LARGEST_EXPONENT))


def macro_wins(macro_loss: float, micro_loss: float) -> bool:
    """Eq. 8, in log space: the macro answer is chosen only where it is strictly less surprising."""
    return macro_loss < micro_loss
