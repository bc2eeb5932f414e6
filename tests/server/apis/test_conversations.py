"""Modes by model name, several images, crops on request, structured output."""

import base64
import io
import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from asking import CHAT, MODEL, About, ImagePart, ask, events
from openai import BadRequestError, OpenAI
from PIL import Image, ImageChops


@pytest.mark.parametrize("mode", ["dual", "regions", "search", "adaptive", "macro", "micro", "off"])
def test_a_models_name_may_carry_the_mode(client: OpenAI, about: About, mode: str) -> None:
    answer = ask(client, about("coffee", "What?"), model=f"{MODEL}:{mode}", max_tokens=4)
    # vLLM's own answers are signed with the served name.
    assert answer.model == (f"{MODEL}:{mode}" if mode != "off" else MODEL)
    assert (answer.dualfocus["mode"] if mode != "off" else "off") == mode
    assert hasattr(answer, "dualfocus") is (mode != "off")


def test_the_field_goes_before_the_name(client: OpenAI, about: About) -> None:
    answer = ask(client, about("coffee", "What?"), {"mode": "micro"}, f"{MODEL}:macro", max_tokens=4)
    assert answer.dualfocus["mode"] == "micro"


def two_images(image_part: ImagePart) -> list[dict[str, Any]]:
    parts = [image_part("coffee"), image_part("astronaut"), {"type": "text", "text": "What differs?"}]
    return [{"role": "user", "content": parts}]


def crop_of(answer: Any) -> Image.Image:
    encoded = answer.dualfocus["crop_image"].removeprefix("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


@pytest.mark.parametrize(("index", "name"), [(0, "coffee"), (1, "astronaut"), (-1, "astronaut"), (-2, "coffee")])
def test_of_several_images_the_one_that_is_named_is_zoomed(
    client: OpenAI, image_part: ImagePart, jpeg: Callable[[str], bytes], index: int, name: str
) -> None:
    focus = {"box": [0.25, 0.25, 0.75, 0.75], "return_crop": True, "image": index}
    answer = ask(client, two_images(image_part), focus=focus, max_tokens=4)
    whole = Image.open(io.BytesIO(jpeg(name)))
    assert ImageChops.difference(crop_of(answer), whole.crop(answer.dualfocus["crop"])).getbbox() is None


def test_of_several_images_none_is_zoomed_where_none_is_named(client: OpenAI, image_part: ImagePart) -> None:
    focus = ask(client, two_images(image_part), max_tokens=4).dualfocus
    assert (focus["winner"], focus["selection"], set(focus["turns"])) == ("macro", "several_pictures", {"macro"})


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


Q1 = "Provide the coordinates of the region this question is asking about: "
Q2 = "Combine these two images and answer the question: "
SCHEMA = {
    "type": "object",
    "properties": {"seen": {"type": "boolean"}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["seen", "count"],
    "additionalProperties": False,
}
SCHEMA_FORM = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}


def test_both_answers_obey_a_schema_and_are_scored_without_it(client: OpenAI, about: About) -> None:
    answer = ask(client, about("coffee", "What is it?"), response_format=SCHEMA_FORM, max_tokens=80, temperature=0)
    for name in ("macro", "micro"):
        report = answer.dualfocus[name]
        assert set(json.loads(report["text"])) == {"seen", "count"}
        assert report["rescored"] is True
    # Under the grammar an answer like this is almost certain; the model itself, untrained, finds it absurd.
    assert min(answer.dualfocus[name]["perplexity"] for name in ("macro", "micro")) > 20


def test_a_json_object_of_any_kind(client: OpenAI, about: About) -> None:
    ending = {"96": 100}  # a bracket: an untrained model would not come to one
    form = {"type": "json_object"}
    answer = ask(client, about("coffee", "What is it?"), response_format=form, logit_bias=ending, max_tokens=40)
    for name in ("macro", "micro"):
        assert isinstance(json.loads(answer.dualfocus[name]["text"]), dict)
        assert answer.dualfocus[name]["rescored"] is True


def test_a_stream_obeys_a_schema(http: httpx.Client, about: About) -> None:
    body = {"messages": about("coffee", "What is it?"), "response_format": SCHEMA_FORM, "max_tokens": 80}
    parts = [json.loads(line.removeprefix("data: ")) for line in events(http, **body) if line.startswith("data: {")]
    text = "".join(part["choices"][0]["delta"].get("content") or "" for part in parts)
    assert set(json.loads(text)) == {"seen", "count"}


def test_an_answer_that_fills_the_context_is_not_scored_anew(client: OpenAI, about: About) -> None:
    """There is no room for the token that vLLM always adds."""
    focus = {"mode": "macro"}
    grammar = {"dualfocus": focus, "structured_outputs": {"regex": "a{5000}"}}
    answer = client.chat.completions.create(
        model=MODEL, messages=about("coffee", "why " * 450), extra_body=grammar, max_tokens=5000
    )
    report = answer.dualfocus["macro"]  # type: ignore[attr-defined]
    assert (report["finish_reason"], report["rescored"]) == ("length", False)
    assert report["tokens"] + answer.dualfocus["turns"]["macro"]["prompt_tokens"] == 2048  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["macro", "micro"])
def test_the_scores_are_what_vllm_itself_gives_the_same_text(http: httpx.Client, about: About, mode: str) -> None:
    """The conversation that a turn continued, with its answer, is given to vLLM to be scored as a prompt."""
    asked = about("coffee", "What is it?")
    body = {"messages": asked, "response_format": SCHEMA_FORM, "max_tokens": 80, "temperature": 0}
    wish = {"mode": mode, "box": [0.25, 0.25, 0.75, 0.75], "return_crop": True}
    found = http.post(CHAT, json=body | {"dualfocus": wish}).json()["dualfocus"]
    scored = {
        "messages": [*context_of(found, asked), {"role": "assistant", "content": found[mode]["text"]}],
        "prompt_logprobs": 0,
        "max_tokens": 1,
        "dualfocus": {"mode": "off"},
        "add_generation_prompt": False,
    }
    rows = http.post(CHAT, json=scored).json()["prompt_logprobs"][-found[mode]["tokens"] :]
    mean = sum(next(iter(row.values()))["logprob"] for row in rows) / len(rows)
    # vLLM's image processor pads and resizes a little otherwise; under the grammar the loss would be next to nothing.
    assert math.log(found[mode]["perplexity"]) == pytest.approx(-mean, abs=0.05)


def context_of(found: dict[str, Any], asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the turn saw: the question, or the grounding turn, its box, the crop and Q2."""
    if found["mode"] == "macro":
        return asked
    image, text = asked[0]["content"]
    crop = {"type": "image_url", "image_url": {"url": found["crop_image"]}}
    return [
        {"role": "user", "content": [image, {"type": "text", "text": f"{Q1}{text['text']}"}]},
        {"role": "assistant", "content": "[0.25, 0.25, 0.75, 0.75]"},
        {"role": "user", "content": [crop, {"type": "text", "text": f"{Q2}{text['text']}"}]},
    ]
