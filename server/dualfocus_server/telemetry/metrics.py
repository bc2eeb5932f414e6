"""The server's own metrics, in the `dualfocus_` namespace beside vLLM's (docs/operations.md names them all)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPMethod, HTTPStatus

from dualfocus_engine import FocusResult, Mode, SecondLook, Selection
from dualfocus_engine.method.results import kind_of, turns_of
from dualfocus_engine.method.stages import GROUNDER as GROUNDER_STAGE
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from prometheus_fastapi_instrumentator.metrics import Info, default
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dualfocus_server.guards.api_errors import error_type

OFF = "off"  # the mode of what vLLM's own servings answered
_QUESTION_PATHS = (
    *("/v1/chat/completions", "/v1/chat/completions/batch", "/v1/messages", "/v1/responses"),
    *("/v1/completions", "/invocations"),
)
_CLIENT_LEFT = 499
_ANSWERS = ("macro", "micro")  # the turns that answer
_SKIPPED = {Selection.SKIPPED: "skipped", Selection.NO_BOX: "no_box"}
_DEGRADED = {
    *(Selection.EMPTY_BOX, Selection.CONTEXT_FULL, Selection.MICRO_FAILED),
    *(Selection.IMAGE_LIMIT, Selection.TIMED_OUT),
    *(Selection.GROUNDER_FAILED, Selection.GROUNDER_TIMED_OUT),
}
_GROUNDER_OUTCOMES = {
    Selection.NO_BOX: "none",
    Selection.GROUNDER_FAILED: "failed",
    Selection.GROUNDER_TIMED_OUT: "timed_out",
}

ANSWERS_LOG_FAILURES = Counter("dualfocus_answers_log_failures", "Lines that --answers-log could not write.")

_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120)
_STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 120)
# The first is under what there is: quantiles are taken along a bucket, and no perplexity is under 1.
_PERPLEXITIES = (0.999, 1.01, 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 1.75, 2, 2.5, 3, 4, 5, 7, 10, 20, 50, 100)
_LOOKS = (1, 2, 3, 4, 5, 6, 8, 10)
_SHARES = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1)

QUESTION_SECONDS = Histogram(
    "dualfocus_question_seconds", "From a question's admission to its answer.", ["mode"], buckets=_SECONDS
)
STAGE_SECONDS = Histogram(
    "dualfocus_stage_seconds", "Seconds of a question's stages.", ["stage"], buckets=_STAGE_SECONDS
)
QUESTIONS = Counter("dualfocus_questions", "Questions by how they ended.", ["outcome"])
PASSED_ON = Counter(
    "dualfocus_passthrough_questions", "Requests that vLLM's own serving answered, by the reason.", ["reason"]
)
PERPLEXITY = Histogram("dualfocus_perplexity", "Perplexity of the answers (Eq. 7).", ["turn"], buckets=_PERPLEXITIES)
BOX_AREA = Histogram("dualfocus_box_area_ratio", "Share of the picture that the box covers.", buckets=_SHARES)
PROMPT_TOKENS = Counter("dualfocus_prompt_tokens", "Prompt tokens of the turns.", ["turn", "source"])
ENCODER_RUNS = Counter("dualfocus_encoder_runs", "Images that the vision encoder ran on.")
GROUNDER_CALLS = Counter("dualfocus_grounder_calls", "Questions put to --grounder, by what came of it.", ["outcome"])
LOOKS = Histogram(
    "dualfocus_looks", "Looks that a question was answered from, the first one counted.", ["mode"], buckets=_LOOKS
)
SEARCHES = Counter("dualfocus_searches", "Searches by why they took no further look.", ["ending"])
RUNNING = Gauge("dualfocus_questions_running", "Questions worked on.")
WAITING = Gauge("dualfocus_questions_waiting", "Questions waiting for their turn.")
UNFINISHED_TURNS = Gauge("dualfocus_unfinished_turns", "Turns that the engine has not finished.")

# `vllm serve`'s own of HTTP, by the library that it takes them from: made once, also for several applications.
_HTTP_METRICS = default()
_METHODS = {*HTTPMethod}
# Asked too often to be of use, as in vLLM.
UNCOUNTED_PATHS = ["/metrics", "/health", "/ready", "/ping", "/version", "/load"]


def watch(running: Callable[[], int], waiting: Callable[[], int], unfinished_turns: Callable[[], int]) -> None:
    """Read the gauges from where they are counted, at each scrape."""
    RUNNING.set_function(running)
    WAITING.set_function(waiting)
    UNFINISHED_TURNS.set_function(unfinished_turns)


class _ImageCache(Collector):
    """Hits and misses as the engine counts them, by what was looked for."""

    def __init__(self) -> None:
        self.counts: Callable[[], Mapping[str, tuple[int, int]]] = dict

    def collect(self) -> Iterator[Metric]:
        hits = CounterMetricFamily("dualfocus_image_cache_hits", "Images found in the cache.", labels=["kind"])
        misses = CounterMetricFamily("dualfocus_image_cache_misses", "Images not found in it.", labels=["kind"])
        for name, (hit, missed) in self.counts().items():
            hits.add_metric([name], hit)
            misses.add_metric([name], missed)
        yield from (hits, misses)


IMAGE_CACHE = _ImageCache()
REGISTRY.register(IMAGE_CACHE)


def record_answer(results: Sequence[FocusResult], mode: Mode, stages: Mapping[str, float], seconds: float) -> None:
    """Count a question that two looks answered, by the first of its answers; its `stages` and all of it in seconds."""
    QUESTIONS.labels(outcome_of(results[0])).inc()
    QUESTION_SECONDS.labels(mode.value).observe(seconds)
    for stage, took in stages.items():
        STAGE_SECONDS.labels(stage).observe(took)
    if GROUNDER_STAGE in stages:
        GROUNDER_CALLS.labels(grounder_outcome_of(results[0].look)).inc()
    LOOKS.labels(mode.value).observe(sum(kind_of(name) in _ANSWERS for name in results[0].turns))
    if (ending := results[0].ending) is not None:
        SEARCHES.labels(ending.value).inc()
    for name, turn in turns_of(results):
        kind = kind_of(name)
        PROMPT_TOKENS.labels(kind, "computed").inc(turn.computed_tokens)
        PROMPT_TOKENS.labels(kind, "cached").inc(turn.cached_tokens)
        ENCODER_RUNS.inc(turn.encoder_runs or 0)
        if kind in _ANSWERS and math.isfinite(turn.perplexity):  # an infinite one would stay in the sum for ever
            PERPLEXITY.labels(kind).observe(turn.perplexity)
    if (box := results[0].look.box) is not None:
        BOX_AREA.observe(box.area)


def record_passthrough(seconds: float, reason: str) -> None:
    """Count a request that vLLM's own serving answered, and the reason."""
    QUESTIONS.labels(OFF).inc()
    PASSED_ON.labels(reason).inc()
    QUESTION_SECONDS.labels(OFF).observe(seconds)


