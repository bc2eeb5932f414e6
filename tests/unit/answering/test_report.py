"""The chat completion that a result becomes, and what it counts."""

import base64
import io
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from dualfocus_engine import Box, FocusResult, Mode, Region, SecondLook, Selection
from dualfocus_engine.method.results import Ending, LookedAt, Score, Shared, Verdict
from dualfocus_engine.pictures.picture_cache import PictureCache
from dualfocus_server.answering.report import add_crops, completion, crop_url, focus_report, usage
from PIL import Image

from ..builders import plain, turn
from ..readers import choice_of

MACRO = turn(
    "red", 1.0, prompt_token_ids=(0,) * 600, cached_tokens=0, token_ids=(1, 2), logprobs=(-1.0, -1.0), encoder_runs=1
)
GROUNDING = turn(
    "[0.1, 0.2, 0.3, 0.4]",
    0.2,
    prompt_token_ids=(0,) * 620,
    cached_tokens=576,
    token_ids=(3,) * 25,
    logprobs=(-0.2,) * 25,
    encoder_runs=0,
)
MICRO = turn(
    "blue",
    0.5,
    prompt_token_ids=(0,) * 1240,
    picture_tokens=(576, 576),
    image_places=1156,
    cached_tokens=640,
    cache_writes=576,
    token_ids=(4, 5, 6),
    logprobs=(-0.5,) * 3,
    encoder_runs=1,
    finish_reason="length",
    stop_reason="END",
)
LOOK = SecondLook(Box(0.1, 0.2, 0.3, 0.4), Region(10, 20, 30, 40), GROUNDING, MICRO)
BOTH = FocusResult("micro", Selection.LOWER_PERPLEXITY, MACRO, LOOK, 1.25)
BOXLESS = FocusResult("macro", Selection.NO_BOX, MACRO, SecondLook(grounding=GROUNDING, failed=Selection.NO_BOX), 1.0)
MACRO_ONLY = FocusResult("macro", Selection.ONLY_ANSWER, MACRO, SecondLook(), 1.0)


def _written(result: FocusResult, mode: Mode = Mode.DUAL) -> dict[str, Any]:
    """The answer as a client reads it."""
    body: dict[str, Any] = json.loads(
        json.dumps(completion([result], mode, "m", "chatcmpl-id7", [choice_of(result.answer)]).model_dump())
    )
    return body


def test_answer_is_an_openai_chat_completion() -> None:
    body = _written(BOTH)
    assert (body["id"], body["object"], body["model"]) == ("chatcmpl-id7", "chat.completion", "m")
    (choice,) = body["choices"]
    assert (choice["index"], choice["message"]["role"], choice["message"]["content"]) == (0, "assistant", "blue")
    assert (choice["finish_reason"], choice["stop_reason"], choice["logprobs"]) == ("length", "END", None)
    assert body["created"] > 1_700_000_000


@pytest.mark.parametrize(
    ("result", "prompt", "generated", "cached", "reasoning"),
    [
        # Winner micro: macro's 2 and the box's 25 tokens were thought, not said.
        (BOTH, 600 + 620 + 1240, 2 + 25 + 3, 576 + 640, 27),
        (FocusResult("macro", Selection.LOWER_PERPLEXITY, MACRO, LOOK, 1.0), 2460, 30, 1216, 28),
        (BOXLESS, 1220, 27, 576, 25),
        (MACRO_ONLY, 600, 2, 0, 0),
        (FocusResult("micro", Selection.ONLY_ANSWER, None, SecondLook(micro=MICRO), 1.0), 1240, 3, 640, 0),
    ],
)
def test_usage_counts_every_turn(result: FocusResult, prompt: int, generated: int, cached: int, reasoning: int) -> None:
    counted = usage([result])
    assert (counted.prompt_tokens, counted.completion_tokens) == (prompt, generated)
    assert counted.total_tokens == prompt + generated
    assert counted.prompt_tokens_details is not None
    assert counted.prompt_tokens_details.cached_tokens == cached
    micro = result.look.micro or turn()
    assert counted.prompt_tokens_details.multimodal_tokens == {"image": micro.image_places}
    assert counted.prompt_tokens_details.created_cache_tokens == micro.cache_writes
    assert counted.completion_tokens_details is not None
    assert counted.completion_tokens_details.reasoning_tokens == reasoning


