"""A vLLM worker that computes nothing: every answer and every box is there at once, with made-up log-probabilities.

`dualfocus serve --worker-cls loadtests.ceiling.instant_worker.InstantWorker` serves a model's form (tokenizer, picture
processor, scheduler, prefix cache) with it: what is left is what the server and vLLM's own processes take.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import AutoTokenizer
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, LogprobsLists, ModelRunnerOutput
from vllm.v1.worker.cpu_worker import CPUWorker

_BOX, _ANSWER = "[0.20, 0.41, 0.37, 0.74]", "42"
_GROUNDING = "grounding-"  # our turns' names open their requests' ids
_LOGPROB = -0.1


@dataclass
class _Writing:
    """A request: its prompt tokens that are still to be scheduled, and the tokens that it has yet to write."""

    prompt_left: int
    tokens: list[int]


class InstantWorker(CPUWorker):  # type: ignore[misc]
    """Writes the same box for every grounding turn and the same answer for all else."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the model, whose form the scheduler asks for, and tokenize what is written."""
        super().load_model(*args, **kwargs)
        tokenizer = AutoTokenizer.from_pretrained(self.model_config.tokenizer)
        self._box, self._answer = (tokenizer.encode(text, add_special_tokens=False) for text in (_BOX, _ANSWER))
        self._end = tokenizer.eos_token_id
        self._writing: dict[str, _Writing] = {}

    def execute_model(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        """Return a token for each request whose prompt is scheduled to its end."""
        for name in scheduler_output.finished_req_ids:
            self._writing.pop(name, None)
        for new in scheduler_output.scheduled_new_reqs:
            self._writing[new.req_id] = self._begun(new)
        steps = scheduler_output.num_scheduled_tokens
        if not steps:
            return EMPTY_MODEL_RUNNER_OUTPUT
        return _output({name: self._next(self._writing[name], count) for name, count in steps.items()})

    def _begun(self, new: NewRequestData) -> _Writing:
        text = self._box if new.req_id.startswith(_GROUNDING) else self._answer
        return _Writing(len(new.prompt_token_ids or ()) - new.num_computed_tokens, [*text, self._end])

    def _next(self, request: _Writing, count: int) -> list[int]:
        request.prompt_left -= count
        if request.prompt_left > 0:
            return []
        return [request.tokens.pop(0) if request.tokens else self._end]


def _output(written: dict[str, list[int]]) -> ModelRunnerOutput:
    tokens = np.array([[token[0] if token else 0] for token in written.values()], dtype=np.int32)
    return ModelRunnerOutput(
        req_ids=list(written),
        req_id_to_index={name: place for place, name in enumerate(written)},
        sampled_token_ids=list(written.values()),
        logprobs=LogprobsLists(tokens, np.full(tokens.shape, _LOGPROB, np.float32), np.ones(len(tokens), np.int32)),
    )
