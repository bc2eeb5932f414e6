"""From a request for a response to a question, or to one that vLLM may answer."""

import json
import re
from copy import deepcopy
from typing import Any, cast

import pytest
from dualfocus_engine import BadPicture
from dualfocus_engine.backend.chat_template import as_words, in_words
from dualfocus_server.answering.intake import sampling_of
from dualfocus_server.answering.reasons import reason_for_vllm
from dualfocus_server.answering.service import Service
from dualfocus_server.api.responses.protocol import ResponseRequest
from dualfocus_server.api.responses.reading import opened_for_vllm, question_of_response
from PIL import Image
from pydantic import ValidationError
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.utils import construct_input_messages
from vllm.exceptions import VLLMValidationError

from ..test_chat_service import service
from .asking import ABOUT_AN_IMAGE, IMAGE, TEXT, URL, wanted

CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
LOOK = {"type": "function", "name": "look", "parameters": {}, "strict": False}
SAID = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A cup."}]}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def given_back(output: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": "c1", "output": output}


@pytest.mark.parametrize(
    "input",
    [
        "What?",
        [{"role": "user", "content": "What?"}],
        [{"role": "developer", "content": "Be brief."}, {"type": "message", "role": "user", "content": "What?"}],
        [SAID, {"role": "user", "content": "And now?"}],
        [{"role": "assistant", "content": "A cup."}, {"role": "user", "content": "And now?"}],
        [{"role": "user", "content": "Look."}, CALL, given_back("a cup")],
        [
            {"type": "reasoning", "id": "r1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
            SAID,
            {"role": "user", "content": "And now?"},
        ],
        [SAID, CALL, given_back("a cup"), {"role": "user", "content": "And now?"}],
        [{"type": "custom_tool_call", "call_id": "c1", "name": "look", "input": "at it"}, given_back("a cup")],
    ],
)
def test_text_becomes_the_messages_that_vllm_makes_of_it(input: Any) -> None:
    theirs = ResponsesRequest(input=input, instructions="Be kind.")
    made = construct_input_messages(request_instructions=theirs.instructions, request_input=theirs.input)
    ours = question_of_response(wanted(input, instructions="Be kind."))
    assert [said(message) for message in ours.messages] == [said(message) for message in made]
    assert reason_for_vllm(ours) is not None


def said(message: Any) -> dict[str, Any]:
    """What of a message reaches the model."""
    return {name: value for name, value in message.items() if value is not None and name != "type"}


def test_an_image_makes_it_a_question() -> None:
    question = question_of_response(wanted(ABOUT_AN_IMAGE, instructions="Be brief.", model="m"))
    assert reason_for_vllm(question) is None
    assert question.messages == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": URL}}, {"type": "text", "text": "What?"}],
        },
    ]
    assert question.model == "m"


@pytest.mark.parametrize(
    "fields",
    [
        {"dualfocus": {"mode": "off"}},
        {"tools": [{"type": "web_search"}]},
        {"tools": [LOOK, LOOK | {"name": "ask"}], "tool_choice": "required"},
        {"tools": [LOOK], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [LOOK]}},
        {"media_io_kwargs": {"image": {}}},
        {"mm_processor_kwargs": {"a": 1}},
        {"input": [*ABOUT_AN_IMAGE, SAID | {"status": "incomplete"}]},
    ],
)
def test_what_only_vllm_does_is_vllms(fields: Any) -> None:
    assert reason_for_vllm(question_of_response(wanted(**{"input": ABOUT_AN_IMAGE} | fields))) is not None


def test_what_says_nothing_about_the_answer_keeps_two_looks() -> None:
    fields = {"reasoning": {"effort": "low"}, "truncation": "auto", "metadata": {"a": "b"}, "service_tier": "auto"}
    fields |= {"cache_salt": "salt", "priority": 3, "chat_template_kwargs": {"a": 1}}
    fields |= {"tools": [LOOK], "background": None, "store": None, "user": "u", "parallel_tool_calls": None}
    question = question_of_response(wanted(ABOUT_AN_IMAGE, **fields))
    assert reason_for_vllm(question) is None
    told = question.build_chat_params(None, "auto").chat_template_kwargs
    assert (told["reasoning_effort"], told["a"]) == ("low", 1)
    assert (question.cache_salt, question.priority) == ("salt", 3)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_output_tokens": 7, "temperature": 0.3, "top_p": 0.5, "top_k": 4, "min_p": 0.1, "seed": 3},
        {"stop": ["a"], "stop_token_ids": [3], "ignore_eos": True, "logit_bias": {"3": 1.0}},
        {"presence_penalty": 1, "frequency_penalty": 1, "repetition_penalty": 1.5, "vllm_xargs": {"a": 1}},
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}},
        {"text": {"format": {"type": "json_object"}}},
        {"structured_outputs": {"regex": "a+"}},
        {"top_logprobs": 2, "include": ["message.output_text.logprobs"]},
        {"top_logprobs": 2},
        {"stream": True, "skip_special_tokens": False, "include_stop_str_in_output": True},
    ],
)
def test_it_is_sampled_as_a_response_of_vllms(fields: Any) -> None:
    focus = service().focus
    theirs = ResponsesRequest(input="What?", **fields)
    defaults = {"temperature": focus.profile.temperature}
    asked = sampling_of(question_of_response(wanted(ABOUT_AN_IMAGE, **fields)), focus)
    assert repr(asked) == repr(theirs.to_sampling_params(128, defaults))


