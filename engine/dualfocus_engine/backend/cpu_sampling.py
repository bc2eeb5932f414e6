"""Two faults of vLLM's CPU build in speculative decoding, mended; with a draft engine every step meets them.

Leans on vLLM 0.32's `register_kernels` and on `rejection_sampler` finding `apply_top_k_top_p` in its own module
(tests/engine/test_vllm_contract.py says when a fault is gone).
"""

import torch
from vllm.triton_utils.dispatcher import register_kernels
from vllm.v1.sample import rejection_sampler
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

_EXPAND_KERNEL = "vllm.v1.sample.rejection_sampler.expand_kernel"


def mend_rejection_sampling() -> None:
    """Put what follows in the place of vLLM's own, in this process."""
    register_kernels({_EXPAND_KERNEL: expand})
    rejection_sampler.apply_top_k_top_p = mask_top_k_top_p


def expand(
    output: torch.Tensor,
    values: torch.Tensor,
    ends: torch.Tensor,
    replaced: float,
    replacement: float,
    most: int | None = None,
) -> None:
    """Write each request's value once for each of its draft tokens, as far as `ends` says, one value replaced.

    vLLM's kernel writes into a copy: beside a sampled request, drafts are judged by uninitialised temperatures.
    """
    counts = torch.diff(ends, prepend=ends.new_zeros(1))
    output.copy_(torch.where(values == replaced, replacement, values).repeat_interleave(counts))


def mask_top_k_top_p(logits: torch.Tensor, k: torch.Tensor | None, p: torch.Tensor | None) -> torch.Tensor:
    """Mask the logits of draft tokens, shape (tokens, vocabulary), to the top k and p.

    vLLM's raises where there is no draft token in a step, which any request with `top_k` could bring about.
    """
    return apply_top_k_top_p(logits, k, p) if logits.shape[0] else logits
