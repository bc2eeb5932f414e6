"""What is counted of each question, and under which names."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from dualfocus_engine import Box, FocusResult, Mode, Region, SecondLook, Selection
from dualfocus_engine.method.results import Ending
from dualfocus_engine.method.stages import Stages
from dualfocus_server.guards.admission import Admission
from dualfocus_server.guards.api_errors import error_type
from dualfocus_server.guards.places import OwnPlaces
from dualfocus_server.telemetry import metrics
from dualfocus_server.telemetry.metrics import (
    RecordFailures,
    outcome_of,
    record_answer,
    record_failure,
    record_passthrough,
    watch_engine,
    watch_places,
)
from prometheus_client import REGISTRY, Metric
from prometheus_client.metrics import MetricWrapperBase

from ..builders import turn

LOOK = SecondLook(
    Box(0.0, 0.0, 0.5, 0.5), Region(0, 0, 5, 5), turn("[0, 0, 0.5, 0.5]", mean_nll=9.0), turn("blue", mean_nll=0.0)
)
RESULT = FocusResult("micro", Selection.LOWER_PERPLEXITY, turn("red", cached_tokens=4), LOOK, 1.0)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Change:
    """How much samples change within a block."""

    def __init__(self, *samples: tuple[str, dict[str, str]]) -> None:
        self._samples = samples
        self._before = [value(name, **labels) for name, labels in samples]

    def __call__(self) -> list[float]:
        pairs = zip(self._samples, self._before, strict=True)
        return [value(name, **labels) - before for (name, labels), before in pairs]


def test_every_outcome_is_there_before_it_happens() -> None:
    """A series that begins with its first failures shows no rise to who watches it."""
    results = [replace(RESULT, selection=selection) for selection in Selection]
    outcomes = {*map(outcome_of, results), "macro", metrics.OFF, "client_left", *map(error_type, range(400, 600))}
    assert all(REGISTRY.get_sample_value("dualfocus_questions_total", {"outcome": one}) is not None for one in outcomes)


def test_an_answer_is_counted_in_every_way() -> None:
    change = Change(
        ("dualfocus_questions_total", {"outcome": "micro"}),
        ("dualfocus_question_seconds_sum", {"mode": "dual"}),
        ("dualfocus_stage_seconds_sum", {"stage": "queue"}),
        ("dualfocus_stage_seconds_count", {"stage": "micro"}),
        ("dualfocus_prompt_tokens_total", {"turn": "macro", "source": "computed"}),
        ("dualfocus_prompt_tokens_total", {"turn": "macro", "source": "cached"}),
        ("dualfocus_prompt_tokens_total", {"turn": "micro", "source": "computed"}),
        ("dualfocus_encoder_runs_total", {}),
        ("dualfocus_perplexity_count", {"turn": "macro"}),
        ("dualfocus_perplexity_sum", {"turn": "micro"}),
        ("dualfocus_perplexity_count", {"turn": "grounding"}),
        ("dualfocus_box_area_ratio_sum", {}),
    )
    record_answer([RESULT], Mode.DUAL, {"queue": 0.25, "micro": 0.5}, 1.5)
    assert change() == pytest.approx([1, 1.5, 0.25, 1, 6, 4, 10, 3, 1, 1.0, 0, 0.25])


@pytest.mark.parametrize(
    ("selection", "outcome"),
    [
        (Selection.LOWER_PERPLEXITY, "micro"),
        (Selection.ONLY_ANSWER, "micro"),
        (Selection.ONLY_OPTION, "micro"),
        (Selection.NO_OPTION, "micro"),
        (Selection.OTHER_EMPTY, "micro"),
        (Selection.SKIPPED, "skipped"),
        (Selection.NO_BOX, "no_box"),
        (Selection.EMPTY_BOX, "degraded"),
        (Selection.CONTEXT_FULL, "degraded"),
        (Selection.MICRO_FAILED, "degraded"),
        (Selection.IMAGE_LIMIT, "degraded"),
        (Selection.TIMED_OUT, "degraded"),
        (Selection.GROUNDER_FAILED, "degraded"),
        (Selection.GROUNDER_TIMED_OUT, "degraded"),
        (Selection.OTHER_CUT, "micro"),
        (Selection.SAME_ANSWER, "micro"),
        (Selection.TOOL_CALL, "micro"),
        (Selection.NOTHING_ASKED, "micro"),
        (Selection.SEVERAL_PICTURES, "micro"),
        (Selection.NOTHING_TO_ENLARGE, "micro"),
        (Selection.NO_GROUNDING, "micro"),
        (Selection.SAME_PLACE, "micro"),
    ],
)
def test_every_way_to_an_answer_is_one_outcome(selection: Selection, outcome: str) -> None:
    assert outcome_of(replace(RESULT, selection=selection)) == outcome


def test_every_selection_has_a_case_here() -> None:
    assert len(Selection) == 22, "a reason was added: say above which outcome it is"


def test_what_was_not_counted_or_not_found_is_left_out() -> None:
    change = Change(("dualfocus_encoder_runs_total", {}), ("dualfocus_box_area_ratio_count", {}))
    result = FocusResult("macro", Selection.ONLY_ANSWER, turn(encoder_runs=None), SecondLook(), 1.0)
    record_answer([result], Mode.MACRO, {}, 1.0)
    assert change() == [0, 0]


@pytest.mark.parametrize(
    ("look", "outcome"),
    [
        (LOOK, "found"),
        (SecondLook(box=LOOK.box, failed=Selection.MICRO_FAILED), "found"),
        (SecondLook(failed=Selection.NO_BOX), "none"),
        (SecondLook(failed=Selection.GROUNDER_FAILED), "failed"),
        (SecondLook(failed=Selection.GROUNDER_TIMED_OUT), "timed_out"),
        (SecondLook(failed=Selection.SKIPPED), "unused"),
        (SecondLook(failed=Selection.TIMED_OUT), "unused"),
    ],
)
def test_what_came_of_asking_the_grounder_is_counted(look: SecondLook, outcome: str) -> None:
    change = Change(("dualfocus_grounder_calls_total", {"outcome": outcome}))
    result = replace(RESULT, look=look)
    record_answer([result], Mode.DUAL, {"macro": 0.5}, 1.5)
    assert change() == [0]
    record_answer([result], Mode.DUAL, {"macro": 0.5, "grounder": 0.25}, 1.5)
    assert change() == [1]


def test_looks_and_why_a_search_ended_are_counted_and_turns_by_their_kind() -> None:
    deeper = replace(RESULT, looks=(LOOK, replace(LOOK, grounding=None)), ending=Ending.SURE)
    change = Change(
        ("dualfocus_looks_sum", {"mode": "search"}),
        ("dualfocus_searches_total", {"ending": "sure"}),
        ("dualfocus_prompt_tokens_total", {"turn": "micro", "source": "computed"}),
        ("dualfocus_prompt_tokens_total", {"turn": "micro-2", "source": "computed"}),
        ("dualfocus_perplexity_count", {"turn": "micro"}),
        ("dualfocus_looks_sum", {"mode": "dual"}),
    )
    record_answer([deeper], Mode.SEARCH, {}, 1.5)
    record_answer([RESULT], Mode.DUAL, {}, 1.5)
    assert change() == [3, 1, 30, 0, 3, 2]


def test_what_vllm_answered_is_counted_too() -> None:
    change = Change(
        ("dualfocus_questions_total", {"outcome": "off"}),
        ("dualfocus_question_seconds_sum", {"mode": "off"}),
        ("dualfocus_passthrough_questions_total", {"reason": "tools"}),
    )
    record_passthrough(0.5, "tools")
    assert change() == [1, 0.5, 1]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (400, "invalid_request_error"),
        (413, "invalid_request_error"),
        (401, "authentication_error"),
        (429, "rate_limit_error"),
        (499, "client_left"),
        (500, "server_error"),
        (503, "service_unavailable_error"),
        (504, "timeout_error"),
    ],
)
def test_a_failure_is_counted_under_its_errors_type(status: int, outcome: str) -> None:
    change = Change(("dualfocus_questions_total", {"outcome": outcome}))
    record_failure(status)
    assert change() == [1]


@pytest.mark.parametrize(
    ("path", "status", "counted"),
    [
        ("/v1/chat/completions", 400, 1),
        ("/root/v1/chat/completions", 400, 1),
        ("/v1/chat/completions/", 400, 1),
        ("/v1/chat/completions", 200, 0),
        ("/v1/models", 400, 0),
    ],
)
async def test_failed_answers_are_counted_wherever_they_were_made(path: str, status: int, counted: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    change = Change(("dualfocus_questions_total", {"outcome": "invalid_request_error"}))
    await RecordFailures(app)({"type": "http", "path": path}, asyncio.Queue().get, send)
    assert change() == [counted]
    assert len(sent) == 2


async def test_questions_worked_on_and_waiting_are_read_at_each_scrape() -> None:
    places = OwnPlaces(1, 5)
    admission = Admission(places)
    watch_places(lambda: places.counts)
    watch_engine(lambda: 7, dict)

    def gauges() -> tuple[float, float, float]:
        names = ("questions_running", "questions_waiting", "unfinished_turns")
        running, waiting, turns = (value(f"dualfocus_{name}") for name in names)
        return running, waiting, turns

    with await admission.admit("a", Stages()) as first, await admission.admit("b", Stages()):
        assert gauges() == (0, 2, 7)
        await first.acquire()
        assert gauges() == (1, 1, 7)
    assert gauges() == (0, 0, 7)


def families() -> list[Metric]:
    """All families of the server's own."""
    ours = [item for item in vars(metrics).values() if isinstance(item, MetricWrapperBase)]
    watch_places(lambda: (0, 0))
    watch_engine(lambda: 0, dict)
    return [*(family for metric in ours for family in metric.collect()), *metrics.LIVE.collect()]


def test_names_are_ours_and_end_in_what_they_count() -> None:
    ends = (
        "seconds",
        "ratio",
        "perplexity",
        "questions",
        "tokens",
        "runs",
        "running",
        "waiting",
        "turns",
        "failures",
        "calls",
        "looks",
        "searches",
        "hits",
        "misses",
    )
    assert len(families()) == 17
    for family in families():
        assert family.name.startswith("dualfocus_")
        assert family.name.endswith(ends)


def test_every_metric_and_alert_is_described() -> None:
    root = Path(__file__).parents[3]
    page = (root / "docs" / "operations.md").read_text()
    for family in families():
        assert f"`{family.name}{'_total' * (family.type == 'counter')}`" in page
    rules = yaml.safe_load((root / "deploy" / "prometheus" / "rules" / "dualfocus.yml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule):
        assert f"| `{rule['alert']}` |" in page
