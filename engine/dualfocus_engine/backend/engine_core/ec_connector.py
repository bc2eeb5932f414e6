"""What DualFocus adds to vLLM's scheduler: it counts each request's work, holds back prompts whose picture another one
is computing (`prefill_gate.py`), and tells the workers which requests write boxes (`drafts.py`).

Leans on vLLM's encoder-cache connector interface (`ECConnectorBase`), made for sharing encoder outputs between
machines: it is told of every image that is given to the encoder and of every step, is asked whether a request may be
scheduled yet (`ensure_cache_available`), has a word for the workers in each step, and what `request_finished` returns
comes back with the request's output (`RequestOutput.ec_transfer_params`). Nothing is transferred.
"""

import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vllm.distributed.ec_transfer.ec_connector.base import (
    ECConnectorBase,
    ECConnectorMetadata,
    ECConnectorRole,
)
from vllm.platforms import current_platform

from dualfocus_engine.backend.engine_core.cpu_kernels import mend_adapters
from dualfocus_engine.backend.engine_core.drafts import BoxDraft, Drafting, draft_of
from dualfocus_engine.backend.engine_core.ending import leave_signals_to_the_server
from dualfocus_engine.backend.engine_core.prefill_gate import PrefillGate
from dualfocus_engine.backend.safe_hooks import never_raises

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
    from vllm.v1.request import Request

CONNECTOR = "TurnConnector"
ENCODER_RUNS = "encoder_runs"
ENGINE_STEPS = "engine_steps"

_BOX_KEY = "box_key"


def ec_transfer_config(*, draft_boxes: bool) -> dict[str, Any]:
    """Return the engine argument that installs the connector.

    With `draft_boxes` it names the key under which a grounding turn's `extra_args` say what its box will hold. Clients
    write into `extra_args` too (`vllm_xargs`), so the key is one that nobody can guess.
    """
    return {
        "ec_connector": CONNECTOR,
        "ec_connector_module_path": __name__,
        # Not "ec_both": for a producer, vLLM encodes the largest picture and video that the model takes at each start.
        "ec_role": "ec_consumer",
        "ec_connector_extra_config": {_BOX_KEY: f"dualfocus-box-{secrets.token_hex(16)}"} if draft_boxes else {},
    }


def box_key(vllm_config: "VllmConfig") -> str | None:
    """Return the key that `ec_transfer_config` made for a running engine; None where boxes are not drafted."""
    transfer = vllm_config.ec_transfer_config
    return None if transfer is None else transfer.get_from_extra_config(_BOX_KEY, None)


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
        self._box_key = box_key(vllm_config)
        cache = vllm_config.cache_config
        self._gate = PrefillGate(cache.block_size) if cache.enable_prefix_caching else None
        self.drafting = Drafting()
        leave_signals_to_the_server()
        if role is ECConnectorRole.WORKER and vllm_config.lora_config is not None and current_platform.is_cpu():
            mend_adapters()

    @never_raises(lambda *_: True)
    def ensure_cache_available(self, request: "Request", num_computed_tokens: int) -> bool:
        """Hold a request back while another computes the picture that both open with."""
        return self._gate is None or self._gate.may_begin(request, num_computed_tokens)

    @never_raises(lambda *_: None)
    def update_state_after_alloc(self, request: "Request", index: int) -> None:
        """Count one image scheduled for the encoder."""
        self._runs[request.request_id] += 1

    @never_raises(lambda *_: (False, None))
    def request_finished(self, request: "Request") -> tuple[bool, dict[str, Any] | None]:
        """Hand the counts over with the request's last output."""
        name = request.request_id
        if self._gate is not None:
            self._gate.forget(request)
        return False, {ENCODER_RUNS: self._runs.pop(name, 0), ENGINE_STEPS: self._steps.pop(name, 0)}

    @never_raises(lambda *_: _Boxes())
    def build_connector_meta(self, scheduler_output: "SchedulerOutput") -> ECConnectorMetadata:
        """Count a step for each request in it; return what the workers are told with it."""
        self._steps.update(scheduler_output.num_scheduled_tokens.keys())
        self._ended |= scheduler_output.finished_req_ids
        if not scheduler_output.total_num_scheduled_tokens:
            return _Boxes()  # never reaches a connector: the workers have nothing to run
        ended, self._ended = self._ended, set()
        return _Boxes(self._drafts(scheduler_output.scheduled_new_reqs), ended)

    def _drafts(self, begun: "Iterable[NewRequestData]") -> dict[str, BoxDraft]:
        if self._box_key is None:
            return {}
        drafts = {new.req_id: draft_of(new, self._box_key) for new in begun}
        return {name: draft for name, draft in drafts.items() if draft is not None}

    @never_raises(lambda *_, **__: None)
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
