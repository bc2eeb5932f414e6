"""`POST /v1/chat/completions` about an image, through the official client."""

import base64
import math
from collections.abc import Callable
from typing import Any

import pytest
from asking import About, ImagePart, ask, ask_and_leave, log_until
from openai import BadRequestError, OpenAI
from running_server import Server


def test_an_answer_holds_everything_that_was_found(client: OpenAI, about: About) -> None:
    # Both answers are cut at as many tokens: a whole one beats a cut one, whatever their perplexity.
    answer: Any = client.chat.completions.create(
        model="", messages=about("astronaut", "What is on the badge?"), max_tokens=8, extra_body={"ignore_eos": True}
    )
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
    # No other test asks about this one.
    first = ask(client, about("page", "What is written?")).dualfocus["turns"]
    second = ask(client, about("page", "How many lines are there?")).dualfocus["turns"]
    assert sum(turn["encoder_runs"] for turn in first.values()) == 2
    assert second["macro"]["encoder_runs"] == second["grounding"]["encoder_runs"] == 0
    assert second["macro"]["cached_tokens"] >= 64
    assert second["grounding"]["cached_tokens"] >= 64


@pytest.mark.parametrize(
    ("mode", "turns"),
    [
        ("dual", {"macro", "grounding", "micro"}),
        ("regions", {"macro", "grounding", "micro"}),
        ("adaptive", {"macro", "grounding", "micro"}),  # an untrained model is never sure
        ("macro", {"macro"}),
        ("micro", {"grounding", "micro"}),
    ],
)
def test_modes(client: OpenAI, about: About, mode: str, turns: set[str]) -> None:
    focus = ask(client, about("chelsea", "What animal is it?"), {"mode": mode}).dualfocus
    assert focus["mode"] == mode
    assert set(focus["turns"]) == turns


def test_answers_are_compared_under_one_prompt_on_request(client: OpenAI, about: About) -> None:
    # Cut both: an answer that is whole would win over one that is not.
    focus = ask(client, about("chelsea", "What animal is it?"), {"scoring": "shared"}, max_tokens=5).dualfocus
    assert focus["winner"] == min(("macro", "micro"), key=lambda name: focus[name]["shared_perplexity"])
    own = ask(client, about("chelsea", "What animal is it?"), max_tokens=5).dualfocus
    assert own["macro"]["shared_perplexity"] is None
    assert own["macro"]["perplexity"] == pytest.approx(focus["macro"]["perplexity"], rel=1e-2)


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
    which = len("This is about picture 2 of 2. ")
    for name, more in {"macro": added, "grounding": added + which, "micro": added + which}.items():
        assert longer[name]["prompt_tokens"] - alone[name]["prompt_tokens"] == more


def test_sampling_is_honoured_for_both_answers(client: OpenAI, about: About) -> None:
    messages = about("camera", "What is the man doing?")
    short = ask(client, messages, max_completion_tokens=5)
    assert short.choices[0].finish_reason == "length"
    assert short.dualfocus["macro"]["tokens"] == short.dualfocus["micro"]["tokens"] == 5
    assert ask(client, messages, max_tokens=3).dualfocus["macro"]["tokens"] == 3


def both(client: OpenAI, messages: Any, **options: Any) -> tuple[str, str]:
    """The texts of the macro and the micro answer; the box is given, so that both look at the same."""
    focus = ask(client, messages, {"box": [0.25, 0.25, 0.75, 0.75]}, max_tokens=30, **options).dualfocus
    return focus["macro"]["text"], focus["micro"]["text"]


