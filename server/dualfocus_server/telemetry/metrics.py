"""The server's own metrics, in the `dualfocus_` namespace beside vLLM's (docs/operations.md names them all)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPMethod, HTTPStatus

from dualfocus_engine import FocusResult, Mode, SecondLook, Selection
from dualfocus_engine.method.results import kind_of, turns_of
from dualfocus_engine.method.stages import GROUNDER as GROUNDER_STAGE
from prometheus_client import REGISTRY, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from prometheus_fastapi_instrumentator.metrics import Info, default
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dualfocus_server.guards.api_errors import ERROR_TYPES, error_type
from dualfocus_server.guards.http_errors import CLIENT_LEFT

OFF = "off"  # the mode of what vLLM's own servings answered
_QUESTION_PATHS = (
    *("/v1/chat/completions", "/v1/chat/completions/batch", "/v1/messages", "/v1/responses"),
    *("/v1/completions", "/invocations"),
)
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
for _outcome in (*_ANSWERS, "degraded", *_SKIPPED.values(), OFF, "client_left", *ERROR_TYPES):
    QUESTIONS.labels(_outcome)  # from 0 on: of a series that begins at 5, Prometheus sees no rise
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

# `vllm serve`'s own of HTTP, by the library that it takes them from: made once, also for several applications.
_HTTP_METRICS = default()
_METHODS = {*HTTPMethod}
# Asked too often to be of use, as in vLLM.
UNCOUNTED_PATHS = ["/metrics", "/health", "/ready", "/ping", "/version", "/load"]


_RUNNING, _WAITING = "dualfocus_questions_running", "dualfocus_questions_waiting"
_UNFINISHED_TURNS = "dualfocus_unfinished_turns"
_GAUGES = {
    _RUNNING: "Questions worked on.",
    _WAITING: "Questions waiting for their turn.",
    _UNFINISHED_TURNS: "Turns that the engine has not finished.",
}


class _Live(Collector):
    """What is counted elsewhere, and read from there at each scrape: what this process knows of it."""

    def __init__(self) -> None:
        self.gauges: dict[str, Callable[[], int]] = {}
        self.image_cache: Callable[[], Mapping[str, tuple[int, int]]] = dict

    def collect(self) -> Iterator[Metric]:
        for name, read in self.gauges.items():
            yield GaugeMetricFamily(name, _GAUGES[name], read())
        hits = CounterMetricFamily("dualfocus_image_cache_hits", "Images found in the cache.", labels=["kind"])
        misses = CounterMetricFamily("dualfocus_image_cache_misses", "Images not found in it.", labels=["kind"])
        for name, (hit, missed) in self.image_cache().items():
            hits.add_metric([name], hit)
            misses.add_metric([name], missed)
        yield from (hits, misses)


LIVE = _Live()
REGISTRY.register(LIVE)


def watch_places(counts: Callable[[], tuple[int, int]]) -> None:
    """Read at each scrape how many questions run, and wait, from where places are counted."""
    LIVE.gauges[_RUNNING] = lambda: counts()[0]
    LIVE.gauges[_WAITING] = lambda: counts()[1]


def watch_engine(unfinished: Callable[[], int], image_cache: Callable[[], Mapping[str, tuple[int, int]]]) -> None:
    """Read at each scrape the unfinished turns, and the image cache's hits and misses by what was looked for."""
    LIVE.gauges[_UNFINISHED_TURNS] = unfinished
    LIVE.image_cache = image_cache


async def own_metrics() -> bytes:
    """Return this process's metrics in Prometheus's text format."""
    return generate_latest()


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
    QUESTIONS.labels("client_left" if status == CLIENT_LEFT else error_type(status)).inc()


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
