"""Every field of a request and every name in `vllm_xargs`, with values that don't fit: the engine answers after each.

On both ways through the server (two looks, vLLM's own chat) and in completions, with boxes drafted and not.
"""

import asyncio
import base64
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
import torch
import vllm
from asking import CHAT, lend
from hostile_images import data_url, png
from odd_values import ODD, RESERVED, bounds, check, check_ready, failures_of
from running_server import PATIENCE, Server, start_server

IMAGE = {"type": "image_url", "image_url": {"url": data_url(png(4, 4))}}
QUESTION = {
    "messages": [{"role": "user", "content": [IMAGE, {"type": "text", "text": "What?"}]}],
    "max_tokens": 2,
}
TEXT = {"prompt": "What?", "max_tokens": 2}
TEXTS = "/v1/completions"
# Whatever vLLM reads from `extra_args` anywhere, and what a client can't guess but an attacker reads in our sources.
_READ = re.compile(r"""extra(?:_args)?(?:\.get\(|\[)\s*["'](\w+)["']""")


@pytest.fixture(
    scope="module", params=[(), pytest.param(("--draft-boxes",), marks=pytest.mark.slow)], ids=["plain", "drafting"]
)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose context is too small for long answers."""
    running = start_server(tmp_path_factory.mktemp("fields") / "log", "--max-model-len", "512", *request.param)
    yield from lend(running)
    assert "the engine goes on without it" not in running.log.read_text()


@pytest.fixture(scope="module")
def web(served: Server) -> Iterator[httpx.Client]:
    """A plain client of it."""
    with httpx.Client(base_url=served.url, timeout=PATIENCE) as http:
        yield http


@pytest.fixture(scope="module")
def document(web: httpx.Client) -> dict[str, Any]:
    """The server's own description of itself."""
    described: dict[str, Any] = web.get("/openapi.json").json()
    return described


def names_read() -> set[str]:
    """Return the names that vLLM's sources read from a request's `extra_args`."""
    sources = Path(vllm.__file__).parent.rglob("*.py")
    return {name for source in sources for name in _READ.findall(source.read_text(errors="replace"))}


def send(web: httpx.Client, mode: str, fields: dict[str, Any]) -> httpx.Response:
    """Send a question (or a text: mode `TEXTS`) with these fields, judge the answer, see that the engine answers."""
    body = TEXT | fields if mode == TEXTS else QUESTION | {"dualfocus": {"mode": mode}} | fields
    route, kind = (TEXTS if mode == TEXTS else CHAT), {"Content-Type": "application/json"}
    response = web.post(route, content=json.dumps(body).encode(), headers=kind)
    check(response, fields)
    check_ready(web)
    return response


@pytest.mark.parametrize("mode", ["dual", "off", TEXTS])
def test_values_that_do_not_fit(web: httpx.Client, document: dict[str, Any], mode: str) -> None:
    schemas = document["components"]["schemas"]
    fields = schemas["Completion" if mode == TEXTS else "FocusRequest"]["properties"]
    assert len(fields) > 50
    odd = ({field: value} for field, schema in fields.items() for value in (*ODD, *bounds(schema, schemas)))
    assert not failures_of(partial(send, web, mode), odd)


@pytest.mark.parametrize("mode", ["dual", "off", TEXTS])
def test_names_in_vllm_xargs(web: httpx.Client, mode: str) -> None:
    names = {*RESERVED, *names_read(), "session_id", "box_key", "box", "x"}
    assert names >= {"ngram_size", "kv_transfer_params"}, "the sources are read otherwise now"
    values = (*ODD, [1, "x", 0.5], [2**63], ["x"] * 1000)
    odd = ({"vllm_xargs": {name: value}} for name in sorted(names) for value in values)
    assert not failures_of(partial(send, web, mode), odd)


@pytest.mark.parametrize("mode", ["dual", "off", TEXTS])
@pytest.mark.parametrize("name", RESERVED)
def test_reserved_names_are_refused_by_name(web: httpx.Client, name: str, mode: str) -> None:
    for value in (1.5, "x", 0, [1, 2], None, {"a": 1}):
        response = send(web, mode, {"vllm_xargs": {name: value}})
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, "vllm_xargs")
        assert name in error["message"]


# Prompts that vLLM reads one way or another, and that end nothing.
PROMPTS: list[Any] = [
    *(
        [],
        [[]],
        [[], [1]],
        [[[1]]],
        ["a", 1],
        [1, "a"],
        [1, [2]],
        [True],
        [1.5],
        [0],
        [0] * 600,
        "a" * 10_000,
        "",
        [""],
    ),
    *([2**31 - 1], [2**31], [10**9], [[1], [2**40]], ["a", ""], "\0", ["<image>"], "<image>" * 50, {"prompt": "a"}),
    *([["a"]], [None], ["a"] * 64, [[5]] * 64),
]
EMBEDS: list[Any] = ["", "AAAA", "no base64", ["AAAA"] * 3, [], [""], 3, [1], "A" * 100_000]


def test_prompts_of_every_shape(web: httpx.Client) -> None:
    fields = ({}, {"echo": True, "logprobs": 2}, {"echo": True, "max_tokens": 0, "prompt_logprobs": 1})
    odd = (
        {"prompt": prompt, "stream": stream, **each} for prompt, each, stream in product(PROMPTS, fields, (False, True))
    )
    assert not failures_of(partial(send, web, TEXTS), odd)


def test_prompts_as_embeddings(web: httpx.Client) -> None:
    """Refused without vLLM's --enable-prompt-embeds."""
    for embeds in EMBEDS:
        for prompt in (None, "a"):
            send(web, TEXTS, {"prompt": prompt, "prompt_embeds": embeds})
    error = send(web, TEXTS, {"prompt_embeds": "AAAA"}).json()["error"]
    assert error["param"] == "prompt_embeds"


