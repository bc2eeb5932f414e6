"""What a client may ask of how an answer is drawn, besides what vLLM checks by itself."""

from typing import Any, Self

from pydantic import BaseModel, field_validator, model_validator

from dualfocus_server.guards.json_limits import FieldError

# OpenAI's own limit.
_MAX_CHOICES = 128
_MAX_LENGTH_PENALTY = 10
# Names in `vllm_xargs` that vLLM's engine (or ours, by the beginning) reads for itself: not a client's to write.
_RESERVED_XARGS = ("kv_transfer_params", "ec_transfer_params", "kv_cache_report_mode")
_OUR_XARGS = "dualfocus"


class Sampled(BaseModel):
    """What every request has in common that something is generated for."""

    @field_validator("vllm_xargs", mode="before", check_fields=False)
    @classmethod
    def _reserves_names(cls, xargs: Any) -> Any:
        for name in xargs if isinstance(xargs, dict) else ():
            if name in _RESERVED_XARGS or str(name).startswith(_OUR_XARGS):
                raise ValueError(f"{name!r} is reserved for the engine; vllm_xargs takes what logits processors read")
        return xargs

    @model_validator(mode="before")
    @classmethod
    def _has_an_object(cls, body: Any) -> Any:
        if isinstance(body, dict) and not isinstance(body.get("structured_outputs"), dict | None):
            raise FieldError("structured_outputs must be an object", "structured_outputs")
        return body

    @model_validator(mode="after")
    def _has_few_choices(self) -> Self:
        if not 1 <= (getattr(self, "n", None) or 1) <= _MAX_CHOICES:
            raise FieldError(f"n must be 1 to {_MAX_CHOICES}", "n")
        return self

    @model_validator(mode="after")
    def _has_scores_of_beams(self) -> Self:
        """Keep lengths to a power of them that is a number: vLLM divides by it."""
        penalty = getattr(self, "length_penalty", None) or 0.0
        if getattr(self, "use_beam_search", False) and not abs(penalty) <= _MAX_LENGTH_PENALTY:
            limits = f"{-_MAX_LENGTH_PENALTY} to {_MAX_LENGTH_PENALTY}"
            raise FieldError(f"length_penalty must be {limits} with use_beam_search", "length_penalty")
        return self
