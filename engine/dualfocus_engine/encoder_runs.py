"""Counts, in vLLM's scheduler, how often the vision encoder runs for each request.

Leans on vLLM's encoder-cache connector interface (`ECConnectorBase`), made for sharing encoder outputs between
machines: it is told of every image that is given to the encoder, and what `request_finished` returns comes
back with the request's output (`RequestOutput.ec_transfer_params`). Nothing is transferred.
"""

from typing import TYPE_CHECKING, Any

from vllm.distributed.ec_transfer.ec_connector.base import (
    ECConnectorBase,
    ECConnectorMetadata,
    ECConnectorRole,
)

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.request import Request

ENCODER_RUNS = "encoder_runs"

#: The engine argument that installs the counter.
EC_TRANSFER_CONFIG = {
    "ec_connector": "EncoderRuns",
    "ec_connector_module_path": __name__,
    "ec_role": "ec_both",
}


class _Nothing(ECConnectorMetadata):
    """This connector has nothing to tell its workers."""


class EncoderRuns(ECConnectorBase):
    """An encoder-cache connector that only counts."""

    def __init__(self, vllm_config: "VllmConfig", role: ECConnectorRole) -> None:
        super().__init__(vllm_config, role)
        self._runs: dict[str, int] = {}

    def update_state_after_alloc(self, request: "Request", index: int) -> None:
        """Count one image scheduled for the encoder."""
        self._runs[request.request_id] = self._runs.get(request.request_id, 0) + 1

    def request_finished(self, request: "Request") -> tuple[bool, dict[str, Any] | None]:
        """Hand the count over with the request's last output."""
        return False, {ENCODER_RUNS: self._runs.pop(request.request_id, 0)}

    def has_cache_item(self, identifier: str) -> bool:
        """No encoder output is ever to be had from elsewhere."""
        return False

    def build_connector_meta(self, scheduler_output: "SchedulerOutput") -> ECConnectorMetadata:
        """Return the step's metadata: none."""
        return _Nothing()

    def start_load_caches(self, encoder_cache: "dict[str, torch.Tensor]", **kwargs: Any) -> None:
        """Nothing is loaded."""

    def save_caches(self, encoder_cache: "dict[str, torch.Tensor]", mm_hash: str, **kwargs: Any) -> None:
        """Nothing is saved."""
