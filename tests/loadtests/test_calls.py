"""How questions are asked, against a stub of a server."""

import base64
import io
from collections.abc import Callable
from http.server import HTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from dualfocus_engine.families.profiles import Profile
from PIL import Image

from loadtests.asking.calls import Json, ask_chat, ask_focus, ask_in_three_calls
from loadtests.asking.loop import _Handler
from loadtests.asking.model import BOX_GRAMMAR, bench_profile
from loadtests.asking.questions import Asked, asked

SAMPLING = {"max_tokens": 16, "ignore_eos": True}
BOX = "[0.25, 0.50, 0.50, 0.75]"


class Stub:
    """Answers every call with a text, and keeps what it was asked."""

    def __init__(self, box: str = BOX) -> None:
        self.box = box
        self.bodies: dict[str, Json] = {}

    def post(self, name: str, body: Json) -> Json:
        """Answer one call."""
        self.bodies[name] = body
        text = self.box if name == "grounding" else "red"
        details = None if name == "macro" else {"cached_tokens": 64}
        usage = {"prompt_tokens": 100, "completion_tokens": 16, "prompt_tokens_details": details}
        return {"choices": [{"message": {"content": text}}], "usage": usage, "seconds": 0.5}


def together(one: Callable[[], Json], other: Callable[[], Json]) -> tuple[Json, Json]:
    """Run two calls, one after the other."""
    return one(), other()


@pytest.fixture
def profile() -> Profile:
    return bench_profile()


@pytest.fixture
def question() -> Asked:
    picture = Image.new("RGB", (400, 200), (0, 0, 255))
    picture.paste((255, 0, 0), (100, 100, 200, 150))  # what the box means
    return Asked(picture, "What colour is it?")


def shown(part: Any) -> Image.Image:
    """The picture in a message's part."""
    return Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].partition(",")[2])))


def test_the_three_calls_are_worded_as_the_server_words_its_turns(profile: Profile, question: Asked) -> None:
    stub = Stub()
    ask_in_three_calls(stub.post, together, profile, "m", question, SAMPLING)
    macro, grounding, micro = (stub.bodies[name]["messages"] for name in ("macro", "grounding", "micro"))
    assert [message["role"] for message in micro] == ["system", "user", "assistant", "user"]
    assert macro[0] == grounding[0] == {"role": "system", "content": profile.system}
    assert macro[1]["content"][1]["text"] == question.text
    assert grounding[1]["content"][1]["text"] == profile.grounding_text(question.text)
    assert micro[:2] == grounding
    assert micro[2]["content"] == BOX
    assert micro[3]["content"][1]["text"] == profile.micro_text(question.text)


def test_the_crop_is_the_one_that_the_profile_would_cut(profile: Profile, question: Asked) -> None:
    stub = Stub()
    ask_in_three_calls(stub.post, together, profile, "m", question, SAMPLING)
    crop = shown(stub.bodies["micro"]["messages"][3]["content"][0])
    # Squared around its centre (150, 125) with a side of 100, then 25 pixels more on every side.
    assert crop.size == (150, 150)
    assert crop.getpixel((30, 55)) == (255, 0, 0)
    assert crop.getpixel((10, 10)) == (0, 0, 255)


def test_both_sides_write_as_much(profile: Profile, question: Asked) -> None:
    stub = Stub()
    ask_in_three_calls(stub.post, together, profile, "m", question, SAMPLING)
    assert stub.bodies["grounding"]["max_tokens"] == profile.max_box_tokens == 25
    assert stub.bodies["grounding"]["structured_outputs"] == {"regex": BOX_GRAMMAR}
    for name in ("macro", "micro"):
        assert (stub.bodies[name]["max_tokens"], stub.bodies[name]["ignore_eos"]) == (16, True)


def test_the_three_calls_cost_what_they_cost_together(profile: Profile, question: Asked) -> None:
    cost = ask_in_three_calls(Stub().post, together, profile, "m", question, SAMPLING)
    assert (cost.computed_tokens, cost.cached_tokens, cost.completion_tokens) == (100 + 36 + 36, 128, 48)
    assert cost.stages == {"macro": 0.5, "grounding": 0.5, "micro": 0.5}


@pytest.mark.parametrize("box", ["no box", "[0.50, 0.50, 0.50, 0.75]"])
def test_without_a_box_there_is_no_third_call(profile: Profile, question: Asked, box: str) -> None:
    stub = Stub(box)
    cost = ask_in_three_calls(stub.post, together, profile, "m", question, SAMPLING)
    assert set(stub.bodies) == {"macro", "grounding"}
    assert cost.outcome == "no_box"


def test_one_request_names_its_mode_and_counts_its_turns(question: Asked) -> None:
    turn = {"computed_tokens": 30, "cached_tokens": 32, "completion_tokens": 4, "encoder_runs": 1, "engine_steps": 5}
    focus = {
        "turns": {"macro": turn, "grounding": turn},
        "stages": {"macro": 0.1},
        "macro": {"perplexity": 1.5},
        "selection": "skipped",
    }
    bodies = []

    def post(name: str, body: Json) -> Json:
        bodies.append((name, body))
        return {"dualfocus": focus, "choices": [{"message": {"content": "red"}}]}

    cost = ask_focus(post, "m", question, "adaptive", SAMPLING)
    assert bodies[0][0] == "adaptive"
    assert bodies[0][1]["dualfocus"] == {"mode": "adaptive"}
    assert (cost.computed_tokens, cost.cached_tokens, cost.encoder_runs) == (60, 64, 2)
    assert cost.engine_steps == {"macro": 5, "grounding": 5}
    assert (cost.perplexity, cost.outcome) == (1.5, "skipped")


def test_a_plain_call_and_mode_off_differ_in_nothing_else(question: Asked) -> None:
    plain, off = Stub(), Stub()
    ask_chat(plain.post, "m", question, SAMPLING)
    cost = ask_focus(off.post, "m", question, "off", SAMPLING)
    assert off.bodies["off"] == plain.bodies["chat"] | {"dualfocus": {"mode": "off"}}
    assert cost.completion_tokens == 16


def test_the_loops_answer_is_read_like_the_servers(question: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    class Answers:
        def answer(self, picture: Image.Image, text: str, sampling: Json) -> tuple[str, dict[str, float]]:
            return "red", dict.fromkeys(("macro", "grounding", "micro"), 0.5)

    monkeypatch.setattr(_Handler, "loop", Answers(), raising=False)
    with HTTPServer(("127.0.0.1", 0), _Handler) as server:
        Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1/chat/completions"
        cost = ask_focus(lambda _, body: httpx.post(url, json=body).json(), "m", question, "dual", SAMPLING)
    assert (cost.right, cost.outcome, cost.stages["micro"]) == (question.answer == "red", "only_answer", 0.5)


def test_every_number_has_a_picture_of_its_own() -> None:
    urls = {asked(number).url for number in range(20)}
    assert len(urls) == 20
    assert asked(3).url == asked(3).url
    assert asked(3).text == asked(3).text
