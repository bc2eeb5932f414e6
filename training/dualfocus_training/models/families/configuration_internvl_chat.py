"""The configuration of InternVLChatModel, copied beside the tiny model: transformers and vLLM have none of it.

The published repositories bring theirs in the same way, so they are served with `--trust-remote-code` only.
"""

from typing import Any

from transformers import PreTrainedConfig, Qwen2Config


class InternVLChatConfig(PreTrainedConfig):
    """An encoder's configuration, a language model's, and how pictures are cut into tiles."""

    model_type = "internvl_chat"
    has_no_defaults_at_init = True

    def __init__(self, vision_config: dict[str, Any], llm_config: dict[str, Any], **more: Any) -> None:
        self.vision_config = PreTrainedConfig(**vision_config)
        self.llm_config = Qwen2Config(**llm_config)
        super().__init__(**more)
