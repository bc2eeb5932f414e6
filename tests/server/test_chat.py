"""`POST /v1/chat/completions` about an image, through the official client."""

import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI

About = Callable[[str, str], list[dict[str, Any]]]
ImagePart = Callable[[str], dict[str, Any]]
MODEL = "dualfocus-starter"


def ask(client: OpenAI, messages: Any, focus: dict[str, Any] | None = None, **options: Any) -> Any:
    extra = {"dualfocus": focus} if focus else None
    return client.chat.completions.create(model=MODEL, messages=messages, extra_body=extra, **options)


def test_an_answer_holds_everything_that_was_found(client: OpenAI, about: About) -> None:
    answer = ask(client, about("astronaut", "What is on the badge?"))
    focus = answer.dualfocus
    assert focus["mode"] == "dual"
    assert focus["selection"] == "lower_perplexity"
    assert focus["winner"] == min(("macro", "micro"), key=lambda name: focus[name]["perplexity"])
    assert answer.choices[0].message.content == focus[focus["winner"]]["text"]
    assert len(focus["box"]) == len(focus["crop"]) == 4
    assert set(focus["turns"]) == {"macro", "grounding", "micro"}
    assert 0 < focus["turns"]["micro"]["seconds"] < focus["seconds"]


def test_usage_counts_all_turns(client: OpenAI, about: About) -> None:
    answer = ask(client, about("coffee", "What is in the cup?"))
    turns, usage = answer.dualfocus["turns"], answer.usage
    assert usage.prompt_tokens == sum(turn["prompt_tokens"] for turn in turns.values())
    assert usage.completion_tokens == sum(turn["completion_tokens"] for turn in turns.values())
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens == sum(turn["cached_tokens"] for turn in turns.values())
    won = turns[answer.dualfocus["winner"]]["completion_tokens"]
    assert usage.completion_tokens_details.reasoning_tokens == usage.completion_tokens - won


def test_a_known_image_is_encoded_once_and_taken_from_the_cache(client: OpenAI, about: About) -> None:
    first = ask(client, about("rocket", "What is being launched?")).dualfocus["turns"]
    second = ask(client, about("rocket", "How many towers are there?")).dualfocus["turns"]
    assert sum(turn["encoder_runs"] for turn in first.values()) == 2
    assert second["macro"]["encoder_runs"] == second["grounding"]["encoder_runs"] == 0
    assert second["macro"]["cached_tokens"] >= 64
    assert second["grounding"]["cached_tokens"] >= 64


@pytest.mark.parametrize(
    ("mode", "turns"),
    [("dual", {"macro", "grounding", "micro"}), ("macro", {"macro"}), ("micro", {"grounding", "micro"})],
)
def test_modes(client: OpenAI, about: About, mode: str, turns: set[str]) -> None:
    focus = ask(client, about("chelsea", "What animal is it?"), {"mode": mode}).dualfocus
    assert focus["mode"] == mode
    assert set(focus["turns"]) == turns


def test_off_is_vllms_own_answer_and_macros(client: OpenAI, about: About) -> None:
    messages = about("chelsea", "What animal is it?")
    off = ask(client, messages, {"mode": "off"}, temperature=0, max_tokens=20)
    macro = ask(client, messages, {"mode": "macro"}, temperature=0, max_tokens=20)
    assert not hasattr(off, "dualfocus")
    assert off.usage.prompt_tokens == macro.usage.prompt_tokens
    assert off.choices[0].message.content == macro.choices[0].message.content


def test_a_given_box_is_looked_at_without_grounding(client: OpenAI, about: About) -> None:
    focus = ask(client, about("astronaut", "Who?"), {"box": [0.25, 0.0, 0.75, 0.5]}).dualfocus
    assert focus["box"] == [0.25, 0.0, 0.75, 0.5]
    assert focus["crop"] == [103, 0, 409, 281]
    assert "grounding" not in focus["turns"]


def test_a_question_of_its_own_is_grounded(client: OpenAI, about: About) -> None:
    messages = about("astronaut", "Answer in French: what is on the left?")
    plain = ask(client, messages).dualfocus["turns"]
    own = ask(client, messages, {"question": "flag"}).dualfocus["turns"]
    shorter = len("Answer in French: what is on the left?") - len("flag")
    assert plain["grounding"]["prompt_tokens"] - own["grounding"]["prompt_tokens"] == shorter


def test_the_image_may_stand_anywhere_in_the_message(client: OpenAI, image_part: ImagePart) -> None:
    parts = [{"type": "text", "text": "Look at this."}, image_part("coffee"), {"type": "text", "text": "What is it?"}]
    answers = [
        ask(client, [{"role": "user", "content": content}], temperature=0).choices[0].message.content
        for content in (parts, [parts[1], parts[0], parts[2]], [parts[0], parts[2], parts[1]])
    ]
    assert len(set(answers)) == 1


def test_system_prompt_and_earlier_turns_are_kept(client: OpenAI, about: About, image_part: ImagePart) -> None:
    question = about("coffee", "And now?")
    alone = ask(client, question).dualfocus["turns"]
    earlier = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [image_part("astronaut"), {"type": "text", "text": "Who?"}]},
        {"role": "assistant", "content": "Eileen."},
    ]
    added = len("Be brief. USER: \nWho? ASSISTANT: Eileen.") + 64 + 1
    longer = ask(client, [*earlier, *question]).dualfocus["turns"]
    for name in ("macro", "grounding", "micro"):
        assert longer[name]["prompt_tokens"] - alone[name]["prompt_tokens"] == added


