"""Values that fit no field, those at a field's bounds, and how an answer to them is judged."""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from running_server import wait_until

ERROR_FIELDS = {"message", "type", "param", "code"}
SERVERS_FAULT = {"server_error", "service_unavailable_error", "timeout_error"}
# Names in `vllm_xargs` that no client may write, and none can guess.
RESERVED = ("kv_transfer_params", "ec_transfer_params", "kv_cache_report_mode", "dualfocus_box", "dualfocus-box-0")
HALF = "\ud800"
_AT_ONCE = 8
ODD = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 1e308, -1e308, float("nan"), float("inf"), 0.5, "", "x"),
    *(
        HALF,
        "\0",
        "\u202e",
        [],
        [1],
        [-1],
        [2**40],
        ["x"],
        [HALF],
        [[]],
        [None],
        [{}],
        {},
        {"a": 1},
        {"1": 1e9},
        {"-1": 1},
    ),
    *(
        {"99999999": 1},
        {"x": None},
        {HALF: 1},
        {"a": HALF},
        {"a": {"b": HALF}},
        {"json": {"$ref": "#"}},
        {"regex": "["},
    ),
    *({"type": "json_schema"}, {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#"}}}),
)


def bounds(schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[Any]:
    """Yield the values at and beyond every bound in a field's JSON schema, its choices, and some that are none."""
    if "$ref" in schema:
        yield from bounds(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    for inner in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from bounds(inner, schemas)
    for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        if name in schema:
            yield from (schema[name] - 1, schema[name], schema[name] + 1)
    for choice in schema.get("enum", ()):
        yield from (choice, f"{choice}x")
    if schema.get("type") == "array":
        yield from ([value] for value in bounds(schema.get("items", {}), schemas))
    for name, inner in schema.get("properties", {}).items():
        yield from (
            {name: value} for value in (*ODD, *bounds(inner, schemas)) if not isinstance(inner.get("$ref"), str)
        )


def failures_of(send: Callable[[Any], object], values: Iterable[Any]) -> list[str]:
    """Send values, some at once, so that they meet in the engine's batches; return what was wrong with the answers."""

    def told(value: Any) -> str | None:
        try:
            send(value)
        except AssertionError as error:
            return str(error)[:500]
        return None

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return [failure for failure in threads.map(told, values) if failure is not None]


def check_ready(web: httpx.Client) -> None:
    """Judge that the engine answers: on a busy machine it may take more than the second that a probe gives it."""

    def is_ready() -> bool:
        response = web.get("/ready")
        assert response.status_code == 200 or response.json()["error"]["code"] == "engine_busy", response.text
        return response.status_code == 200

    wait_until(is_ready)


def check(response: httpx.Response, what: object) -> None:
    """Judge an answer: not the server's failure, and every error in OpenAI's shape."""
    told = f"{response.status_code} for {ascii(what)[:2000]}: {response.text[:500]}"
    assert response.status_code < 500, told
    if response.status_code >= 400 and response.request.method != "HEAD":
        body = response.json()
        assert set(body) == {"error"}, told
        assert set(body["error"]) == ERROR_FIELDS, told
        assert isinstance(body["error"]["message"], str), told
        assert body["error"]["message"], told
        assert isinstance(body["error"]["type"], str), told
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        for line in response.text.splitlines():
            if line.startswith("data: {") and "error" in (event := json.loads(line.removeprefix("data: "))):
                assert set(event["error"]) == ERROR_FIELDS, told
                assert event["error"]["type"] not in SERVERS_FAULT, told