def test_report_holds_all_that_was_found() -> None:
    report = _written(BOTH)["dualfocus"]
    assert (report["mode"], report["winner"], report["selection"]) == ("dual", "micro", "lower_perplexity")
    assert (report["box"], report["crop"], report["seconds"]) == ([0.1, 0.2, 0.3, 0.4], [10, 20, 30, 40], 1.25)
    assert report["macro"] == {
        "text": "red",
        "reasoning": None,
        "perplexity": pytest.approx(math.e),
        "shared_perplexity": None,
        "tokens": 2,
        "rescored": False,
        "finish_reason": "stop",
        "enough": None,
    }
    assert report["micro"]["text"] == "blue"
    assert report["micro"]["perplexity"] == pytest.approx(math.sqrt(math.e))
    assert report["grounding"] == {"text": "[0.1, 0.2, 0.3, 0.4]", "finish_reason": "stop"}
    assert list(report["turns"]) == ["macro", "grounding", "micro"]
    assert report["turns"]["micro"] == {
        "prompt_tokens": 1240,
        "image_tokens": 1152,
        "cached_tokens": 640,
        "computed_tokens": 600,
        "completion_tokens": 3,
        "encoder_runs": 1,
        "engine_steps": 3,
        "seconds": 0.5,
    }


def test_shared_scoring_is_told_beside_each_answers_own() -> None:
    shared = Shared(Score((-2.0, -1.0), 0), Score((-1.0, -1.0), 0))
    report = _written(replace(BOTH, shared=shared))["dualfocus"]
    assert report["macro"]["shared_perplexity"] == pytest.approx(math.e**1.5)
    assert report["micro"]["shared_perplexity"] == pytest.approx(math.e)


def test_what_the_model_says_of_each_view_is_reported_with_its_answer() -> None:
    said = Verdict(0.75, turn("Yes", token_ids=(7,))), Verdict(None, turn("Well", token_ids=(8,)))
    result = replace(BOTH, enough=said[0], look=replace(LOOK, enough=said[1]))
    written = _written(result)
    report = written["dualfocus"]
    assert (report["macro"]["enough"], report["micro"]["enough"]) == (0.75, None)
    assert list(report["turns"]) == ["macro", "enough-macro", "grounding", "micro", "enough-micro"]
    assert written["usage"]["completion_tokens"] == 2 + 25 + 3 + 2


def test_what_did_not_run_is_null_and_not_left_out() -> None:
    report = _written(BOXLESS)["dualfocus"]
    assert (report["box"], report["crop"], report["micro"]) == (None, None, None)
    assert report["grounding"]["text"] == GROUNDING.text, "what was written instead of a box"
    assert list(report["turns"]) == ["macro", "grounding"]
    alone = _written(MACRO_ONLY, Mode.MACRO)["dualfocus"]
    assert (alone["mode"], alone["selection"], list(alone["turns"])) == ("macro", "only_answer", ["macro"])
    assert alone["grounding"] is None


def test_each_place_is_reported_with_what_it_was_shown_in_and_on_request_its_crop() -> None:
    places = LookedAt(Box(0.1, 0.1, 0.2, 0.2), Region(0, 0, 30, 20), 64), LookedAt(LOOK.box, Region(50, 40, 90, 80), 70)
    look = replace(LOOK, crop_box=Region(0, 0, 90, 80), regions=places)
    report = focus_report([replace(BOTH, look=look)], Mode.REGIONS)
    assert [(at.box, at.crop, at.tokens, at.crop_image) for at in report.regions] == [
        ((0.1, 0.1, 0.2, 0.2), (0, 0, 30, 20), 64, None),
        (LOOK.box.as_tuple(), (50, 40, 90, 80), 70, None),
    ]
    add_crops(report, PictureCache(None, None), plain(size=(100, 80)))
    assert [_size(image) for image in (report.crop_image, *(at.crop_image for at in report.regions))] == [
        (90, 80),
        (30, 20),
        (40, 40),
    ]
    alone = focus_report([replace(BOTH, look=replace(look, regions=places[:1]))], Mode.DUAL)
    add_crops(alone, PictureCache(None, None), plain(size=(100, 80)))
    assert (alone.crop_image is None, alone.regions[0].crop_image) == (False, None), "not twice"


