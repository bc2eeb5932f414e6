"""Which prompts may be prefilled: of those that open with one picture, one goes first; the others find it cached."""

from typing import TYPE_CHECKING, Any

from vllm.v1.request import RequestStatus

if TYPE_CHECKING:
    from vllm.v1.request import Request


class PrefillGate:
    """Holds a request back while another computes the picture that both prompts open with.

    vLLM looks into its prefix cache once for each request, as it is first scheduled. Where a step has no room left for
    a picture, it schedules what stands before it: for the question's other turn too, which then never looks again and
    computes the picture a second time.
    """

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._by_opening: dict[Any, Request] = {}

    def may_begin(self, request: "Request", cached_tokens: int) -> bool:
        """Whether a request may be scheduled in this step: not while another computes what it would find cached."""
        if request.status is RequestStatus.RUNNING or request.skip_reading_prefix_cache:
            return True
        if cached_tokens > _picture(request).offset or not self._can_be_cached(_picture(request)):
            return True
        leader = self._by_opening.get(_opening(request))
        if leader is None or leader is request or not _is_computing(leader):
            self._by_opening[_opening(request)] = request
            return True
        return False

    def _can_be_cached(self, picture: Any) -> bool:
        """Whether a block ends within a picture: blocks of hybrid models may hold more tokens than it has."""
        return bool((picture.offset + picture.length) // self._block_size > picture.offset // self._block_size)

    def forget(self, request: "Request") -> None:
        """Forget a request."""
        if request.mm_features and self._by_opening.get(_opening(request)) is request:
            del self._by_opening[_opening(request)]


def _picture(request: "Request") -> Any:
    """Where the first picture of a prompt stands."""
    return request.mm_features[0].mm_position


def _opening(request: "Request") -> Any:
    """Return the prefix-cache key up to the first image: its hash, the tokens before it, cache salt, LoRA."""
    adapter = request.lora_request.lora_name if request.lora_request else None
    before = tuple((request.prompt_token_ids or ())[: _picture(request).offset])
    return request.mm_features[0].identifier, before, request.cache_salt, adapter


def _is_computing(request: "Request") -> bool:
    """Whether a request has begun, and its first picture is not yet computed to the end."""
    place = _picture(request)
    return request.status is RequestStatus.RUNNING and request.num_computed_tokens < place.offset + place.length
