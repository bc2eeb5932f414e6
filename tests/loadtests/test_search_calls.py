"""A client's search by plain calls, against a stub of a server: what it asks, and when it ends."""

import math
from collections.abc import Callable

import pytest
from dualfocus_engine.families.profiles import Profile
from PIL import Image

from loadtests.asking.calls import Json
from loadtests.asking.model import bench_profile
from loadtests.asking.questions import Asked
from loadtests.asking.search_calls import search_in_calls

BOX = "[0.25, 0.25, 0.50, 0.50]"
SURE_BELOW = 1.5
ASKED = Asked(Image.new("RGB", (4000, 4000)), "What is written?", "7")


class Stub:
    """Writes boxes in turn, and answers with texts of given perplexities in turn: macro's first."""

    def __init__(self, boxes: list[str], answers: list[tuple[str, float]]) -> None:
        self._boxes, self._answers = iter(boxes), iter(answers)
        self.calls: list[tuple[str, list[Json]]] = []

    def post(self, name: str, body: Json) -> Json:
        self.calls.append((name, body["messages"]))
        usage = {"prompt_tokens": 100, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 60}}
        if name == "grounding":
            return {"choices": [{"message": {"content": next(self._boxes)}}], "usage": usage}
        assert body["logprobs"]
        text, perplexity = next(self._answers)
        scores = [{"logprob": -math.log(perplexity)}] * 2
        return {"choices": [{"message": {"content": text}, "logprobs": {"content": scores}}], "usage": usage}


def together(one: Callable[[], Json], other: Callable[[], Json]) -> tuple[Json, Json]:
    return one(), other()


@pytest.fixture
def profile() -> Profile:
    update = {"image_size": 128, "pad_color": (0, 0, 0), "sure_below_perplexity": SURE_BELOW, "max_looks": 3}
    return bench_profile().model_copy(update=update)


def search(profile: Profile, stub: Stub) -> Json:
    return vars(search_in_calls(stub.post, together, profile, "m", ASKED, {"max_tokens": 16}))


def test_it_looks_on_until_an_answer_is_sure(profile: Profile) -> None:
    stub = Stub([BOX, BOX], [("1", 3.0), ("2", 2.0), ("7", 1.1)])
    cost = search(profile, stub)
    assert [name for name, _ in stub.calls] == ["macro", "grounding", "micro", "grounding", "micro"]
    assert (cost["looks"], cost["encoder_runs"], cost["right"]) == (3, 3, True)
    assert cost["computed_tokens"] == 5 * 40


def test_the_conversation_goes_on_without_answers(profile: Profile) -> None:
    stub = Stub([BOX, BOX], [("1", 3.0), ("2", 2.0), ("7", 1.1)])
    search(profile, stub)
    (_, first), (_, micro), (_, deeper), (_, last) = stub.calls[1:]
    assert micro[: len(first)] == first
    assert deeper[:-1] == micro[:-1]
    assert last[: len(deeper)] == deeper
    replies = [message["content"] for message in last if message["role"] == "assistant"]
    assert replies == [BOX, BOX]


@pytest.mark.parametrize(
    ("boxes", "answers", "looks"),
    [
        (["nothing"], [("7", 3.0)], 1),
        ([BOX], [("7", 1.1), ("2", 2.0)], 2),
        (["[0.25, 0.25, 0.26, 0.26]"], [("7", 3.0), ("2", 3.0)], 2),
        ([BOX, "[0.00, 0.00, 1.00, 1.00]"], [("7", 2.0), ("2", 3.0)], 2),
        ([BOX, BOX], [("7", 2.0), ("2", 3.0), ("2", 3.0)], 3),
    ],
    ids=["no box", "macro is sure", "every pixel is shown", "nothing is enlarged", "no more looks"],
)
def test_it_ends(profile: Profile, boxes: list[str], answers: list[tuple[str, float]], looks: int) -> None:
    cost = search(profile, Stub(boxes, answers))
    assert (cost["looks"], cost["right"]) == (looks, True), "the answer of least perplexity counts"
