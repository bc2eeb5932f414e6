"""Which requests get two looks, and the question that is read out of them."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dualfocus_engine import (
    BadPicture,
    BadQuestion,
    Box,
    DualFocus,
    DualFocusError,
    Message,
    Mode,
    Text,
    load_profile,
)
from dualfocus_engine.families.views import View
from dualfocus_engine.method.stages import Stages
from dualfocus_engine.pictures.picture_cache import PictureCache
from dualfocus_server.answering.intake import question_of, take_mode
from dualfocus_server.answering.protocol import FocusRequest
from dualfocus_server.answering.reasons import reason_for_vllm
from dualfocus_server.images.image_fetcher import ImageFetcher
from dualfocus_server.images.request_images import RequestImages
from PIL import Image
from pydantic import ValidationError

from ..builders import data_url, encoded

RED = data_url(encoded(Image.new("RGB", (40, 30), (255, 0, 0))))
BLUE = data_url(encoded(Image.new("RGB", (20, 50), (0, 0, 255))))


def image(url: str = RED) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def text(words: str = "What colour?") -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts or (image(), text()))}


def request(*messages: dict[str, Any], **fields: Any) -> FocusRequest:
    """A request as it comes over the wire."""
    written = json.dumps({"messages": messages or (user(),)} | fields)
    read: FocusRequest = FocusRequest.model_validate_json(written)
    return read


def focus(defaults: dict[str, Any] | None = None, **profile: Any) -> DualFocus:
    """The profile and the model's own sampling defaults: all that intake asks of the engine."""
    own = load_profile("llava-dualfocus").model_copy(update=profile)
    pictures = PictureCache(own.pad_color, own.image_size)
    engine = SimpleNamespace(
        default_sampling=defaults or {},
        pictures=pictures,
        default_max_tokens=128,
        default_temperature=own.temperature,
        placeholder_tokens=frozenset({9}),
        views=own.views,
        as_words=list,
        in_words=dict,
    )
    return cast("DualFocus", SimpleNamespace(engine=engine, profile=own))


def images() -> RequestImages:
    """What opens images where none is fetched."""
    return RequestImages(ImageFetcher())


async def _question(*messages: dict[str, Any], **fields: Any) -> Any:
    return await question_of(request(*messages, **fields), focus(), images(), Stages())


@pytest.mark.parametrize(
    ("parts", "asked", "sizes"),
    [
        ([image(), text()], "What colour?", [(40, 30)]),
        ([text(), image()], "What colour?", [(40, 30)]),
        ([image(), "What colour?"], "What colour?", [(40, 30)]),
        ([image(RED), image(BLUE), text()], "What colour?", [(40, 30), (20, 50)]),
        ([text("Look:"), image(BLUE), text("What?"), image(RED)], "Look:\nWhat?", [(20, 50), (40, 30)]),
        ([{"type": "input_image", "image_url": BLUE}, {"type": "input_text", "text": "What?"}], "What?", [(20, 50)]),
        ([{"type": "image_url", "image_url": BLUE}, text()], "What colour?", [(20, 50)]),
        ([{"image_url": {"url": BLUE}}, text()], "What colour?", [(20, 50)]),
        ([{"type": "image_url", "image_url": {"url": BLUE, "detail": "high"}}, text()], "What colour?", [(20, 50)]),
    ],
)
async def test_text_and_pictures_are_read_in_their_order(
    parts: list[Any], asked: str, sizes: list[tuple[int, int]]
) -> None:
    question = await _question(user(*parts))
    assert question.asked == asked
    assert [picture.size for picture in question.messages[-1].pictures] == sizes
    assert question.picture.size == sizes[-1]
    kinds = [isinstance(part, Text) for part in question.messages[-1].in_order]
    assert kinds == [isinstance(part, str) or "text" in part for part in parts]


async def test_whole_conversation_is_kept() -> None:
    question = await _question(
        {"role": "system", "content": "Be terse."},
        user(image(BLUE), text("And this?")),
        {"role": "assistant", "content": [text("A"), text("bluebird.")]},
        user(),
    )
    assert [(message.role, message.text) for message in question.messages] == [
        ("system", "Be terse."),
        ("user", "And this?"),
        ("assistant", "A\nbluebird."),
        ("user", "What colour?"),
    ]
    assert [len(message.pictures) for message in question.messages] == [0, 1, 0, 1]
    assert question.picture.size == (40, 30)


async def test_assistants_turn_without_content_is_empty() -> None:
    question = await _question(user(text("Hello")), {"role": "assistant", "content": None}, user())
    assert question.messages[1] == Message("assistant", "")


async def test_a_developers_message_keeps_its_role() -> None:
    question = await _question({"role": "developer", "content": "Be terse."}, user())
    assert (question.messages[0].role, question.messages[0].text) == ("developer", "Be terse.")


@pytest.mark.parametrize(("mode", "is_scaled"), [("macro", True), ("dual", False), ("adaptive", False)])
async def test_large_jpeg_is_decoded_smaller_where_no_second_look_can_need_it(mode: str, is_scaled: bool) -> None:
    large = data_url(encoded(Image.new("RGB", (2000, 1500)), "JPEG"))
    question = await _question(user(image(large), text()), dualfocus={"mode": mode})
    assert question.picture.original.is_scaled is is_scaled


