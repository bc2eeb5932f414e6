"""What DualFocus adds to vLLM's scheduler: counts of each request's work, one request that computes what several begin
with, and word to the workers of which requests write boxes.

Leans on vLLM's encoder-cache connector interface (`ECConnectorBase`), made for sharing encoder outputs between
machines: it is told of every image that is given to the encoder and of every step, is asked whether a request may be
scheduled yet (`ensure_cache_available`), has a word for the workers in each step, and what `request_finished` returns
comes back with the request's output (`RequestOutput.ec_transfer_params`). Nothing is transferred.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vllm.distributed.ec_transfer.ec_connector.base import (
    ECConnectorBase,
    ECConnectorMetadata,
    ECConnectorRole,
)

from dualfocus_engine.drafts import BoxDraft, Drafting, draft_of
from dualfocus_engine.sharing import Leaders

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.request import Request

ENCODER_RUNS = "encoder_runs"
ENGINE_STEPS = "engine_steps"

#: The engine argument that installs the connector.
EC_TRANSFER_CONFIG = {
    "ec_connector": "TurnConnector",
    "ec_connector_module_path": __name__,
    "ec_role": "ec_both",
}


@dataclass
class _Boxes(ECConnectorMetadata):
    """For the workers: requests that write a box from this step on, and those that no longer do."""

    begun: dict[str, BoxDraft] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)


class TurnConnector(ECConnectorBase):
    """An encoder-cache connector that counts, and passes on what may be drafted; the workers' own one keeps that."""

    def __init__(self, vllm_config: "VllmConfig", role: ECConnectorRole) -> None:
        super().__init__(vllm_config, role)
        self._runs: Counter[str] = Counter()
        self._steps: Counter[str] = Counter()
        self._ended: set[str] = set()
        self._leaders = Leaders() if vllm_config.cache_config.enable_prefix_caching else None
        self.drafting = Drafting()

    def ensure_cache_available(self, request: "Request", num_computed_tokens: int) -> bool:
        """Hold a request back while another computes the picture that both open with."""
        return self._leaders is None or self._leaders.may_begin(request, num_computed_tokens)

    def update_state_after_alloc(self, request: "Request", index: int) -> None:
        """Count one image scheduled for the encoder."""
        self._runs[request.request_id] += 1

    def request_finished(self, request: "Request") -> tuple[bool, dict[str, Any] | None]:
        """Hand the counts over with the request's last output."""
        name = request.request_id
        if self._leaders is not None:
            self._leaders.ended(request)
        return False, {ENCODER_RUNS: self._runs.pop(name, 0), ENGINE_STEPS: self._steps.pop(name, 0)}

    def build_connector_meta(self, scheduler_output: "SchedulerOutput") -> ECConnectorMetadata:
        """Count a step for each request in it; return what the workers are told with it."""
        self._steps.update(scheduler_output.num_scheduled_tokens.keys())
        self._ended |= scheduler_output.finished_req_ids
        if not scheduler_output.total_num_scheduled_tokens:
            return _Boxes()  # never reaches a connector: the workers have nothing to run
        drafts = {new.req_id: draft_of(new) for new in scheduler_output.scheduled_new_reqs}
        ended, self._ended = self._ended, set()
        return _Boxes({name: draft for name, draft in drafts.items() if draft is not None}, ended)

    def start_load_caches(self, encoder_cache: "dict[str, torch.Tensor]", **kwargs: Any) -> None:
        """Take note, in a worker, of what this step brought; nothing is loaded."""
        told = self._get_connector_metadata()
        assert isinstance(told, _Boxes)
        self.drafting.update(told.begun, told.ended)

    def has_cache_item(self, identifier: str) -> bool:
        """No encoder output is ever to be had from elsewhere."""
        return False

    def save_caches(self, encoder_cache: "dict[str, torch.Tensor]", mm_hash: str, **kwargs: Any) -> None:
        """Nothing is saved."""