def test_each_look_of_a_search_is_reported_and_which_was_chosen() -> None:
    deeper = SecondLook(Box(0.1, 0.1, 0.2, 0.2), Region(5, 6, 25, 36), GROUNDING, replace(MICRO, text="green"))
    lost = SecondLook(grounding=GROUNDING, failed=Selection.NO_BOX)
    result = replace(BOTH, look=deeper, looks=(LOOK, deeper, lost), ending=Ending.LOOK_FAILED)
    written = _written(result, Mode.SEARCH)
    report = written["dualfocus"]
    assert [(each["turn"], each["chosen"], each["failed"]) for each in report["looks"]] == [
        ("macro", False, None),
        ("micro", False, None),
        ("micro-2", True, None),
        ("micro-3", False, "no_box"),
    ]
    assert [each["answer"] and each["answer"]["text"] for each in report["looks"]] == ["red", "blue", "green", None]
    assert report["looks"][0]["box"] is None
    assert (report["crop"], report["looks"][2]["crop"]) == ([5, 6, 25, 36],) * 2
    assert (report["micro"]["text"], report["ending"]) == ("green", "look_failed")
    assert list(report["turns"]) == ["macro", "grounding", "micro", "grounding-2", "micro-2", "grounding-3"]
    assert written["usage"]["completion_tokens"] == 2 + 25 + 3 + 25 + 3 + 25
    told = focus_report([result], Mode.SEARCH)
    add_crops(told, PictureCache(None, None), plain(size=(100, 80)))
    assert [each.crop_image and _size(each.crop_image) for each in told.looks] == [None, (20, 20), (20, 30), None]


def _size(url: str | None) -> tuple[int, int]:
    assert url is not None
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size


def test_empty_box_is_reported_without_a_crop() -> None:
    look = SecondLook(Box(0.5, 0.5, 0.5, 0.5), None, GROUNDING, failed=Selection.EMPTY_BOX)
    report = _written(FocusResult("macro", Selection.EMPTY_BOX, MACRO, look, 1.0))["dualfocus"]
    assert (report["box"], report["crop"]) == ([0.5, 0.5, 0.5, 0.5], None)


@pytest.mark.parametrize("logprobs", [(), (math.nan,), (-1e5,), (-math.inf,)])
def test_a_perplexity_that_is_infinite_is_null(logprobs: tuple[float, ...]) -> None:
    result = FocusResult("macro", Selection.ONLY_ANSWER, turn("x", logprobs=logprobs), SecondLook(), 1.0)
    report = focus_report([result], Mode.MACRO)
    assert report.macro is not None
    assert report.macro.perplexity is None
    json.dumps(report.model_dump(), allow_nan=False)


def test_uncounted_encoder_runs_are_null() -> None:
    result = FocusResult("macro", Selection.ONLY_ANSWER, turn(encoder_runs=None), SecondLook(), 1.0)
    assert focus_report([result], Mode.MACRO).turns["macro"].encoder_runs is None


@pytest.mark.parametrize(
    ("crop_box", "size"),
    [(Region(10, 20, 30, 60), (20, 40)), (Region(0, 0, 4096, 50), (2048, 25))],
    ids=["as it is", "scaled down"],
)
def test_a_crop_is_a_png_of_at_most_2048_pixels_a_side(crop_box: Region, size: tuple[int, int]) -> None:
    header, _, body = crop_url(PictureCache(None, None), plain(size=(5000, 60)), crop_box).partition(",")
    assert header == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(body))).size == size
