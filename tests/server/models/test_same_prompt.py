"""A question's macro turn is, token for token, what vLLM's own chat serving makes of the same request."""

import io
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from dualfocus_engine import DualFocus, FocusResult
from dualfocus_engine.families.choosing import profile_of
from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.method.stages import Stages
from dualfocus_server.answering.intake import inlined_images, question_of
from dualfocus_server.answering.protocol import FocusRequest
from dualfocus_server.answering.reasons import reason_for_vllm
from dualfocus_server.answering.report import usage
from dualfocus_server.answering.vllm_serving.chat import VllmChat
from dualfocus_server.images.image_fetcher import ImageFetcher
from dualfocus_server.images.request_images import RequestImages
from dualfocus_server.startup.arguments import parse_arguments
from dualfocus_training.models.families import ensure_tiny
from dualfocus_training.models.untrained import ensure_untrained, untrained_profile
from fastapi import Request
from hostile_images import data_url, png
from PIL import Image
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse

A = {"type": "image_url", "image_url": {"url": data_url(png(56, 84))}}
B = {"type": "image_url", "image_url": {"url": data_url(png(84, 56))}}
WORDS = "What colour is it?"
_SHADES = itertools.count(1)
TOOL = {"type": "function", "function": {"name": "look_closely", "parameters": {"type": "object", "properties": {}}}}
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}


def text(words: str = WORDS, **extra: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **extra}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": parts[0] if len(parts) == 1 and isinstance(parts[0], str) else list(parts)}


def called(arguments: str) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "look_closely", "arguments": arguments}}
    return {"role": "assistant", "tool_calls": [call]}


CALLED, NO_JSON = called('{"side": "left"}'), called("{")
GAVE = {"role": "tool", "tool_call_id": "c1"}
SHAPES: dict[str, list[dict[str, Any]]] = {
    "picture, text": [user(A, text())],
    "text, picture": [user(text(), A)],
    "text, picture, text": [user(text("Look:"), A, text())],
    "two named pictures": [user(text("Picture one:"), A, text("Picture two:"), B, text("What colour is picture one?"))],
    "two pictures, text": [user(A, B, text())],
    "text, two pictures": [user(text(), A, B)],
    "picture alone": [user(A)],
    "picture, empty text": [user(A, text(""))],
    "picture, two texts": [user(A, text("First."), text("Then?"))],
    "picture, plain string": [user(A, WORDS)],
    "system": [SYSTEM, user(A, text())],
    "system, text first": [SYSTEM, user(text(), A)],
    "system in parts": [{"role": "system", "content": [text("Be terse."), text("Be kind.")]}, user(A, text())],
    "developer": [{"role": "developer", "content": "Be terse."}, user(A, text())],
    "earlier picture": [user(A, text()), {"role": "assistant", "content": "Red."}, user("And now?")],
    "earlier picture, new one": [user(A, text()), {"role": "assistant", "content": "Red."}, user(text("And here?"), B)],
    "text turn before": [user("Hello"), {"role": "assistant", "content": "Hi."}, user(A, text())],
    "assistant in parts": [user(A, text()), {"role": "assistant", "content": [text("R"), text("ed")]}, user("Sure?")],
    "two users' turns": [user(A, text("This is one.")), user(text())],
    "line breaks and spaces": [user(text("  A\n\n b "), A, text("\tC?  "))],
    "the same picture twice": [user(A, text()), {"role": "assistant", "content": "Red."}, user(A, text())],
    "a tool's result": [user(A, text()), CALLED, GAVE | {"content": "A cup."}],
    "a tool's result in parts": [user(A, text()), CALLED, GAVE | {"content": [text("A"), text("cup.")]}],
    "a tool's picture": [user("Look."), CALLED, GAVE | {"content": [A, text("Here.")]}],
    "a tool's picture, then words": [user("Look."), CALLED, GAVE | {"content": [text("Here:"), A]}, user("And?")],
    "a call with an answer": [
        user(A, text()),
        CALLED | {"content": "I look."},
        GAVE | {"content": "Red."},
        user("So?"),
    ],
    "a call that is no JSON": [user(A, text()), NO_JSON, GAVE | {"content": "Red."}],
    "names": [{**user(A, text()), "name": "Ann"}, {"role": "assistant", "content": "Red.", "name": "Bo"}, user("So?")],
    "earlier thoughts": [user(A, text()), {"role": "assistant", "content": "Red.", "reasoning": "Hm."}, user("So?")],
    "what a template may read": [user(A, text(source_lang_code="de", weight=2))],
}
assert len(SHAPES) >= 20


