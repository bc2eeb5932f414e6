"""Which requests get two looks, and the question that is read out of them."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dualfocus_engine import BadPicture, BadQuestion, Box, DualFocus, DualFocusError, Message, Mode, load_profile
from dualfocus_server import intake
from dualfocus_server.intake import concerns_focus, inline_images, question_of
from dualfocus_server.media import ImageSource, data_url
from dualfocus_server.protocol import FocusRequest
from PIL import Image
from vllm.renderers.chat_utils import MM_PARSER_MAP

from .builders import encoded
from .local_web import respond, serving

RED = data_url(encoded(Image.new("RGB", (40, 30), (255, 0, 0))))
BLUE = data_url(encoded(Image.new("RGB", (20, 50), (0, 0, 255))))
AUDIO = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def image(url: str = RED) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def text(words: str = "What colour?") -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts or (image(), text()))}


def request(*messages: dict[str, Any], **fields: Any) -> FocusRequest:
    """A request as it comes over the wire."""
    return FocusRequest.model_validate_json(json.dumps({"messages": messages or (user(),)} | fields))


def focus(defaults: dict[str, Any] | None = None, **profile: Any) -> DualFocus:
    """The profile and the model's own sampling defaults: all that intake asks of the engine."""
    config = SimpleNamespace(get_diff_sampling_param=lambda: dict(defaults or {}))
    engine = SimpleNamespace(llm=SimpleNamespace(model_config=config))
    own = load_profile("llava-dualfocus").model_copy(update=profile)
    return cast("DualFocus", SimpleNamespace(engine=engine, profile=own))


async def _question(*messages: dict[str, Any], **fields: Any) -> Any:
    return await question_of(request(*messages, **fields), focus(), ImageSource())


@pytest.mark.parametrize(
    "messages",
    [
        [user()],
        [user(text(), image())],
        [user(image(), text(), image())],
        [user(image())],
        [user({"type": "input_image", "image_url": RED}, {"type": "input_text", "text": "What?"})],
        [user(image(), "What?")],
        [user({"image_url": {"url": RED}}, text())],
        [user({"image_url": RED}, text())],
        [{"role": "system", "content": "Be terse."}, user()],
        [user(), {"role": "assistant", "content": "Red."}, user()],
        [user(text("Hello")), {"role": "assistant", "content": [text("Hi")]}, user()],
    ],
)
def test_image_in_the_last_message_gets_two_looks(messages: list[dict[str, Any]]) -> None:
    assert concerns_focus(request(*messages))


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([{"role": "user", "content": "What?"}], id="text"),
        pytest.param([user(text())], id="text part"),
        pytest.param([user(), {"role": "assistant", "content": "Red."}], id="assistant last"),
        pytest.param(
            [user(), {"role": "assistant", "content": "Red."}, user(text("Sure?"))], id="image in an earlier turn"
        ),
        pytest.param([{"role": "developer", "content": "x"}, user()], id="developer"),
        pytest.param([{"role": "tool", "tool_call_id": "c", "content": "x"}, user()], id="tool"),
        pytest.param([{"role": "assistant", "content": "", "tool_calls": [CALL]}, user()], id="tool call"),
        pytest.param([user(image(), {"type": "video_url", "video_url": {"url": RED}}, text())], id="video"),
        pytest.param([user(image(), AUDIO)], id="audio"),
    ],
)
def test_other_conversations_are_vllms(messages: list[dict[str, Any]]) -> None:
    assert not concerns_focus(request(*messages))


@pytest.mark.parametrize(
    "fields",
    [
        {"dualfocus": {"mode": "off"}},
        {"n": 2},
        {"stream": True},
        {"tools": [TOOL]},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"regex": "a"}},
        {"use_beam_search": True},
        {"echo": True},
        {"continue_final_message": True, "add_generation_prompt": False},
        {"documents": [{"title": "a", "text": "b"}]},
        {"chat_template": "{{ messages }}"},
        {"chat_template_kwargs": {"a": 1}},
        {"media_io_kwargs": {"image": {}}},
        {"mm_processor_kwargs": {"a": 1}},
        {"prompt_logprobs": 1},
        pytest.param({"prompt_logprobs": 0}, id="prompt_logprobs of the prompt's own tokens"),
        {"logprobs": True, "logprob_token_ids": [1]},
        {"truncate_prompt_tokens": 10},
        {"cache_salt": "salt"},
    ],
    ids=lambda fields: next(reversed(fields)),
)
def test_what_only_vllm_does_is_vllms(fields: dict[str, Any]) -> None:
    assert not concerns_focus(request(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"dualfocus": {}},
        {"dualfocus": {"mode": "macro"}},
        {"n": 1},
        {"stream": False},
        {"tools": None},
        {"temperature": 0.7, "top_p": 0.9, "seed": 1, "stop": ["."], "max_tokens": 5},
        {"logprobs": True, "top_logprobs": 3},
        {"user": "someone"},
    ],
)
def test_ordinary_options_keep_the_two_looks(fields: dict[str, Any]) -> None:
    assert concerns_focus(request(**fields))


