"""Models that vLLM 0.32 does not have, and its plugin that brings them (the entry-point group `vllm.general_plugins`).

Leans on vLLM 0.32's `ModelRegistry.register_model` and on transformers' `AutoConfig` and `AutoTokenizer`, by which vLLM
reads a model's config.json and its tokenizer. The rest of the engine does not import this room: vLLM does.
"""


def register() -> None:
    """Tell vLLM of the models; it asks in every process of an engine, and may ask twice."""
    from transformers import AutoConfig
    from transformers.models.auto.tokenization_auto import REGISTERED_TOKENIZER_CLASSES
    from vllm import ModelRegistry

    from dualfocus_engine.models.qwen_vl_config import QwenVLConfig
    from dualfocus_engine.models.qwen_vl_tokenizer import QWenTokenizer

    AutoConfig.register(QwenVLConfig.model_type, QwenVLConfig, exist_ok=True)
    # By the name that tokenizer_config.json has, which goes before the code in its repository: that is never run.
    REGISTERED_TOKENIZER_CLASSES[QWenTokenizer.__name__] = QWenTokenizer
    # As text, so that torch is not set up in a process that is forked later.
    ModelRegistry.register_model("QWenLMHeadModel", "dualfocus_engine.models.qwen_vl:QwenVLForConditionalGeneration")