@pytest.mark.parametrize("answer", [0, 1], ids=["macro", "micro"])
def test_a_seed_repeats_and_temperature_varies(client: OpenAI, about: About, answer: int) -> None:
    messages = about("camera", "What is the man doing?")
    drawn = [both(client, messages, temperature=1.5, seed=seed)[answer] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_top_p_near_zero_is_greedy(client: OpenAI, about: About) -> None:
    messages = about("camera", "What is the man doing?")
    assert both(client, messages, temperature=1.5, top_p=1e-6) == both(client, messages, temperature=0)


@pytest.mark.parametrize("answer", [0, 1], ids=["macro", "micro"])
def test_stop_cuts_the_answer(client: OpenAI, about: About, answer: int) -> None:
    messages = about("camera", "What is the man doing?")
    whole = both(client, messages)[answer]
    letter = next(letter for letter in whole[3:] if letter.isascii() and letter.isprintable() and letter != " ")
    assert both(client, messages, stop=[letter])[answer] == whole[: whole.index(letter)]


def test_logprobs_are_the_chosen_answers_and_its_perplexity(client: OpenAI, about: About) -> None:
    answer = ask(client, about("camera", "What?"), logprobs=True, top_logprobs=3, temperature=1.3, seed=7)
    content = answer.choices[0].logprobs.content
    assert all(len(token.top_logprobs) == 3 for token in content)
    winner = answer.dualfocus[answer.dualfocus["winner"]]
    assert len(content) == winner["tokens"]
    mean = sum(token.logprob for token in content) / len(content)
    assert math.exp(-mean) == pytest.approx(winner["perplexity"])


def test_a_search_tells_of_each_look(client: OpenAI, about: About) -> None:
    wanted = {"mode": "search", "sure_below": 0, "enough": True, "return_crop": True}
    focus = ask(client, about("rocket", "What is being launched?"), wanted, max_tokens=8).dualfocus
    first, second, *deeper = focus["looks"]
    assert [first["turn"], second["turn"]] == ["macro", "micro"]
    assert [look["turn"] for look in deeper] == [f"micro-{number}" for number, _ in enumerate(deeper, 2)]
    assert [look["answer"]["text"] for look in focus["looks"] if look["chosen"]] == [focus[focus["winner"]]["text"]]
    assert (first["crop"], second["crop_image"][:22]) == (None, "data:image/png;base64,")
    assert focus["ending"] in {"max_looks", "all_shown", "look_failed"}
    assert {"enough-macro", "enough-micro"} <= set(focus["turns"])


@pytest.mark.parametrize(
    ("focus", "message"),
    [
        (
            {"mode": "both"},
            "dualfocus.mode: Input should be 'dual', 'regions', 'search', 'adaptive', 'macro', 'micro' or 'off'",
        ),
        ({"box": [0.5, 0.5, 0.2, 0.9]}, "dualfocus.box: a box is x1, y1, x2, y2 with 0 <= x1 < x2 <= 1"),
        ({"box": [1, 2]}, "dualfocus.box"),
        ({"zoom": True}, "dualfocus.zoom: Extra inputs are not permitted"),
        ({"question": ""}, "dualfocus.question"),
        ({"max_looks": 9}, "at most 4 looks"),
        ({"mode": "macro", "candidates": 2}, "candidates are drawn in the modes dual, search, adaptive"),
    ],
)
def test_bad_fields_are_named(client: OpenAI, about: About, focus: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequestError) as refusal:
        ask(client, about("coffee", "What?"), focus)
    assert message in refusal.value.message
    assert refusal.value.type == "invalid_request_error"


@pytest.mark.parametrize("mode", ["dual", "off"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_long_question_is_refused_with_both_lengths(client: OpenAI, about: About, mode: str, stream: bool) -> None:
    with pytest.raises(BadRequestError, match=r"24\d\d tokens long.*holds 2048") as refusal:
        ask(client, about("coffee", "why " * 600), {"mode": mode}, stream=stream)
    assert refusal.value.code == "context_length_exceeded"


def test_a_picture_without_words_is_answered(client: OpenAI, image_part: ImagePart) -> None:
    """By macro alone where nothing is asked anywhere; else in the last words that there are."""
    alone = [{"role": "user", "content": [image_part("coffee")]}]
    focus = ask(client, alone, max_tokens=4).dualfocus
    assert (focus["winner"], focus["selection"], set(focus["turns"])) == ("macro", "nothing_asked", {"macro"})
    instructed = ask(client, [{"role": "system", "content": "Read the sign."}, *alone], max_tokens=4).dualfocus
    assert set(instructed["turns"]) == {"macro", "grounding", "micro"}
    assert set(ask(client, alone, {"question": "the cup"}, max_tokens=4).dualfocus["turns"]) == set(instructed["turns"])


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


async def test_a_client_that_leaves_aborts_all_turns_and_is_no_failure(server: Server, about: About) -> None:
    await ask_and_leave(server, {"messages": about("coffee", "Tell a story."), "max_tokens": 1500, "ignore_eos": True})
    assert "Unexpected error" not in log_until(server, " 499 in ")


def test_a_question_too_long_for_the_second_look_is_answered_by_the_first(client: OpenAI, about: About) -> None:
    focus = ask(client, about("coffee", "why " * 240), max_tokens=4).dualfocus
    assert (focus["winner"], focus["selection"], focus["micro"]) == ("macro", "context_full", None)
    assert focus["crop"] is not None


def test_a_question_that_fits_the_first_look_alone_is_answered_by_it(client: OpenAI, about: About) -> None:
    """Though the picture is new: vLLM takes it for sent with the grounding turn, which is refused."""
    focus = ask(client, about("coins", "w" * 1920), max_tokens=4).dualfocus
    assert (focus["selection"], set(focus["turns"])) == ("context_full", {"macro"})


@pytest.mark.parametrize("mode", ["dual", "off"])
def test_text_of_any_length_is_refused_with_both_lengths(client: OpenAI, about: About, mode: str) -> None:
    with pytest.raises(BadRequestError, match=r"is 20000\d\d characters long.*holds \d+") as refusal:
        ask(client, about("coffee", "w" * 2_000_000), {"mode": mode})
    assert refusal.value.code == "context_length_exceeded"


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_come_from_one_box(client: OpenAI, about: About, stream: bool) -> None:
    answer = ask(client, about("coffee", "What is it?"), n=3, seed=5, max_tokens=4, temperature=1.0, stream=stream)
    pieces = list(answer) if stream else [answer]
    (focus,) = [piece.dualfocus for piece in pieces if hasattr(piece, "dualfocus")]
    choices = [choice for piece in pieces for choice in piece.choices]
    texts = ["".join(text_of(choice) for choice in choices if choice.index == place) for place in range(3)]
    chosen = [focus[winner][place]["text"] for place, winner in enumerate(focus["winner"])]
    assert texts == chosen
    assert len(focus["selection"]) == len(focus["turns"]["macro"]) == len(focus["turns"]["micro"]) == 3
    assert isinstance(focus["turns"]["grounding"], dict)
    assert sum(turn["encoder_runs"] for name in ("macro", "micro") for turn in focus["turns"][name]) <= 2
    assert len({said["text"] for said in focus["macro"]}) > 1, "each is drawn by a seed of its own"


def text_of(choice: Any) -> str:
    return (choice.delta if hasattr(choice, "delta") else choice.message).content or ""


def test_several_answers_are_drawn_as_vllm_draws_them(client: OpenAI, about: About) -> None:
    asked = {"n": 3, "seed": 5, "max_tokens": 4}
    by_vllm = ask(client, about("coffee", "What is it?"), {"mode": "off"}, **asked)
    macro = ask(client, about("coffee", "What is it?"), {"mode": "macro"}, **asked)
    assert [choice.message.content for choice in macro.choices] == [
        choice.message.content for choice in by_vllm.choices
    ]