REFUSED = {
    "no input": ({}, "input must be a text, or a list of at least one item"),
    "no item": ({"input": []}, "input must be a text, or a list of at least one item"),
    "a number": ({"input": 3}, "input must be a text"),
    "a text among items": ({"input": ["a"]}, "each an object"),
    "too many": ({"input": [{"role": "user", "content": "a"}] * 2001}, "2,001 items; 2,000 are the most"),
    "too many parts": ({"input": [user(*[TEXT] * 1001)]}, "input.0.content has 1,001 parts"),
    "too much of a tool": ({"input": [given_back([TEXT] * 1001)]}, "input.0.output has 1,001 parts"),
    "role": ({"input": [{"role": "boss", "content": "a"}]}, "input.0.role must be one of system, developer"),
    "tool": ({"input": [{"role": "tool", "content": "a"}]}, "input.0.role must be one of"),
    "item": ({"input": [{"type": "item_reference", "id": "i"}]}, "input.0 is of type 'item_reference'"),
    "screen": ({"input": [{"type": "computer_call_output", "output": {"image_url": URL}}]}, "computer_call_output"),
    "file": ({"input": [user({"type": "input_image", "file_id": "f"})]}, "input.0.content.0.file_id can't be used"),
    "file beside": ({"input": [user(IMAGE | {"file_id": "f"})]}, "file_id can't be used"),
    "file of a tool": ({"input": [given_back([IMAGE | {"file_id": "f"}])]}, "input.0.output.0.file_id"),
    "PDF": ({"input": [user({"type": "input_file", "file_data": "x"})]}, "input.0.content.0 is of type 'input_file'"),
    "video": ({"input": [user({"type": "video_url", "video_url": {"url": URL}})]}, "is of type 'video_url'"),
    "sound": ({"input": [user({"type": "input_audio", "input_audio": {}})]}, "is of type 'input_audio'"),
    "no URL": ({"input": [user({"type": "input_image"})]}, "has no image_url with a url"),
    "no text": ({"input": [user({"type": "input_text"})]}, "has no text in it"),
    "no content": ({"input": [{"role": "user"}]}, "input.0.content must be a text, or a list"),
    "their picture": ({"input": [SAID | {"content": [IMAGE]}]}, "an assistant's message holds text alone"),
    "call": ({"input": [{"type": "function_call", "name": "look"}]}, "input.0.arguments"),
    "reasoning": ({"input": [{"type": "reasoning", "id": "r", "summary": 3}]}, "input.0.summary"),
    "output": ({"input": [{"type": "function_call_output", "output": "a"}]}, "input.0.call_id must be a text"),
    "prompt": ({"input": "a", "prompt": {"id": "p"}}, "prompt template is not supported"),
    "xargs": ({"input": "a", "vllm_xargs": {"dualfocus-box": 1}}, "'dualfocus-box' is reserved"),
    "outputs": ({"input": "a", "structured_outputs": 3}, "structured_outputs must be an object"),
    "tools": ({"input": "a", "tools": 3}, "tools|input can't be read"),
    "too many tools": ({"input": "a", "tools": [{}] * 1001}, "tools has 1,001 tools; 1,000 are the most"),
    "surrogate": ({"input": "a\ud800"}, "unpaired surrogate"),
}


