"""Modes by model name, several images, crops on request, structured output."""

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI
from PIL import Image, ImageChops

About = Callable[[str, str], list[dict[str, Any]]]
ImagePart = Callable[[str], dict[str, Any]]
MODEL = "dualfocus-starter"


def ask(client: OpenAI, messages: Any, model: str = MODEL, focus: dict[str, Any] | None = None, **options: Any) -> Any:
    extra = {"dualfocus": focus} if focus else None
    return client.chat.completions.create(model=model, messages=messages, extra_body=extra, **options)


@pytest.mark.parametrize("mode", ["dual", "macro", "micro", "off"])
def test_a_models_name_may_carry_the_mode(client: OpenAI, about: About, mode: str) -> None:
    answer = ask(client, about("coffee", "What?"), f"{MODEL}:{mode}", max_tokens=4)
    assert answer.model == f"{MODEL}:{mode}" if mode != "off" else MODEL
    assert (answer.dualfocus["mode"] if mode != "off" else "off") == mode


def test_the_field_goes_before_the_name(client: OpenAI, about: About) -> None:
    answer = ask(client, about("coffee", "What?"), f"{MODEL}:macro", {"mode": "micro"}, max_tokens=4)
    assert answer.dualfocus["mode"] == "micro"


def two_images(image_part: ImagePart) -> list[dict[str, Any]]:
    parts = [image_part("coffee"), image_part("astronaut"), {"type": "text", "text": "What differs?"}]
    return [{"role": "user", "content": parts}]


def crop_of(answer: Any) -> Image.Image:
    encoded = answer.dualfocus["crop_image"].removeprefix("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


@pytest.mark.parametrize(("index", "name"), [(None, "astronaut"), (0, "coffee"), (1, "astronaut"), (-2, "coffee")])
def test_the_last_image_is_zoomed_unless_another_is_named(
    client: OpenAI, image_part: ImagePart, jpeg: Callable[[str], bytes], index: int | None, name: str
) -> None:
    focus = {"box": [0.25, 0.25, 0.75, 0.75], "return_crop": True} | ({} if index is None else {"image": index})
    answer = ask(client, two_images(image_part), focus=focus, max_tokens=4)
    whole = Image.open(io.BytesIO(jpeg(name)))
    assert ImageChops.difference(crop_of(answer), whole.crop(answer.dualfocus["crop"])).getbbox() is None


def test_an_image_of_an_earlier_turn_is_zoomed(client: OpenAI, about: About) -> None:
    messages = [
        *about("astronaut", "Who?"),
        {"role": "assistant", "content": "Eileen."},
        {"role": "user", "content": "What is on her badge?"},
    ]
    answer = ask(client, messages, max_tokens=4)
    assert answer.dualfocus["crop"] is not None
    assert set(answer.dualfocus["turns"]) == {"macro", "grounding", "micro"}


def test_an_image_that_is_not_there_is_refused(client: OpenAI, about: About) -> None:
    with pytest.raises(BadRequestError, match="There is no image 2: the conversation has 1, from 0 on"):
        ask(client, about("coffee", "What?"), focus={"image": 2})


def test_no_crop_is_sent_unasked(client: OpenAI, about: About) -> None:
    assert ask(client, about("coffee", "What?"), max_tokens=4).dualfocus["crop_image"] is None


SCHEMA = {
    "type": "object",
    "properties": {"seen": {"type": "boolean"}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["seen", "count"],
    "additionalProperties": False,
}
FORMS = [
    {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}},
    {"type": "json_object"},
]


def test_both_answers_obey_a_schema_and_are_scored_without_it(client: OpenAI, about: About) -> None:
    answer = ask(client, about("coffee", "What is it?"), response_format=FORMS[0], max_tokens=80, temperature=0)
    for name in ("macro", "micro"):
        report = answer.dualfocus[name]
        assert set(json.loads(report["text"])) == {"seen", "count"}
        assert report["rescored"] is True
    # Under the grammar an answer like this is almost certain; the model itself, untrained, finds it absurd.
    assert min(answer.dualfocus[name]["perplexity"] for name in ("macro", "micro")) > 20


def test_the_scores_are_what_the_model_gives_the_same_text(http: httpx.Client, about: About) -> None:
    """Scored afresh, the answer's perplexity is that of the tokens as vLLM itself scores a prompt."""
    body = {
        "messages": about("coffee", "What is it?"),
        "response_format": FORMS[0],
        "max_tokens": 80,
        "temperature": 0,
        "dualfocus": {"mode": "macro"},
    }
    report = http.post("/v1/chat/completions", json=body).json()["dualfocus"]["macro"]
    again = http.post("/v1/chat/completions", json=body).json()["dualfocus"]["macro"]
    assert report["perplexity"] == pytest.approx(again["perplexity"], rel=1e-4)
    prompt = [*body["messages"], {"role": "assistant", "content": report["text"]}]
    scored = {
        "messages": prompt,
        "prompt_logprobs": 0,
        "max_tokens": 1,
        "dualfocus": {"mode": "off"},
        "add_generation_prompt": False,
    }
    rows = http.post("/v1/chat/completions", json=scored).json()["prompt_logprobs"][-report["tokens"] :]
    mean = sum(next(iter(row.values()))["logprob"] for row in rows) / len(rows)
    assert report["perplexity"] == pytest.approx(2.718281828459045**-mean, rel=1e-2)
