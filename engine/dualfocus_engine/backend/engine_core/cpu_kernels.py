"""Three faults of vLLM's CPU build, mended: two in speculative decoding, one where adapters are served.

Leans on vLLM 0.32's `register_kernels`, and on modules finding what is replaced among their own names:
`rejection_sampler` its `apply_top_k_top_p`, `punica_cpu` and `lora_ops` their `bgmv_shrink`
(tests/engine/test_vllm_contract.py says when a fault is gone).
"""

import torch
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu
from vllm.triton_utils.dispatcher import register_kernels
from vllm.v1.sample import rejection_sampler
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

_shrink = lora_ops.bgmv_shrink
_EXPAND_KERNEL = "vllm.v1.sample.rejection_sampler.expand_kernel"


def mend_rejection_sampling() -> None:
    """Put what follows in the place of vLLM's own, in this process."""
    register_kernels({_EXPAND_KERNEL: expand})
    rejection_sampler.apply_top_k_top_p = mask_top_k_top_p


def mend_adapters() -> None:
    """Put `shrink_by_adapter` in the place of vLLM's own, in this process."""
    punica_cpu.bgmv_shrink = lora_ops.bgmv_shrink = shrink_by_adapter


def shrink_by_adapter(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    output: torch.Tensor,
    adapters: torch.Tensor,
    scaling: float = 1.0,
) -> None:
    """Write each token's product with the first matrix of its adapter; 0 where it has none (-1).

    vLLM's takes -1 for the last adapter: beside one in that place, the model's own prompts were computed with it.
    """
    _shrink(inputs, weights, output, adapters, scaling)
    output[: len(adapters)][adapters < 0] = 0


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