@pytest.mark.parametrize(("body", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_by_name(body: Any, said: str) -> None:
    with pytest.raises((ValidationError, VLLMValidationError), match=said):
        ResponseRequest.model_validate(body)


def test_a_summary_of_thoughts_stands_for_them_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    thought = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Hm."}]}
    (message, _) = question_of_response(wanted([thought, {"role": "user", "content": "What?"}])).messages
    assert message["reasoning"] == "Hm."
    assert not caplog.records


def test_encrypted_thoughts_are_refused() -> None:
    thought = {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "x"}
    with pytest.raises(VLLMValidationError, match="Encrypted content"):
        question_of_response(wanted([thought, {"role": "user", "content": "What?"}]))


async def opened(asked: ResponseRequest, on: Service, client: str) -> tuple[ResponseRequest, list[Any]]:
    """What vLLM is given to answer."""
    async with opened_for_vllm(asked, on, client) as given:
        return deepcopy(given)


def test_ids_are_ours() -> None:
    asked = wanted("What?", request_id="resp_of_another")
    assert asked.request_id.startswith("resp_")
    assert asked.request_id != "resp_of_another"
    assert question_of_response(asked).answer_id == asked.request_id


@pytest.mark.parametrize("input", [[user(IMAGE, TEXT)], [*ABOUT_AN_IMAGE, CALL, given_back([IMAGE, TEXT])]])
async def test_vllm_is_handed_every_image_opened(input: Any) -> None:
    asked = wanted(input, truncation="auto", previous_response_id="resp_1", background=False)
    request, messages = await opened(asked, service(), "")
    made: Any = construct_input_messages(request_instructions=request.instructions, request_input=request.input)
    images = [part for message in made for part in parts_in(message) if "image" in part["type"]]
    assert images
    assert all(part["type"] == "image_pil" and isinstance(part["image_pil"], Image.Image) for part in images)
    assert [part["uuid"] for message in messages for part in parts_in(message) if "uuid" in part] == [
        part["uuid"] for part in images
    ]
    assert (request.store, request.background, request.previous_response_id) == (False, False, None)
    assert request.truncation == "disabled", "an image's place could be cut"
    assert asked.truncation == "auto"
    assert asked.input[0]["content"][0] == {"type": "image_url", "image_url": {"url": URL}}, "what is kept is encoded"


async def test_an_image_named_by_its_uuid_is_the_clients_own_where_vllm_answers() -> None:
    on, name = service(), {"uuid": "mine"}
    await opened(wanted([user(IMAGE | name, TEXT)]), on, "one")
    known = wanted([user({"type": "input_image", "image_url": None} | name, TEXT)])
    request, _ = await opened(known, on, "one")
    assert [part["type"] for part in cast("Any", request.input)[0]["content"]] == ["image_pil", "text"]
    with pytest.raises(BadPicture):
        await opened(known, on, "another")


def parts_in(message: Any) -> list[dict[str, Any]]:
    content = message.get("content")
    return content if isinstance(content, list) else []


async def test_an_image_of_a_tool_is_opened_by_our_rules() -> None:
    asked = wanted([given_back([{"type": "input_image", "image_url": "http://127.0.0.1/a.png"}])])
    with pytest.raises(BadPicture):
        await opened(asked, service(), "")


async def test_words_that_stand_for_pictures_are_words(monkeypatch: pytest.MonkeyPatch) -> None:
    on = service()
    placeholders = re.compile("<image>")
    monkeypatch.setattr(on.focus.engine, "as_words", lambda texts: as_words(texts, placeholders))
    monkeypatch.setattr(on.focus.engine, "in_words", lambda value: in_words(value, placeholders))
    text = "an <image>"
    call = CALL | {"arguments": json.dumps({"at": text})}
    custom = {"type": "custom_tool_call", "call_id": "c1", "name": "look", "input": text}
    thought = {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}
    input = [user(TEXT | {"text": text}), thought, SAID | {"content": text}, call, custom, given_back(text)]
    told = {"instructions": text, "tools": [LOOK | {"description": text}], "chat_template_kwargs": {"a": text}}
    asked = wanted(input, **told)
    request, _ = await opened(asked, on, "")
    assert "<image>" not in str([request.tools, request.chat_template_kwargs, request.input])
    assert "<image>" in str(asked.tools), "the response says what was sent"
    made: Any = construct_input_messages(request_instructions=request.instructions, request_input=request.input)
    texts = [message.get("content") for message in made]
    assert "<image>" not in str(texts)
    assert str(texts).count("< image>") == 4


async def test_text_alone_may_be_cut_by_vllm() -> None:
    request, _ = await opened(wanted("What?", truncation="auto"), service(), "")
    assert request.truncation == "auto"
    assert cast("Any", request.input) == [{"role": "user", "content": "What?"}]