def record_failure(status: int) -> None:
    """Count a question that ended in an error, under the error's type."""
    QUESTIONS.labels("client_left" if status == _CLIENT_LEFT else error_type(status)).inc()


def record_request(info: Info) -> None:
    """Count a request in `http_requests_total` and the like."""
    if info.method not in _METHODS:  # a client can make up as many as it likes, each a line at every scrape
        info.method = "other"
    if _HTTP_METRICS is not None:
        _HTTP_METRICS(info)


def outcome_of(result: FocusResult) -> str:
    """Name how a question ended: the winner of two answers, or what kept it from two."""
    if result.selection in _DEGRADED:
        return "degraded"
    return _SKIPPED.get(result.selection, result.winner)


def grounder_outcome_of(look: SecondLook) -> str:
    """Name what came of a question that the grounder was asked; where the second look was ended early, `unused`."""
    if look.box is not None:
        return "found"
    return _GROUNDER_OUTCOMES.get(look.failed or Selection.SKIPPED, "unused")


class RecordFailures:
    """ASGI middleware: counts the questions that are answered with an error."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def note_failure(message: Message) -> None:
            if message.get("status", HTTPStatus.OK) >= HTTPStatus.BAD_REQUEST:
                record_failure(message["status"])
            await send(message)

        is_question = scope["type"] == "http" and scope["path"].removesuffix("/").endswith(_QUESTION_PATHS)
        await self._app(scope, receive, note_failure if is_question else send)