@pytest.mark.parametrize("name", intake._VLLM_ONLY)
def test_fields_that_are_vllms_are_fields_of_this_vllm(name: str) -> None:
    assert name in FocusRequest.model_fields


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


async def test_options_of_the_dualfocus_field_are_read() -> None:
    options = {"mode": "micro", "question": "the bird", "box": [0.1, 0.2, 0.3, 0.4]}
    question = await _question(user(), dualfocus=options)
    assert (question.mode, question.grounding, question.box) == (Mode.MICRO, "the bird", Box(0.1, 0.2, 0.3, 0.4))
    plain = await _question(user())
    assert (plain.mode, plain.grounding, plain.box) == (Mode.DUAL, None, None)


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
        pytest.param([{"type": "image_url"}, text()], BadQuestion, id="no image_url"),
        pytest.param([{"type": "image_url", "image_url": None}, text()], BadQuestion, id="null image_url"),
        pytest.param([image()], BadQuestion, id="no text"),
        pytest.param([image(), text("  ")], BadQuestion, id="blank text"),
        pytest.param([image(), {"type": "text"}], BadQuestion, id="text part without text"),
        pytest.param([image(), {"type": "text", "text": None}], BadQuestion, id="null text"),
        pytest.param([image(), {"type": "text", "text": 5}], BadQuestion, id="text that is a number"),
    ],
)
async def test_bad_part_is_said_in_our_own_words(parts: list[Any], error: type[DualFocusError]) -> None:
    with pytest.raises(error) as raised:
        await _question(user(*parts))
    assert str(raised.value)


async def test_clients_sampling_goes_before_the_profiles_and_that_before_the_models() -> None:
    async def sampling(defaults: dict[str, Any], **fields: Any) -> Any:
        return (await question_of(request(**fields), focus(defaults, temperature=0.3), ImageSource())).sampling

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


async def test_fetched_image_reaches_vllm_as_data() -> None:
    with serving({"/a": respond(body=b"image")}) as web:
        images = ImageSource(["*"], allowed=lambda address: True)
        asked = request(user(image(f"{web.address}/a"), image(BLUE), text()), stream=True)
        await inline_images(asked, images)
        await images.close()
    parts = cast("Any", asked.messages)[-1]["content"]
    assert [part.get("image_url") for part in parts] == [{"url": data_url(b"image")}, {"url": BLUE}, None]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param({"type": "image_url", "image_url": {"url": "URL"}}, id="image_url"),
        pytest.param({"type": "image_url", "image_url": "URL"}, id="image_url as text"),
        pytest.param({"type": "input_image", "image_url": "URL", "detail": "auto"}, id="input_image"),
    ],
)
async def test_fetched_image_is_written_the_way_vllm_reads_its_part(kind: dict[str, Any]) -> None:
    with serving({"/a": respond(body=b"image")}) as web:
        images = ImageSource(["*"], allowed=lambda address: True)
        part = json.loads(json.dumps(kind).replace("URL", f"{web.address}/a"))
        asked = request(user(part, text()), stream=True)
        await inline_images(asked, images)
        await images.close()
    content = cast("Any", asked.messages)[-1]["content"]
    assert MM_PARSER_MAP[kind["type"]](content[0]) == data_url(b"image")


FETCHES = {
    "image_url": {"type": "image_url", "image_url": {"url": "URL"}},
    "image_url as text": {"type": "image_url", "image_url": "URL"},
    "input_image": {"type": "input_image", "image_url": "URL", "detail": "auto"},
    "no type": {"image_url": "URL"},
    "no type, nested": {"image_url": {"url": "URL"}},
    # vLLM looks past the type of a part that has a uuid.
    "text with a uuid": {"type": "text", "text": "x", "image_url": "URL", "uuid": "u"},
    "video_url": {"type": "video_url", "video_url": {"url": "URL"}},
    "audio_url": {"type": "audio_url", "audio_url": {"url": "URL"}},
    "no type, video": {"video_url": "URL"},
}


@pytest.mark.parametrize("part", FETCHES.values(), ids=FETCHES)
@pytest.mark.parametrize("role", ["user", "system"])
async def test_vllm_is_given_nothing_to_fetch_by_itself(part: dict[str, Any], role: str) -> None:
    """Whatever vLLM would take for a URL to fetch is refused, or is data by then (docs: vLLM fetches nothing)."""
    address = "http://169.254.169.254/latest"
    written = json.loads(json.dumps(part).replace("URL", address))
    asked = request({"role": role, "content": [written, text()]}, user(text()), stream=True)
    try:
        await inline_images(asked, ImageSource())
    except DualFocusError:
        return
    assert address not in repr(asked.messages)