def test_sampling_is_honoured_for_both_answers(client: OpenAI, about: About) -> None:
    messages = about("camera", "What is the man doing?")
    short = ask(client, messages, max_completion_tokens=5)
    assert short.choices[0].finish_reason == "length"
    assert short.dualfocus["macro"]["tokens"] == short.dualfocus["micro"]["tokens"] == 5
    assert ask(client, messages, max_tokens=3).dualfocus["macro"]["tokens"] == 3


def test_a_seed_repeats_and_temperature_varies(client: OpenAI, about: About) -> None:
    messages = about("camera", "What is the man doing?")
    drawn = [ask(client, messages, temperature=1.5, seed=seed).choices[0].message.content for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_top_p_near_zero_is_greedy(client: OpenAI, about: About) -> None:
    messages = about("camera", "What is the man doing?")
    greedy = ask(client, messages, temperature=0).choices[0].message.content
    assert ask(client, messages, temperature=1.5, top_p=1e-6).choices[0].message.content == greedy


def test_stop_cuts_the_answer(client: OpenAI, about: About) -> None:
    messages = about("camera", "What is the man doing?")
    whole = ask(client, messages, {"mode": "macro"}).choices[0].message.content
    letter = next(letter for letter in whole[3:] if letter.isascii() and letter.isprintable() and letter != " ")
    cut = ask(client, messages, {"mode": "macro"}, stop=[letter])
    assert cut.choices[0].message.content == whole[: whole.index(letter)]
    assert cut.choices[0].finish_reason == "stop"


def test_logprobs_are_the_chosen_answers_and_its_perplexity(client: OpenAI, about: About) -> None:
    import math

    answer = ask(client, about("camera", "What?"), logprobs=True, top_logprobs=3, temperature=1.3, seed=7)
    content = answer.choices[0].logprobs.content
    assert all(len(token.top_logprobs) == 3 for token in content)
    winner = answer.dualfocus[answer.dualfocus["winner"]]
    assert len(content) == winner["tokens"]
    mean = sum(token.logprob for token in content) / len(content)
    assert math.exp(-mean) == pytest.approx(winner["perplexity"])


@pytest.mark.parametrize(
    ("focus", "message"),
    [
        ({"mode": "both"}, "dualfocus.mode: Input should be 'dual', 'macro', 'micro' or 'off'"),
        ({"box": [0.5, 0.5, 0.2, 0.9]}, "dualfocus.box: a box is x1, y1, x2, y2 with 0 <= x1 < x2 <= 1"),
        ({"box": [1, 2]}, "dualfocus.box"),
        ({"zoom": True}, "dualfocus.zoom: Extra inputs are not permitted"),
        ({"question": ""}, "dualfocus.question"),
    ],
)
def test_bad_fields_are_named(client: OpenAI, about: About, focus: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequestError) as refusal:
        ask(client, about("coffee", "What?"), focus)
    assert message in refusal.value.message
    assert refusal.value.type == "invalid_request_error"


def test_a_long_question_is_refused_with_both_lengths(client: OpenAI, about: About) -> None:
    with pytest.raises(BadRequestError, match=r"\d{4} tokens long.*holds 2048") as refusal:
        ask(client, about("coffee", "why " * 600))
    assert refusal.value.code == "context_length_exceeded"


def test_an_image_without_a_question_is_refused(client: OpenAI, image_part: ImagePart) -> None:
    with pytest.raises(BadRequestError, match="no question in text"):
        ask(client, [{"role": "user", "content": [image_part("coffee")]}])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:image/png;base64,AAAA", "in no format that can be read"),
        ("data:image/png;base64,???", "not valid base64"),
        ("ftp://example.org/a.png", "must be a data: URL"),
        ("file:///etc/passwd", "must be a data: URL"),
        ("http://127.0.0.1/a.png", "not fetched from '127.0.0.1'"),
    ],
)
@pytest.mark.parametrize("mode", ["dual", "off"])
def test_bad_images_are_refused(client: OpenAI, url: str, message: str, mode: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    with pytest.raises(BadRequestError) as refusal:
        ask(client, [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}], {"mode": mode})
    if mode == "dual":
        assert message in refusal.value.message


def test_a_truncated_jpeg_is_refused(client: OpenAI, jpeg: Callable[[str], bytes]) -> None:
    encoded = base64.b64encode(jpeg("coffee")[:5000]).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{encoded}"}}
    with pytest.raises(BadRequestError, match="damaged or cut short"):
        ask(client, [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}])


def test_a_client_that_leaves_aborts_all_turns(http: httpx.Client, about: About) -> None:
    body = {"messages": about("coffee", "Tell a story."), "max_tokens": 1500, "ignore_eos": True}
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=0.7)
    assert unfinished(http) == 0 or not wait(1.0)
    assert unfinished(http) == 0


def wait(seconds: float) -> bool:
    import time

    time.sleep(seconds)
    return False


def unfinished(http: httpx.Client) -> float:
    lines = http.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith("dualfocus_unfinished_turns ")).split()[1])
