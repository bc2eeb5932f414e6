"""Qwen-VL's config.json as vLLM reads models: its language model is Qwen2's in all but the names of its fields."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig, Qwen2Config


class QwenVLConfig(PreTrainedConfig):
    """The configuration of a `QWenLMHeadModel` with pictures: `visual` as config.json has it, `text_config` made of it.

    Raises ValueError where it is the text-only Qwen, which has the same type, or not of the released models' form.
    """

    model_type = "qwen"
    sub_configs = {"text_config": Qwen2Config}  # noqa: RUF012 (as transformers has it)
    has_no_defaults_at_init = True

    def __init__(self, visual: Mapping[str, Any] | None = None, **fields: Any) -> None:
        if visual is None:
            raise ValueError(
                "This is the text-only Qwen: its config.json has no `visual`. Only Qwen-VL is served here."
            )
        _check(fields)
        self.visual = dict(visual)
        self.text_config = _text_config(fields)
        # What stands for a picture in a prompt: behind <img> and </img>.
        self.image_token_id = self.image_end_id + 1
        # The language model has been told of the rotary base; by its old name vLLM would warn of it here.
        super().__init__(**{name: value for name, value in fields.items() if not name.startswith("rotary_")})

    @property
    def image_end_id(self) -> int:
        """The token `</img>`."""
        return self.image_start_id + 1

    @property
    def image_start_id(self) -> int:
        """The token `<img>`."""
        return int(self.visual["image_start_id"])


def _check(fields: Mapping[str, Any]) -> None:
    """Raise ValueError where the language model is not built as the released ones are."""
    expected = {
        "kv_channels": fields["hidden_size"] // fields["num_attention_heads"],
        "rotary_pct": 1.0,
        "no_bias": True,
        "tie_word_embeddings": False,
    }
    for name, value in expected.items():
        if fields.get(name, value) != value:
            raise ValueError(f"Qwen-VL with {name} {fields[name]} can't be served: the released models have {value}.")


def _text_config(fields: Mapping[str, Any]) -> Qwen2Config:
    """Return the language model's configuration.

    Its context is `seq_length`: beyond it the model needs logn attention and a changing rotary base, which vLLM's Qwen2
    has not; up to it neither changes anything.
    """
    return Qwen2Config(
        vocab_size=fields["vocab_size"],
        hidden_size=fields["hidden_size"],
        num_hidden_layers=fields["num_hidden_layers"],
        num_attention_heads=fields["num_attention_heads"],
        num_key_value_heads=fields["num_attention_heads"],
        intermediate_size=fields["intermediate_size"] // 2,  # of the gate and of what it scales, each
        rms_norm_eps=fields["layer_norm_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": float(fields.get("rotary_emb_base", 10000))},
        max_position_embeddings=fields["seq_length"],
        tie_word_embeddings=False,
        architectures=["Qwen2ForCausalLM"],
    )
