"""Which requests two looks answer, and what makes the others vLLM's."""

from pathlib import Path
from typing import Any

import pytest
from dualfocus_engine import load_profile
from dualfocus_server.answering.protocol import FocusRequest
from dualfocus_server.answering.reasons import VLLM_ONLY, reason_for_vllm
from dualfocus_server.answering.service import Service

from ..fake_engine import FakeEngine, focus_on
from .test_intake import RED, image, request, text, user

AUDIO = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
OTHER_TOOL = {"type": "function", "function": {"name": "look"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


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
        [{"role": "developer", "content": "Be terse."}, user()],
        [user(), {"role": "assistant", "content": "Red."}, user()],
        [user(), {"role": "assistant", "content": "Red."}, user(text("Sure?"))],
        [user(), {"role": "assistant", "content": "Red."}, {"role": "user", "content": "Sure?"}],
        [user(text("Hello")), {"role": "assistant", "content": [text("Hi")]}, user()],
        [{"role": "tool", "tool_call_id": "c", "content": "x"}, user()],
        [{"role": "assistant", "content": "", "tool_calls": [CALL]}, user()],
        [user(), {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "c", "content": "x"}],
        [user(text()), {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": [image()]}],
    ],
)
def test_image_in_the_conversation_gets_two_looks(messages: list[dict[str, Any]]) -> None:
    assert reason_for_vllm(request(*messages)) is None


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"role": "user", "content": "What?"}], "no_image"),
        ([user(text())], "no_image"),
        ([user(), {"role": "assistant", "content": "Red."}], "last_message"),
        ([user(), {"role": "critic", "content": "Red?"}, user()], "role"),
        ([user(image(), {"type": "video_url", "video_url": {"url": RED}}, text())], "video_url"),
        ([user(image(), AUDIO)], "input_audio"),
        ([user({"type": "image_embeds", "image_embeds": "AA=="}, text())], "image_embeds"),
        ([user(image(), {"type": "image_embeds", "image_embeds": "AA=="}, text())], "image_embeds"),
    ],
)
def test_other_conversations_are_vllms(messages: list[dict[str, Any]], reason: str) -> None:
    assert reason_for_vllm(request(*messages)) == reason


def test_one_look_is_nothing_lost_where_it_is_asked_for() -> None:
    assert reason_for_vllm(request(user(), dualfocus={"mode": "off"}, echo=True)) == "mode"


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "required", "tools": [TOOL, OTHER_TOOL]},
        {"use_beam_search": True},
        {"echo": True},
        {"continue_final_message": True, "add_generation_prompt": False},
        {"add_generation_prompt": False},
        {"add_special_tokens": True},
        {"return_prompt_text": True},
        {"routed_experts_prompt_start": 1},
        {"kv_transfer_params": {"a": 1}},
        {"ec_transfer_params": {"a": 1}},
        {"documents": [{"title": "a", "text": "b"}]},
        {"chat_template": "{{ messages }}"},
        {"media_io_kwargs": {"image": {}}},
        {"mm_processor_kwargs": {"a": 1}},
        {"prompt_logprobs": 1},
        pytest.param({"prompt_logprobs": 0}, id="prompt_logprobs of the prompt's own tokens"),
        {"logprobs": True, "logprob_token_ids": [1]},
        {"truncate_prompt_tokens": 10},
    ],
    ids=lambda fields: next(reversed(fields)),
)
def test_what_only_vllm_does_is_vllms(fields: dict[str, Any]) -> None:
    assert reason_for_vllm(request(**fields)) == next(reversed(fields))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"dualfocus": {}},
        {"dualfocus": {"mode": "macro"}},
        {"n": 1},
        {"n": 2},
        {"add_generation_prompt": True, "add_special_tokens": False, "priority": 0, "return_token_ids": False},
        {"session_id": ""},
        {"session_id": "one"},
        {"stream": False},
        {"stream": True},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"regex": "a"}},
        {"tools": None},
        {"temperature": 0.7, "top_p": 0.9, "seed": 1, "stop": ["."], "max_tokens": 5},
        {"logprobs": True, "top_logprobs": 3},
        {"user": "someone"},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"cache_salt": "salt"},
        {"priority": 1},
        {"return_token_ids": True},
        {"tools": [TOOL], "tool_choice": "none"},
        {"tools": [TOOL]},
        {"tools": [TOOL, OTHER_TOOL]},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL, OTHER_TOOL], "tool_choice": {"type": "function", "function": {"name": "look"}}},
        {"tools": []},
        {"tools": [], "tool_choice": "auto"},
        {"tool_choice": "none"},
    ],
)
def test_ordinary_options_keep_the_two_looks(fields: dict[str, Any]) -> None:
    assert reason_for_vllm(request(**fields)) is None


def test_the_processors_fields_are_two_looks_where_a_flag_trusts_clients_with_them() -> None:
    told = request(mm_processor_kwargs={"do_rescale": False})
    assert reason_for_vllm(told, ["mm_processor_kwargs"]) is None
    assert reason_for_vllm(request(echo=True), ["mm_processor_kwargs"]) == "echo"


@pytest.mark.parametrize(
    ("trusts", "profile", "takes"), [(True, "paper", True), (True, "qwen3-vl", False), (False, "paper", False)]
)
def test_two_looks_take_them_where_the_profile_has_no_views(trusts: bool, profile: str, takes: bool) -> None:
    engine = FakeEngine()
    engine.views = load_profile(profile).views
    made: Any = dict.fromkeys(("chat", "images", "admission", "watchdog"))
    service = Service(focus=focus_on(engine), **made, timeout=0, trusts_processor_kwargs=trusts)
    assert ("mm_processor_kwargs" in service.takes("model")) is takes


# What is done with the other fields on a question of two looks.
USED = {
    *("messages", "model", "dualfocus", "stream", "stream_options", "n", "request_id"),
    *("logprobs", "top_logprobs", "return_tokens_as_token_ids", "return_token_ids"),
    *("chat_template_kwargs", "reasoning_effort", "cache_salt", "priority", "tools", "tool_choice"),
    *("max_tokens", "max_completion_tokens", "min_tokens", "stop", "stop_token_ids", "ignore_eos", "bad_words"),
    *("temperature", "top_p", "top_k", "min_p", "seed", "logit_bias", "allowed_token_ids"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty", "repetition_detection"),
    *("response_format", "structured_outputs", "thinking_token_budget", "watermarking", "vllm_xargs"),
    *("skip_special_tokens", "spaces_between_special_tokens", "include_stop_str_in_output", "stream_interval"),
}
IGNORED = {
    *(
        "user",
        "session_id",
        "include_reasoning",
        "parallel_tool_calls",
        "length_penalty",
    ),
    *("truncation_side", "return_token_offsets", "mm_payload", "return_mm_kwargs"),
}


def test_every_field_is_used_or_vllms_or_said_to_do_nothing() -> None:
    sorted_out = [*USED, *IGNORED, *VLLM_ONLY]
    assert sorted(sorted_out) == sorted(FocusRequest.model_fields)
    documented = Path(__file__).parents[3].joinpath("docs", "api.md").read_text()
    assert [name for name in (*IGNORED, *VLLM_ONLY) if f"`{name}`" not in documented] == []
