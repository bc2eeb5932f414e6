"""Models that vLLM 0.32 does not have, and its plugin that brings them (the entry-point group `vllm.general_plugins`).

Leans on vLLM 0.32's `ModelRegistry.register_model`. Of this room the rest of the engine knows names alone: vLLM imports
the models.
"""

# LLaVA-NeXT that takes a crop as a further patch of its picture.
LLAVA_HIGH_RES = "LlavaHighResForConditionalGeneration"


def register() -> None:
    """Tell vLLM of the models; it asks in every process of an engine, and may ask twice."""
    from vllm import ModelRegistry

    # As text, so that torch is not set up in a process that is forked later.
    ModelRegistry.register_model(LLAVA_HIGH_RES, f"dualfocus_engine.models.llava_high_res:{LLAVA_HIGH_RES}")
