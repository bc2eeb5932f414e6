"""Thousands of requests made from the server's own OpenAPI document: none is answered by a 5xx, or outside of it."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from asking import CHAT, lend
from hostile_images import data_url, png
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from odd_values import RESERVED, check, check_ready
from running_server import PATIENCE, Server, settles, start_server
from schemathesis import Case, GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

SEED = 20261
ROUTES = ("/v1/models", "/health", "/ready", "/version", "/metrics")
# How many cases are sent of whole requests, of each field of them, and of each other route.
WHOLE, PER_FIELD, PER_ROUTE = 200, 12, 60
# How many whole requests of each kind are sent again between two readings of the server's memory.
PER_READING = 20
CONFORMANCE = [status_code_conformance, content_type_conformance, response_schema_conformance]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE")
IMAGE = {"type": "image_url", "image_url": {"url": data_url(png(4, 4))}}
ABOUT_AN_IMAGE = [{"role": "user", "content": [IMAGE, {"type": "text", "text": "What?"}]}]
QUESTIONS = [[{"role": "user", "content": "What?"}], ABOUT_AN_IMAGE]
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
TOKEN = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=12)
NAMES = st.one_of(
    TOKEN, st.sampled_from(["Accept", "Range", "X-Request-Id", "Authorization", "Origin", "If-None-Match"])
)
HEADERS = st.dictionaries(NAMES, st.text("abc 019,;=*/\"'()<>@", max_size=20).map(str.strip), max_size=3)
PATHS = st.text("abv1/.%~-_;:@", max_size=20).map(lambda tail: f"/{tail}")
BROKEN = (
    *(b"", b"{", b"\xff\xfe", b"null", b"[]", b"1", b'""', b"NaN", b"{}", b'{"messages": []}', b'{"messages": [[]]}'),
    *(
        b"[" * 100_000,
        b'{"messages":' + b'[{"a":' * 50_000,
        b'{"messages": [{"role": "user", "content": 1' + b"0" * 9_000,
    ),
    *(b'{"messages": [{}]}', b'{"messages": {"a": 1}}', b'{"messages": "a"}', b"--x\r\n\r\n", b"\0" * 100),
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose context is too small for long answers."""
    running = start_server(tmp_path_factory.mktemp("fuzzed") / "log", "--max-model-len", "512")
    yield from lend(running)


@pytest.fixture(scope="module")
def web(fuzzed: Server) -> Iterator[httpx.Client]:
    """A plain client of it."""
    with httpx.Client(base_url=fuzzed.url, timeout=PATIENCE) as http:
        yield http


@pytest.fixture(scope="module")
def document(web: httpx.Client) -> dict[str, Any]:
    """The server's own description of itself, with the names in `vllm_xargs` that none can guess."""
    described: dict[str, Any] = web.get("/openapi.json").json()
    xargs, _ = described["components"]["schemas"]["FocusRequest"]["properties"]["vllm_xargs"]["anyOf"]
    xargs["propertyNames"] = {"enum": [*RESERVED, "x"]}
    return described


def fuzz(examples: int) -> Callable[[Any], Any]:
    """Settings for a run that is the same each time; nothing is made smaller, the first failure is told as it came."""
    chosen = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    return lambda test: seed(SEED)(chosen(test))


def send(web: httpx.Client, case: Case) -> None:
    """Send one of schemathesis's cases as it would itself, and judge the answer."""
    arguments = case.as_transport_kwargs(base_url=str(web.base_url))
    request = {name: value for name, value in arguments.items() if value is not None}
    response = web.request(**request)
    check(response, request)
    case.validate_response(response, checks=CONFORMANCE)


def cases_of(document: dict[str, Any], path: str, mode: GenerationMode) -> st.SearchStrategy[Case]:
    """Schemathesis's cases for a route: all that fit the document, or all that don't."""
    method = next(iter(document["paths"][path])).upper()
    strategy: st.SearchStrategy[Case] = schemathesis.openapi.from_dict(document)[path][method].as_strategy(
        generation_mode=mode
    )
    return strategy