def test_an_answer_that_must_be_longer_than_the_context_ends_nothing(web: httpx.Client) -> None:
    """vLLM's engine checks that again as it reads a request; the thread that reads would end over it."""
    for mode, stream in product(("dual", "macro", "micro", "search"), (False, True)):
        error = send(web, mode, {"max_tokens": 100_000, "min_tokens": 600, "stream": stream}).json()["error"]
        assert "min_tokens" in error["message"], (mode, error)


def test_pictures_as_embeddings(web: httpx.Client) -> None:
    """Refused without vLLM's --enable-mm-embeds, however well they are made."""
    file = io.BytesIO()
    torch.save(torch.zeros(64, 128), file)
    part = {"type": "image_embeds", "image_embeds": base64.b64encode(file.getvalue()).decode()}
    for mode, stream in product(("dual", "off"), (False, True)):
        asked = {"messages": [{"role": "user", "content": [part]}], "stream": stream}
        assert "--enable-mm-embeds" in send(web, mode, asked).json()["error"]["message"]


def test_tokens_that_stand_for_a_picture_are_refused_by_their_field(web: httpx.Client) -> None:
    tokens = web.post("/tokenize", json={"messages": QUESTION["messages"]}).json()["tokens"]
    ((image, _),) = Counter(tokens).most_common(1)
    for prompt in ([image], [[5], [5, image, image]], [image] * 400):
        for stream in (False, True):
            response = send(web, TEXTS, {"prompt": prompt, "stream": stream})
            assert response.status_code == 400
            assert response.json()["error"]["param"] == "prompt"
            assert str(image) in response.json()["error"]["message"]


@pytest.mark.parametrize("value", ["x", "-1", "99", "9" * 30, "9" * 5000, "1.5", "", "0"])
@pytest.mark.parametrize("name", ["X-data-parallel-rank", "X-Vllm-Priority", "X-Session-ID", "X-Request-Id"])
@pytest.mark.parametrize("route", [CHAT, TEXTS])
def test_headers_that_vllm_reads(web: httpx.Client, route: str, name: str, value: str) -> None:
    for body in ({"messages": [{"role": "user", "content": "hi"}]}, QUESTION) if route == CHAT else (TEXT,):
        for stream in (False, True):
            check(
                web.post(route, json={**body, "max_tokens": 2, "stream": stream}, headers={name: value}), (name, value)
            )
            check_ready(web)


# Values that fit, any of which may meet any other in a batch.
FITTING: dict[str, list[Any]] = {
    "temperature": [0, 0.7, 2],
    "top_p": [0.1, 1],
    "top_k": [1, 50, -1],
    "seed": [1, -1],
    "presence_penalty": [-2, 2],
    "frequency_penalty": [-2, 2],
    "repetition_penalty": [0.5, 1.3],
    "min_tokens": [0, 2],
    "stop": ["a", ["b", " "]],
    "stop_token_ids": [[5], []],
    "bad_words": [["a"], ["b c"]],
    "allowed_token_ids": [[5, 6, 7]],
    "structured_outputs": [{"regex": "a+"}, {"choice": ["yes", "no"]}],
    "response_format": [{"type": "json_object"}],
    "ignore_eos": [True],
    "logprobs": [True],
    "top_logprobs": [0, 3],
    "stream": [True],
    "skip_special_tokens": [False],
    "include_stop_str_in_output": [True],
    "thinking_token_budget": [1],
    "repetition_detection": [{"max_pattern_size": 2, "min_count": 2}],
    "stream_interval": [3],
    "n": [2],
    "prompt_logprobs": [1],
    "cache_salt": ["a"],
    "priority": [0],
    "vllm_xargs": [{"x": 1}],
}


def combined(random: Random) -> dict[str, Any]:
    """Return a question by either way, or a text, with up to six fields."""
    chosen = random.sample(sorted(FITTING), random.randint(1, 6))
    fields = {name: random.choice(FITTING[name]) for name in chosen}
    if random.random() < 0.3:
        numbers = {"logprobs": 2} if "logprobs" in fields else {}
        return TEXT | {"prompt": random.choice(["a", ["a", "b c"], [5, 6], [[5], [6, 7]]])} | fields | numbers
    return QUESTION | {"max_tokens": 4, "dualfocus": {"mode": random.choice(["dual", "off", "macro"])}} | fields


def route_of(body: dict[str, Any]) -> str:
    return CHAT if "messages" in body else TEXTS


async def test_values_that_fit_in_one_batch(served: Server, web: httpx.Client) -> None:
    random, answered = Random(20261128), 0
    async with httpx.AsyncClient(base_url=served.url, timeout=PATIENCE) as http:
        for _ in range(40):
            bodies = [combined(random) for _ in range(8)]
            for body, response in zip(
                bodies, await asyncio.gather(*(http.post(route_of(body), json=body) for body in bodies)), strict=True
            ):
                check(response, body)
                answered += response.status_code == 200
            await asyncio.to_thread(check_ready, web)
    assert answered > 100, "too few were answered to meet each other"


@pytest.mark.parametrize("value", [1.5, "x", [], [[1]], {"do_remote_prefill": True}, {"do_remote_decode": True}])
@pytest.mark.parametrize("name", ["kv_transfer_params", "ec_transfer_params"])
def test_what_connectors_are_told(web: httpx.Client, name: str, value: Any) -> None:
    for fields in ({name: value}, {"vllm_xargs": {name: value}}):
        send(web, "dual", fields)
        send(web, TEXTS, fields)
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, **fields}
        check(web.post(CHAT, json=body), fields)
        check_ready(web)
