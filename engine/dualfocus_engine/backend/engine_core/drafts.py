"""Boxes drafted, not spelled out: the tokens that every box holds are proposed to vLLM and verified in one step.

Where each character is a token, `[0.20, 0.41, 0.37, 0.74]` is 25 of them, its closing token included; the model decides
on eight digits.

Leans on vLLM 0.32's speculative decoding by a class of one's own (`method="custom_class"`): `propose` is given the
rows of the running batch as token ids and nothing else. Which of them write a box comes with each step from the
scheduler (`ec_connector.py`); a row is known by its prompt.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from vllm.distributed.ec_transfer import get_ec_transfer
from vllm.platforms import current_platform

from dualfocus_engine.backend.engine_core.cpu_kernels import mend_rejection_sampling
from dualfocus_engine.backend.safe_hooks import never_raises
from dualfocus_engine.families.box_format import BoxFormat
from dualfocus_engine.families.boxes import Box

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.output import NewRequestData

Tokens = NDArray[np.int32]

#: The engine argument that has boxes drafted; no box format that ships has a longer run of sure tokens than four.
SPECULATIVE_CONFIG = {"method": "custom_class", "model": f"{__name__}.BoxProposer", "num_speculative_tokens": 4}
# Stands for a token that only the model can decide on.
OPEN = -1
_BYTES = np.dtype(np.int32).itemsize
# Boxes in which every digit of every corner differs from one to the other.
_SAMPLES = [Box(0.12 + n, 0.23 + n, 0.34 + n, 0.45 + n) for n in (0.0, 0.11, 0.22, 0.33, 0.44)]


@dataclass(frozen=True)
class BoxDraft:
    """A request that writes a box: its prompt, as the bytes of int32 ids, and the box's tokens as far as known."""

    prompt: bytes
    box: tuple[int, ...]


def box_tokens(box_format: BoxFormat, encode: Callable[[str], list[int]], closing: int) -> list[int]:
    """Return the tokens that a box in `box_format` and the turn's `closing` token will be, OPEN where boxes differ.

    Empty where boxes differ in length: then a token's place says nothing about it.
    """
    samples = [[*encode(box_format.write(box)), closing] for box in _SAMPLES]
    if len({len(tokens) for tokens in samples}) > 1:
        return []
    return [place[0] if len(set(place)) == 1 else OPEN for place in zip(*samples, strict=True)]


@never_raises(lambda *_: None)
def draft_of(request: "NewRequestData", box_key: str) -> BoxDraft | None:
    """Return what is known of the box that a request writes (under `box_key` in its `extra_args`); None for others."""
    sampling = request.sampling_params
    box = (sampling.extra_args or {}).get(box_key) if sampling is not None else None
    if not box or request.prompt_token_ids is None:
        return None
    return BoxDraft(np.array(request.prompt_token_ids, np.int32).tobytes(), tuple(map(int, box)))


class Drafting:
    """The requests that are writing a box, as a worker knows them."""

    def __init__(self) -> None:
        self._running: dict[str, BoxDraft] = {}
        self._boxes: dict[bytes, tuple[int, ...]] = {}
        self._asked: Counter[bytes] = Counter()

    def update(self, begun: Mapping[str, BoxDraft], ended: AbstractSet[str]) -> None:
        """Take up the requests that began and forget those that ended."""
        for name, draft in begun.items():
            self._running[name] = draft
            self._boxes[draft.prompt] = draft.box
            self._asked[draft.prompt] += 1
        for name in ended & self._running.keys():
            prompt = self._running.pop(name).prompt
            self._asked[prompt] -= 1
            if not self._asked[prompt]:
                del self._asked[prompt], self._boxes[prompt]

    def of(self, rows: Sequence[Tokens]) -> list[Sequence[int]]:
        """Return the rest of each row's box as far as known, nothing for rows that write none.

        A prompt that stands in more rows than were asked to write a box is another client's too: the rows can't be told
        apart, so none is drafted.
        """
        lengths = {len(prompt) // _BYTES for prompt in self._boxes}
        found = [self._prompt_of(row, lengths) for row in rows]
        seen = Counter(prompt for prompt in found if prompt is not None)
        return [
            () if prompt is None or seen[prompt] > self._asked[prompt] else self._rest(prompt, row)
            for prompt, row in zip(found, rows, strict=True)
        ]

    def _prompt_of(self, row: Tokens, lengths: Iterable[int]) -> bytes | None:
        starts = (row[:length].tobytes() for length in lengths if length < len(row))
        return next((start for start in starts if start in self._boxes), None)

    def _rest(self, prompt: bytes, row: Tokens) -> Sequence[int]:
        return self._boxes[prompt][len(row) - len(prompt) // _BYTES :]


class BoxProposer:
    """What vLLM asks for drafts (`custom_class`)."""

    def __init__(self, vllm_config: "VllmConfig") -> None:
        if current_platform.is_cpu():
            mend_rejection_sampling()
        self._max_draft_tokens = vllm_config.speculative_config.num_speculative_tokens

    @never_raises(lambda self, sampled_token_ids, *_, **__: [[] for _ in sampled_token_ids])
    def propose(
        self, sampled_token_ids: Sequence[Sequence[int]], num_tokens_no_spec: Any, token_ids_cpu: Any, **kwargs: Any
    ) -> list[list[int]]:
        """Return each row's draft: the sure tokens that come next in its box, up to the next that is open."""
        rows = [token_ids_cpu[number, : num_tokens_no_spec[number]] for number in range(len(sampled_token_ids))]
        return [list(_sure_tokens(rest))[: self._max_draft_tokens] for rest in get_ec_transfer().drafting.of(rows)]

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """There is none to load."""


def _sure_tokens(rest: Sequence[int]) -> Iterator[int]:
    for token in rest:
        if token == OPEN:
            return
        yield token