def only(document: dict[str, Any], field: str) -> dict[str, Any]:
    """The document with a request of one field beside a question: the whole is too large to reach every corner of."""
    narrowed = copy.deepcopy(document)
    request = narrowed["components"]["schemas"]["FocusRequest"]
    fields = {"messages": {"enum": QUESTIONS}, "max_tokens": {"const": 2}} | {field: request["properties"][field]}
    request |= {"properties": fields, "required": sorted(fields), "additionalProperties": False}
    narrowed["paths"] = {CHAT: narrowed["paths"][CHAT]}
    return narrowed


def send_whole(web: httpx.Client, document: dict[str, Any], mode: GenerationMode, examples: int) -> None:
    """Send whole requests, the same ones each time, and judge the answers."""

    @fuzz(examples)
    @given(case=cases_of(document, CHAT, mode))
    def run(case: Case) -> None:
        send(web, case)

    run()


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_whole_requests(web: httpx.Client, document: dict[str, Any], mode: GenerationMode) -> None:
    send_whole(web, document, mode, WHOLE)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_every_field_of_a_request(web: httpx.Client, document: dict[str, Any], mode: GenerationMode) -> None:
    failures = {}
    for field in document["components"]["schemas"]["FocusRequest"]["properties"]:
        if field == "messages":  # the whole requests are made of them
            continue

        @fuzz(PER_FIELD)
        @given(case=cases_of(only(document, field), CHAT, mode))
        def run(case: Case) -> None:
            send(web, case)

        try:
            run()
        except (AssertionError, FailureGroup) as error:
            failures[field] = str(error)[:600]
    assert not failures, "\n\n".join(f"{field}: {told}" for field, told in failures.items())


@pytest.mark.parametrize("path", ROUTES)
def test_other_routes(web: httpx.Client, document: dict[str, Any], path: str) -> None:
    operation = schemathesis.openapi.from_dict(document)[path]["GET"]

    @fuzz(PER_ROUTE)
    @given(
        query=st.dictionaries(TEXT, TEXT, max_size=3),
        headers=HEADERS,
        cookies=st.dictionaries(TOKEN, TOKEN, max_size=2),
    )
    def run(query: dict[str, str], headers: dict[str, str], cookies: dict[str, str]) -> None:
        send(web, operation.Case(query=query, headers=headers, cookies=cookies))

    run()


@fuzz(200)
@given(
    method=st.sampled_from(METHODS),
    path=st.one_of(st.sampled_from([CHAT, *ROUTES]), PATHS),
    body=st.binary(max_size=64),
)
def _any_method(web: httpx.Client, method: str, path: str, body: bytes) -> None:
    check(web.request(method, path, content=body), (method, path, body))


def test_any_method_on_any_path(web: httpx.Client) -> None:
    _any_method(web)


def test_a_broken_request_is_refused(web: httpx.Client) -> None:
    """Bodies that no schema makes: not JSON, not UTF-8, nested too deep, numbers out of range."""
    for body in BROKEN:
        for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded", "a/b;c=", ""):
            response = web.post(CHAT, content=body, headers={"Content-Type": kind})
            check(response, body[:100])
            assert response.status_code == 400, (body[:100], response.text[:500])


def test_the_server_still_answers(web: httpx.Client) -> None:
    body = {"messages": ABOUT_AN_IMAGE, "max_tokens": 2}
    assert web.post(CHAT, json=body).status_code == 200
    check_ready(web)


def test_memory_comes_back(fuzzed: Server, web: httpx.Client, document: dict[str, Any]) -> None:
    """However often they come, requests that are refused leave nothing behind, nor do those that are answered."""

    def ask_all() -> int:
        for mode in MODES:
            send_whole(web, document, mode, PER_READING)
        for body in BROKEN:
            assert web.post(CHAT, content=body).status_code == 400
        return len(MODES) * PER_READING + len(BROKEN)

    settles(fuzzed, ask_all)