async def test_options_of_the_dualfocus_field_are_read() -> None:
    options = {"mode": "micro", "question": "the bird", "box": [0.1, 0.2, 0.3, 0.4]}
    question = await _question(user(), dualfocus=options)
    assert (question.mode, question.grounding_question, question.box) == (
        Mode.MICRO,
        "the bird",
        Box(0.1, 0.2, 0.3, 0.4),
    )
    plain = await _question(user())
    assert (plain.mode, plain.grounding_question, plain.box) == (Mode.DUAL, None, None)


async def test_same_image_in_two_requests_has_one_key() -> None:
    first, second = await _question(user()), await _question(user(text("Else?"), image()))
    assert first.picture.key == second.picture.key


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        pytest.param([image("data:;base64,####"), text()], BadPicture, id="bad base64"),
        pytest.param([image(data_url(b"no image")), text()], BadPicture, id="no image"),
        pytest.param([image("http://example.com/a.png"), text()], BadPicture, id="host not allowed"),
        pytest.param([image("file:///etc/passwd"), text()], BadPicture, id="file"),
        pytest.param([image(""), text()], BadPicture, id="empty URL"),
    ],
)
async def test_bad_part_is_said_in_our_own_words(parts: list[Any], error: type[DualFocusError]) -> None:
    with pytest.raises(error) as raised:
        await _question(user(*parts))
    assert str(raised.value)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "image_url"}, "no image_url with a url in it"),
        ({"type": "image_url", "image_url": None}, "no image_url with a url in it"),
        ({"type": "image_url", "uuid": "without its image_url"}, "no image_url with a url in it"),
        ({"type": "text"}, "a text part has no text"),
        ({"type": "text", "text": None}, "a text part has no text"),
        ({"type": "text", "text": 5}, "a text part has no text"),
        ({"type": "image_pil", "image_pil": "x"}, "'image_pil' can't be read; there are text, image_url"),
        ({"type": "image_embeds", "image_embeds": None, "uuid": "a"}, "image_embeds must be a tensor in base64"),
        ({"type": "image_embeds", "image_embeds": {"other": "x"}}, "image_embeds must be a tensor in base64"),
        ({"type": "video_url", "video_url": {"url": "DATA:video/JPEG;base64,AA"}}, "can't be single frames"),
    ],
)
def test_a_part_that_cant_be_read_is_refused_with_the_request(part: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        request(user(image(), part))


@pytest.mark.parametrize("value", [None, [], {}, [{"a": 1}], {"a": [1]}])
@pytest.mark.parametrize("name", ["citations", "annotations"])
def test_what_a_text_part_has_besides_is_left_out_where_no_template_reads_it(name: str, value: Any) -> None:
    (message,) = request(user({"type": "text", "text": "Hi", name: value, "speaker": "a", "turn": 0})).messages
    assert cast("Any", message)["content"] == [{"type": "text", "text": "Hi", "speaker": "a", "turn": 0}]


@pytest.mark.parametrize("name", ["source_url", "page_url", "file"])
def test_where_a_text_is_from_stands_beside_it(name: str) -> None:
    part = {"type": "text", "text": "Hi", name: "https://example.com/a"}
    assert cast("Any", request(user(part)).messages[0])["content"] == [part]


@pytest.mark.parametrize("name", ["image_url", "video_url", "uuid", "image_embeds", "prompt_embeds", "input_audio"])
def test_media_beside_a_text_is_refused_unless_it_is_null(name: str) -> None:
    (message,) = request(user({"type": "text", "text": "Hi", name: None})).messages
    assert cast("Any", message)["content"] == [{"type": "text", "text": "Hi"}]
    with pytest.raises(ValueError, match=f"a text part can't carry '{name}'"):
        request(user({"type": "text", "text": "Hi", name: "http://169.254.169.254/"}))


def test_tools_that_were_found_are_vllms_to_name_to_the_model() -> None:
    found = {"type": "tool_reference", "tool_name": "other", "name": "get_weather"}
    asked = request(user(), {"role": "tool", "tool_call_id": "1", "content": [found]})
    assert cast("Any", asked.messages)[-1]["content"] == [{"type": "tool_reference", "name": "get_weather"}]
    assert reason_for_vllm(asked) == "tool_reference"


async def test_clients_sampling_goes_before_the_profiles_and_that_before_the_models() -> None:
    async def sampling(defaults: dict[str, Any], **fields: Any) -> Any:
        return (await question_of(request(**fields), focus(defaults, temperature=0.3), images(), Stages())).sampling

    assert (await sampling({})).temperature == 0.3
    assert (await sampling({"temperature": 0.9, "top_p": 0.5})).temperature == 0.3
    assert (await sampling({"top_p": 0.5})).top_p == 0.5
    asked = await sampling({"top_p": 0.5}, temperature=0.7, top_p=0.8, seed=4, stop=["."])
    assert (asked.temperature, asked.top_p, asked.seed, asked.stop) == (0.7, 0.8, 4, ["."])
    assert (await sampling({}, temperature=0)).temperature == 0


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 128),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 9}, 9),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
    ],
)
async def test_length_is_the_clients_or_the_profiles(fields: dict[str, Any], tokens: int) -> None:
    assert (await _question(user(), **fields)).sampling.max_tokens == tokens


