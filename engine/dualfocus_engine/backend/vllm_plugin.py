"""What vLLM loads in each of its processes before a model is read (entry point `vllm.general_plugins`)."""

import importlib
import importlib.util
import sys

PIXTRAL = "transformers.models.pixtral.image_processing_pixtral"
PIXTRAL_PIL = "transformers.models.pixtral.image_processing_pil_pixtral"


def register() -> None:
    """Let vLLM's LLaVA be imported where torchvision is absent.

    vLLM's `llava` imports Pixtral's image processor, which needs torchvision; transformers ships the same
    processor on Pillow under another name. Nothing is done where torchvision is there.
    """
    if PIXTRAL in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return
    sys.modules[PIXTRAL] = importlib.import_module(PIXTRAL_PIL)