@dataclass(frozen=True)
class Both:
    """The two ways through a server, on one engine."""

    focus: DualFocus
    chat: VllmChat

    async def macro(self, request: FocusRequest) -> FocusResult:
        """Answer by two looks; `turns["macro"]` is the turn."""
        assert reason_for_vllm(request) is None
        question = await question_of(
            request, self.focus, RequestImages(ImageFetcher()), Stages(), self.chat.turn_options(request)
        )
        return await self.focus.answer(question)

    async def off(self, request: FocusRequest) -> ChatCompletionResponse:
        """Answer by vLLM's own chat serving."""
        raw = Request({"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""})
        async with inlined_images(request, self.focus, RequestImages(ImageFetcher())):
            return await self.chat.answer(request, raw)


def asked(messages: list[dict[str, Any]], **fields: Any) -> FocusRequest:
    body = {"messages": messages, "max_tokens": 2, "temperature": 0, **fields}
    return cast("FocusRequest", FocusRequest.model_validate_json(json.dumps(body)))


VICUNA = {"system": 'A chat between a "curious" user\\and {{ an }} assistant — 🙂.', "max_box_tokens": 4}
WITHOUT_SYSTEM = {"drop_system_messages": True}
PROFILES = {
    "llava": (ensure_untrained, lambda: untrained_profile()),
    "llava, a system text": (ensure_untrained, lambda: untrained_profile().model_copy(update=VICUNA)),
    "llava, no system": (
        ensure_untrained,
        lambda: untrained_profile().model_copy(update={"drop_system_messages": True}),
    ),
    "qwen2.5-vl": (lambda: ensure_tiny("qwen2.5-vl"), lambda: profile_of(str(ensure_tiny("qwen2.5-vl")))),
}
# Its pictures take tokens of their own around the image's.
INTERNVL = {"internvl": (lambda: ensure_tiny("internvl"), lambda: profile_of(str(ensure_tiny("internvl"))))}


@pytest.fixture(scope="module")
async def engines() -> AsyncIterator[dict[str, DualFocus]]:
    """One engine a model; profiles share it."""
    started: dict[str, DualFocus] = {}
    yield started
    for focus in started.values():
        focus.stop()


@pytest.fixture(params=PROFILES)
async def both(request: pytest.FixtureRequest, engines: dict[str, DualFocus]) -> Both:
    model, profile = (PROFILES | INTERNVL)[request.param]
    return await _on(engines, str(model()), profile())


async def _on(engines: dict[str, DualFocus], model: str, profile: Profile) -> Both:
    if model not in engines:
        engines[model] = DualFocus(model, dtype="float32", kv_cache_memory_bytes=1 << 29)
        engines[model].start()
    focus = with_profile(engines[model], profile)
    return Both(focus, await chat_on(focus))


def with_profile(focus: DualFocus, profile: Profile) -> DualFocus:
    """Return another that asks the same engine in another profile's words."""
    other = DualFocus(focus.model, profile)
    other._engine = type(focus.engine)(focus.engine.llm, profile, focus.engine._heartbeat)
    return other


async def chat_on(focus: DualFocus) -> VllmChat:
    """Return vLLM's own way on an engine."""
    args = parse_arguments([focus.model])
    args.served_model_name, args.enable_prompt_tokens_details = ["a-model"], True
    return await VllmChat.on(focus.engine, args)


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_macro_turn_is_what_mode_off_is(both: Both, shape: str) -> None:
    macro = (await both.macro(asked(SHAPES[shape]))).turns["macro"]
    off = await both.off(asked(SHAPES[shape], return_token_ids=True))
    assert list(macro.prompt_token_ids) == off.prompt_token_ids


@pytest.mark.parametrize("both", ["llava"], indirect=True)
async def test_pictures_are_let_go_of_while_vllm_writes(both: Both) -> None:
    request, raw = asked([user(fresh(), text())], stream=True), Request({"type": "http", "headers": []})
    images = RequestImages(ImageFetcher())
    async with inlined_images(request, both.focus, images):
        part = cast("Any", request.messages)[-1]["content"][0]
        assert part["image_pil"] is not None
        async with aclosing(await both.chat.stream(request, raw)) as pieces:
            assert part["image_pil"] is None
            assert len([piece async for piece in pieces]) > 2
    assert part["image_pil"] is None


@pytest.mark.parametrize("both", [*PROFILES, pytest.param("internvl", marks=pytest.mark.slow)], indirect=True)
async def test_the_macro_turns_usage_is_what_mode_off_counts(both: Both) -> None:
    await both.off(asked([user(fresh(), text())]))  # what all prompts open with is cached from here on
    answered = [
        (await both.off(asked([user(fresh(), text())]))).usage,
        usage([await both.macro(asked([user(fresh(), text())], dualfocus={"mode": "macro"}))]),
    ]
    theirs, ours = (dict(counted) for counted in answered)
    assert theirs["prompt_tokens_details"].multimodal_tokens["image"] > 0
    theirs.pop("completion_tokens_details")  # which vLLM counts for reasoning models only
    assert ours.pop("completion_tokens_details").reasoning_tokens == 0
    assert ours == theirs


@pytest.mark.parametrize("word", ["<image>", "<|image_pad|>", "<|vision_start|>", "<|vision_start|><|image_pad|>"])
@pytest.mark.parametrize("where", ["before", "behind", "system"])
async def test_a_placeholder_in_a_clients_text_is_words(both: Both, word: str, where: str) -> None:
    written = f"What does {word} mean?"
    shapes = {
        "before": [user(text(written), A)],
        "behind": [user(A, text(written))],
        "system": [{"role": "system", "content": written}, user(A, text())],
    }
    plain = (await both.macro(asked([user(A, text("What does that mean?"))]))).turns["macro"]
    turn = (await both.macro(asked(shapes[where]))).turns["macro"]
    tokenizer = both.focus.engine.llm.renderer.get_tokenizer()
    pictures = {both.focus.engine.llm.model_config.hf_config.image_token_id}
    count = [sum(token in pictures for token in of.prompt_token_ids) for of in (turn, plain)]
    assert count[0] == count[1], "a word became a picture"
    off = await both.off(asked(shapes[where], return_token_ids=True))
    assert off.prompt_token_ids == list(turn.prompt_token_ids), "and on vLLM's own way"
    if both.focus.profile.drop_system_messages is False or where != "system":
        assert word[0] + " " + word[1:].split("><")[0] in tokenizer.decode(turn.prompt_token_ids) or word not in (
            tokenizer.get_added_vocab()
        )


@pytest.mark.parametrize(
    "split", [("<ima", "ge>"), ("<", "image", ">"), ("<|image", "_pad|>"), ("<|image_", "pad", "|>")]
)
async def test_a_placeholder_that_is_split_over_texts_is_words_too(both: Both, split: tuple[str, ...]) -> None:
    shape = [user(A, *map(text, split))]
    plain, turn = [(await both.macro(asked(of))).turns["macro"] for of in ([user(A, text())], shape)]
    off = await both.off(asked(shape, return_token_ids=True))
    image = both.focus.engine.llm.model_config.hf_config.image_token_id
    assert turn.prompt_token_ids.count(image) == plain.prompt_token_ids.count(image)
    assert off.prompt_token_ids == list(turn.prompt_token_ids)


@pytest.mark.parametrize("word", ["<image>", "<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>"])
async def test_a_placeholder_in_a_text_without_pictures_is_words_too(both: Both, word: str) -> None:
    answered = await both.off(asked([user(f"What does {word} mean?")], return_token_ids=True))
    assert both.focus.engine.llm.model_config.hf_config.image_token_id not in (answered.prompt_token_ids or [])


def heeding(both: Both, **changes: Any) -> Both:
    """The same with a template that says the mood and the effort that it is told."""
    own = both.focus.engine.template.text or both.focus.engine.llm.renderer.get_tokenizer().chat_template
    template = "{{ mood }} {{ reasoning_effort }} {{ tools }} " + str(own)
    profile = both.focus.profile.model_copy(update={"chat_template": template} | changes)
    return replace(both, focus=with_profile(both.focus, profile))


@pytest.mark.parametrize("both", ["llava"], indirect=True)
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"chat_template_kwargs": {"mood": "merry"}}, "merry"),
        ({"reasoning_effort": "high"}, "high"),
        ({"tools": [TOOL], "tool_choice": "none"}, "look_closely"),
        ({"reasoning_effort": "high", "chat_template_kwargs": {"mood": "merry"}, "cache_salt": "a"}, "merry high"),
    ],
)
async def test_what_the_template_is_told_reaches_all_turns(both: Both, fields: dict[str, Any], said: str) -> None:
    both = replace(heeding(both), chat=await chat_on(heeding(both).focus))
    turns = (await both.macro(asked([user(A, text())], **fields))).turns
    decode = both.focus.engine.llm.renderer.get_tokenizer().decode
    assert set(turns) >= {"macro", "grounding"}
    assert all(said in decode(turn.prompt_token_ids) for turn in turns.values())
    off = await both.off(asked([user(A, text())], return_token_ids=True, **fields))
    assert list(turns["macro"].prompt_token_ids) == off.prompt_token_ids


