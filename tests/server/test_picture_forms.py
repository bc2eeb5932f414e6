"""Pictures in vLLM's other forms: processed as the client says."""

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from asking import CHAT, check_log
from hostile_images import data_url, saved
from PIL import Image
from running_server import PATIENCE, Server, start_server

KEYS = ("one-tenant", "another-tenant")
_SHADES = itertools.count(1)


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the model that ships, with keys, that trusts its clients."""
    flags = ("--dtype", "float32", "--trust-request-mm-kwargs", "--api-key", *KEYS)
    running = start_server(tmp_path_factory.mktemp("forms") / "log", *flags, model=())
    yield running
    running.process.terminate()
    assert running.process.wait(PATIENCE) == 0
    check_log(running)


@pytest.fixture(scope="module")
def web(trusting: Server) -> Iterator[httpx.Client]:
    """A plain client of it, with the first key."""
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    with httpx.Client(base_url=trusting.url, timeout=PATIENCE, headers=headers) as http:
        yield http


def fresh() -> bytes:
    """An image that nobody has asked about."""
    image = Image.new("RGB", (300, 200), "white")
    image.paste((next(_SHADES), 30, 40), (50, 50, 120, 120))
    return saved(image, "PNG")


def image(data: bytes) -> dict[str, Any]:
    """An image's part."""
    return {"type": "image_url", "image_url": {"url": data_url(data)}}


def about(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A question about what some parts show; its second look needs no box of the model's."""
    words = {"type": "text", "text": "What colour is the square?"}
    focus = {"box": [0.1, 0.1, 0.6, 0.6], "image": 0} | fields.pop("dualfocus", {})
    message = {"role": "user", "content": [*parts, words]}
    return {"messages": [message], "max_tokens": 8, "temperature": 0, "dualfocus": focus} | fields


def ask(web: httpx.Client, *parts: dict[str, Any], key: str = KEYS[0], **fields: Any) -> dict[str, Any]:
    """Ask it."""
    response = web.post(CHAT, json=about(*parts, **fields), headers={"Authorization": f"Bearer {key}"})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def runs(answer: dict[str, Any]) -> int:
    """The encoder runs of all turns of an answer."""
    return sum(turn["encoder_runs"] for turn in answer["dualfocus"]["turns"].values())


def test_what_the_processor_is_told_holds_for_both_looks_and_keeps_caches_apart(web: httpx.Client) -> None:
    data = fresh()
    told = ({}, {"do_rescale": False}, {"do_normalize": False}, {}, {"do_rescale": False}, {"do_normalize": False})
    answers = [ask(web, image(data), mm_processor_kwargs=kwargs) for kwargs in told]
    assert [runs(answer) for answer in answers] == [2, 2, 2, 0, 0, 0]
    for turn in ("macro", "micro"):
        perplexities = [answer["dualfocus"][turn]["perplexity"] for answer in answers[:3]]
        assert len(set(perplexities)) == 3
        off = ask(web, image(data), mm_processor_kwargs=told[1], dualfocus={"mode": "off"})
        assert answers[1]["dualfocus"]["macro"]["text"] == off["choices"][0]["message"]["content"]


@pytest.mark.parametrize("kwargs", [{"do_rescale": "{"}, {"size": "big"}, {"image_mean": "x"}, {"resample": "?"}])
def test_what_the_processor_can_not_be_told_is_a_400_and_the_engine_lives(web: httpx.Client, kwargs: Any) -> None:
    one_look = {"mode": "off"}
    asked = [about(image(fresh()), mm_processor_kwargs=kwargs, dualfocus=focus) for focus in ({}, one_look)]
    ours, vllms = [web.post(CHAT, json=body) for body in asked]
    assert (ours.status_code, vllms.status_code) == (400, 400)
    assert ours.json()["error"]["message"].startswith("mm_processor_kwargs can't be used: ")
    assert ours.json()["error"]["param"] == "mm_processor_kwargs"
    assert runs(ask(web, image(fresh()))) == 2
