"""GLM-4.5V in small: GLM-4.1V with experts, four in the second text layer, two of which a token goes through."""

from pathlib import Path

from transformers import Glm4vMoeConfig, Glm4vMoeForConditionalGeneration

from dualfocus_training.models.families import glm4v
from dualfocus_training.models.families.making import WIDTH

_EXPERTS = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": WIDTH // 2,
    "head_dim": 64,
    "use_qk_norm": False,  # vLLM asks for it
}


def write_tiny(folder: Path, seed: int) -> None:
    """Write the model, its tokenizer and its processors' configurations into an existing or new folder."""
    glm4v.write_as(folder, seed, Glm4vMoeForConditionalGeneration, Glm4vMoeConfig, **_EXPERTS)