_ESCAPED = CALLED | {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]}
_ESCAPED["tool_calls"][0]["function"]["arguments"] = '{"\\u003cimage>": "an \\u003cimage>"}'
_TOOL = {"type": "function", "function": {"name": "f", "description": "takes an <image>", "parameters": {}}}
_TOLD = "{% for message in messages %}{{ message.tool_calls }} {{ message.reasoning }}{% endfor %}"


@pytest.mark.parametrize("both", ["llava"], indirect=True)
@pytest.mark.parametrize(
    ("messages", "fields"),
    [
        ([user(A, text()), _ESCAPED, GAVE | {"content": "an <image>"}], {}),
        ([user(A, text()), {"role": "assistant", "content": "Red.", "reasoning": "<image>"}, user("So?")], {}),
        ([user(A, text())], {"tools": [_TOOL], "tool_choice": "none"}),
        ([user(A, text())], {"tools": [_TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}),
    ],
)
async def test_a_placeholder_in_tools_and_calls_is_words(
    both: Both, messages: list[dict[str, Any]], fields: dict[str, Any]
) -> None:
    own = heeding(both).focus.profile.chat_template
    both = replace(both, focus=with_profile(both.focus, heeding(both, chat_template=_TOLD + str(own)).focus.profile))
    both = replace(both, chat=await chat_on(both.focus))
    turn = (await both.macro(asked(messages, **fields))).turns["macro"]
    picture = both.focus.engine.llm.model_config.hf_config.image_token_id
    decode = both.focus.engine.llm.renderer.get_tokenizer().decode
    assert sum(token == picture for token in turn.prompt_token_ids) == turn.image_tokens
    assert "< image>" in decode(turn.prompt_token_ids)
    if not isinstance(fields.get("tool_choice"), dict):  # which needs a parser there
        off = await both.off(asked(messages, return_token_ids=True, **fields))
        assert off.prompt_token_ids == list(turn.prompt_token_ids)


@pytest.mark.parametrize("both", ["llava"], indirect=True)
async def test_what_a_profile_tells_of_the_grounding_turn_goes_before_the_clients(both: Both) -> None:
    both = heeding(both, grounding_template_kwargs={"mood": "terse"})
    turns = (await both.macro(asked([user(A, text())], chat_template_kwargs={"mood": "merry"}))).turns
    decode = both.focus.engine.llm.renderer.get_tokenizer().decode
    moods = {name: decode(turn.prompt_token_ids).split()[0] for name, turn in turns.items()}
    assert (moods["macro"], moods["grounding"]) == ("merry", "terse")


async def test_under_another_salt_nothing_is_shared(both: Both) -> None:
    """Not the prefix, not the encoder's output: who asks can't tell whether somebody asked before."""
    picture = fresh()

    async def ask(salt: str | None) -> FocusResult:
        salted = {} if salt is None else {"cache_salt": salt}
        return await both.macro(asked([user(picture, text())], dualfocus={"mode": "macro"}, **salted))

    assert [encoder_runs(await ask(salt)) for salt in ("a", "b", None, "a", "b", None)] == [1, 1, 1, 0, 0, 0]
    first, again = [await ask("c") for _ in range(2)]
    assert (first.turns["macro"].cached_tokens, again.turns["macro"].cached_tokens > 0) == (0, True)


def fresh() -> dict[str, Any]:
    """A picture that no cache knows, in as many tokens as any other of them."""
    file = io.BytesIO()
    Image.new("RGB", (56, 56), (next(_SHADES), 10, 200)).save(file, "PNG")
    return {"type": "image_url", "image_url": {"url": data_url(file.getvalue())}}


async def test_text_first_computes_little_more_than_the_question_once_more(both: Both) -> None:
    """Macro and grounding share the picture; what of the question stands before it is computed once, and once in Q1."""
    words = "Where is the seventh of all these numbers?"
    last = await both.macro(asked([user(fresh(), text(words))]))
    first = await both.macro(asked([user(text(words), fresh())]))
    block = both.focus.engine.llm.vllm_config.cache_config.block_size
    more = len(both.focus.engine.encode(words)) + block * len(first.turns)
    assert computed(first) <= computed(last) + more
    assert [encoder_runs(result) for result in (first, last)] == [len(first.turns) - 1, len(last.turns) - 1]


def computed(result: FocusResult) -> int:
    return sum(turn.computed_tokens for turn in result.turns.values())


def encoder_runs(result: FocusResult) -> int:
    return sum(turn.encoder_runs or 0 for turn in result.turns.values())