async def test_whole_conversations_pictures_can_be_zoomed() -> None:
    messages = (user(image(BLUE), text("Whose?")), {"role": "assistant", "content": "."}, user(text("Sure?")))
    assert (await _question(*messages)).picture.size == (20, 50)
    both = (user(image(BLUE), text("Whose?")), {"role": "assistant", "content": "."}, user())
    assert (await _question(*both, dualfocus={"image": 0})).picture.size == (20, 50)
    with pytest.raises(BadQuestion, match="no image 2"):
        await _question(*both, dualfocus={"image": 2})


@pytest.mark.parametrize(
    ("model", "options", "served", "mode"),
    [
        ("m:micro", {}, "m", "micro"),
        ("m:off", {}, "m", "off"),
        ("m", {}, "m", "dual"),
        ("org/m:7b:macro", {}, "org/m:7b", "macro"),
        # The field goes before the name.
        ("m:micro", {"mode": "macro"}, "m", "macro"),
        ("m:micro", {"box": [0, 0, 1, 1]}, "m", "micro"),
        # Not ours to read: no mode, or no model that is served.
        ("m:latest", {}, "m:latest", "dual"),
        ("other:micro", {}, "other:micro", "dual"),
        (None, {}, None, "dual"),
    ],
)
def test_mode_can_be_said_with_the_models_name(
    model: str | None, options: dict[str, Any], served: str | None, mode: str
) -> None:
    asked = request(model=model, dualfocus=options)
    take_mode(asked, {"m", "org/m:7b"}.__contains__, "dual")
    assert (asked.model, asked.dualfocus.mode) == (served, mode)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ("m", "adaptive")),
        ({"model": "m:macro"}, ("m", "macro")),
        ({"model": "m:macro", "dualfocus": {"mode": "dual"}}, ("m", "dual")),
        ({"dualfocus": {"mode": "dual"}}, ("m", "dual")),
        ({"dualfocus": {"box": [0, 0, 1, 1]}}, ("m", "adaptive")),
    ],
)
def test_a_request_that_names_no_mode_is_given_the_servers(asked: dict[str, Any], expected: tuple[str, str]) -> None:
    read = request(**({"model": "m"} | asked))
    take_mode(read, {"m"}.__contains__, "adaptive")
    assert (read.model, read.dualfocus.mode) == expected


async def test_other_boxes_are_drawn_where_the_model_writes_any() -> None:
    assert (await _question(dualfocus={"candidates": 3})).candidates == 3
    for options in ({"mode": "macro"}, {"box": [0, 0, 1, 1]}):
        with pytest.raises(BadQuestion, match="candidates are drawn in the modes dual, search, adaptive") as refused:
            await _question(dualfocus={"candidates": 3, **options})
        assert refused.value.param == "dualfocus.candidates"


async def test_how_far_a_search_goes_is_taken_as_far_as_the_server_allows() -> None:
    question = await _question(dualfocus={"mode": "search", "max_looks": 4, "sure_below": 1.5})
    assert (question.mode, question.max_looks, question.sure_below) == (Mode.SEARCH, 4, 1.5)
    with pytest.raises(BadQuestion, match=r"at most 4 looks") as refused:
        await _question(dualfocus={"max_looks": 5})
    assert refused.value.param == "dualfocus.max_looks"
    for field in ({"max_looks": 1}, {"sure_below": -0.1}, {"candidates": 0}, {"candidates": 9}):
        with pytest.raises(ValidationError, match=next(iter(field))):
            request(dualfocus=field)


@pytest.mark.parametrize("name", ["whole_tokens", "crop_tokens"])
async def test_image_tokens_are_taken_as_far_as_the_server_allows(name: str) -> None:
    views = load_profile("qwen3-vl").views
    assert views is not None
    at_most = View(most=512)
    allowing = focus(
        views=views.model_copy(update={"whole": at_most, "crop": at_most}), pad_color=None, image_size=None
    )
    question = await question_of(request(dualfocus={name: 512}), allowing, images(), Stages())
    assert getattr(question, name) == 512
    with pytest.raises(BadQuestion, match=r"at most 512 image tokens") as refused:
        await question_of(request(dualfocus={name: 513}), allowing, images(), Stages())
    assert refused.value.param == f"dualfocus.{name}"
    square = focus(views=load_profile("gemma3").views, pad_color=None, image_size=None)
    for fixed in (focus(), square):
        with pytest.raises(BadQuestion, match=r"processor decides how large"):
            await question_of(request(dualfocus={name: 128}), fixed, images(), Stages())
    with pytest.raises(ValidationError, match=name):
        request(dualfocus={name: 0})
