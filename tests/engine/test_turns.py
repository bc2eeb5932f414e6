"""The turns on the real engine: what is shared, what is computed, what is counted."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from dualfocus_engine import Box, ContextFull, DualFocus, FocusResult, Mode, Question, Selection, load_profile
from dualfocus_engine.backend.heartbeat import Heartbeat
from dualfocus_engine.backend.vllm_engine import VllmEngine
from dualfocus_engine.method.prompts import TurnOptions
from dualfocus_engine.method.questions import Message
from dualfocus_engine.method.turn_engine import TurnRequest
from PIL import Image
from tokenizers.processors import TemplateProcessing
from vllm import SamplingParams
from vllm.renderers.hf import HfRenderer
from vllm.tokenizers import get_tokenizer

Photo = Callable[[str], Image.Image]
IMAGE_TOKENS = 64
# Both answers are cut alike: one that is whole would win over one that is not.
CUT = SamplingParams(temperature=0, max_tokens=32, ignore_eos=True)


def block_size(focus: DualFocus) -> int:
    return int(focus.engine.llm.vllm_config.cache_config.block_size)


def whole_blocks(focus: DualFocus, tokens: int) -> int:
    return tokens // block_size(focus) * block_size(focus)


async def test_a_dual_question_holds_both_answers_and_how_they_were_found(focus: DualFocus, photo: Photo) -> None:
    result = await focus.answer(replace(Question.about(photo("astronaut"), "What is on the badge?"), sampling=CUT))
    assert set(result.turns) == {"macro", "grounding", "micro"}
    assert result.selection is Selection.LOWER_PERPLEXITY
    losses = {"macro": result.turns["macro"].mean_nll, "micro": result.turns["micro"].mean_nll}
    assert result.winner == min(losses, key=lambda name: losses[name])
    assert result.text == result.turns[result.winner].text
    box, crop_box = result.look.box, result.look.crop_box
    assert box is not None
    assert crop_box is not None
    assert 0 <= box.x1 < box.x2 <= 1
    assert crop_box.left <= box.x1 * 512
    assert crop_box.right >= min(box.x2 * 512, 511)


async def test_perplexity_is_that_of_the_generated_tokens(focus: DualFocus, photo: Photo) -> None:
    macro = (await focus.ask(photo("astronaut"), "Who?", Mode.MACRO)).turns["macro"]
    assert len(macro.logprobs) == macro.completion_tokens
    assert macro.perplexity == pytest.approx(math.exp(-sum(macro.logprobs) / len(macro.logprobs)))


async def test_the_micro_prompt_is_the_grounding_turn_token_for_token(focus: DualFocus, photo: Photo) -> None:
    turns = (await focus.ask(photo("coffee"), "What is in the cup?")).turns
    grounding, micro = turns["grounding"], turns["micro"]
    assert grounding.finish_reason == "stop"
    continued = grounding.prompt_token_ids + grounding.token_ids
    assert micro.prompt_token_ids[: len(continued)] == continued
    rest = focus.engine.llm.renderer.get_tokenizer().decode(micro.prompt_token_ids[len(continued) :])
    assert rest.startswith("USER: ")
    assert rest.endswith("Combine these two images and answer the question: What is in the cup? ASSISTANT: ")


async def test_the_micro_turn_takes_the_grounding_turn_from_the_cache(focus: DualFocus, photo: Photo) -> None:
    turns = (await focus.ask(photo("rocket"), "What is being launched?")).turns
    assert turns["micro"].cached_tokens >= whole_blocks(focus, turns["grounding"].prompt_tokens)


async def test_macro_and_grounding_share_the_image(focus: DualFocus, photo: Photo) -> None:
    turns = (await focus.ask(photo("chelsea"), "What animal is it?")).turns
    assert max(turns["macro"].cached_tokens, turns["grounding"].cached_tokens) >= whole_blocks(focus, IMAGE_TOKENS)
    assert turns["macro"].encoder_runs + turns["grounding"].encoder_runs == 1


async def test_macro_and_grounding_share_steps(focus: DualFocus, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[int] = []

    def record(logger: object, scheduler_stats: Any, *stats: object, **more: object) -> None:
        if scheduler_stats is not None:
            running.append(scheduler_stats.num_running_reqs)

    monkeypatch.setattr("dualfocus_engine.backend.heartbeat._HeartbeatLogger.record", record)
    sampling = SamplingParams(temperature=0, max_tokens=100, ignore_eos=True)
    question = replace(Question.about(photo("coffee"), "What is on the saucer?"), sampling=sampling)
    turns = (await focus.answer(question)).turns
    assert max(running) == 2
    # Each generated token takes a step; turn by turn there would be as many steps as tokens.
    assert len(running) < sum(turn.completion_tokens for turn in turns.values())


async def test_the_encoder_runs_twice_on_a_fresh_image_and_once_on_a_known_one(
    focus: DualFocus, photo: Photo, encoded_images: Callable[[], Awaitable[int]]
) -> None:
    fresh = photo("camera").rotate(90)
    before = await encoded_images()
    first = await focus.ask(fresh, "What is the man holding?")
    after_first = await encoded_images()
    second = await focus.ask(fresh, "Is there a building in the background?")
    after_second = await encoded_images()
    assert first.look.crop_box != second.look.crop_box, "the second question has to look elsewhere, or nothing is new"
    assert after_first - before == runs(first) == 2
    assert after_second - after_first == runs(second) == 1


def runs(result: FocusResult) -> int:
    return sum(turn.encoder_runs or 0 for turn in result.turns.values())


async def test_micro_does_not_wait_for_macro(focus: DualFocus, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    generate = focus.engine.generate

    async def noted(request: TurnRequest) -> object:
        events.append(f"{request.name} begins")
        turn = await generate(request)
        events.append(f"{request.name} ends")
        return turn

    monkeypatch.setattr(focus.engine, "generate", noted)
    sampling = SamplingParams(temperature=0, max_tokens=300, ignore_eos=True)
    question = replace(Question.about(photo("astronaut"), "Describe it at length."), sampling=sampling)
    await focus.answer(question)
    assert set(events[:2]) == {"grounding begins", "macro begins"}
    assert events.index("micro begins") < events.index("macro ends")


async def test_questions_asked_at_once_are_answered_as_if_alone(focus: DualFocus, photo: Photo) -> None:
    names = ["astronaut", "chelsea", "coffee", "camera", "rocket", "astronaut"]
    questions = [Question.about(photo(name), f"What is number {i}?") for i, name in enumerate(names)]
    alone = [await focus.answer(question) for question in questions]
    together = await focus.ask_many(questions)
    # Sums in another order may tip a near tie between two tokens; the answers are as good then.
    for name in ("macro", "micro"):
        losses = [result.turns[name].mean_nll for result in together]
        assert losses == pytest.approx([result.turns[name].mean_nll for result in alone], rel=1e-2)


async def test_cancelling_a_question_aborts_its_turns(focus: DualFocus, photo: Photo) -> None:
    sampling = SamplingParams(temperature=0, max_tokens=1500, ignore_eos=True)
    question = replace(Question.about(photo("coffee"), "Tell a story."), sampling=sampling)
    task = asyncio.create_task(focus.answer(question))
    async with asyncio.timeout(60):
        while focus.engine.unfinished < 2:  # noqa: ASYNC110 (it is no event)
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert focus.engine.unfinished == 0


async def test_a_box_of_the_clients_needs_no_grounding_turn(focus: DualFocus, photo: Photo) -> None:
    box = Box(0.25, 0.25, 0.5, 0.75)
    result = await focus.answer(replace(Question.about(photo("astronaut"), "What is this?"), box=box))
    assert set(result.turns) == {"macro", "micro"}
    assert result.look.box == box
    text = focus.engine.llm.renderer.get_tokenizer().decode(result.turns["micro"].prompt_token_ids)
    assert "ASSISTANT: [0.25, 0.25, 0.50, 0.75]</s>USER: " in text


@pytest.mark.parametrize(("mode", "turns"), [(Mode.MACRO, {"macro"}), (Mode.MICRO, {"grounding", "micro"})])
async def test_modes_run_only_their_turns(focus: DualFocus, photo: Photo, mode: Mode, turns: set[str]) -> None:
    result = await focus.ask(photo("astronaut"), "What is this?", mode)
    assert set(result.turns) == turns
    assert result.winner == mode.value
    assert result.selection is Selection.ONLY_ANSWER


async def test_a_micro_turn_that_does_not_fit_leaves_the_macro_answer(focus: DualFocus, photo: Photo) -> None:
    result = await focus.ask(photo("astronaut"), "why " * 240)
    assert result.winner == "macro"
    assert result.selection is Selection.CONTEXT_FULL
    assert result.look.crop_box is not None


@pytest.mark.parametrize(("max_tokens", "is_cut"), [(None, True), (32, True), (2, False)])
async def test_a_micro_answer_that_the_context_cuts_off_is_not_compared(
    focus: DualFocus, photo: Photo, max_tokens: int | None, is_cut: bool
) -> None:
    short = (await focus.ask(photo("astronaut"), "why?")).turns["micro"]
    # One token a byte, and the question stands in the micro prompt twice: room for 4 or 5 tokens is left.
    text = "why?" + "y" * ((focus.engine.context_length - short.prompt_tokens - 4) // 2)
    sampling = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
    result = await focus.answer(replace(Question.about(photo("astronaut"), text), sampling=sampling))
    micro = result.turns["micro"]
    assert (micro.finish_reason, micro.is_cut) == ("length", is_cut)
    assert micro.completion_tokens in ((4, 5) if is_cut else (2,))
    assert (result.selection is Selection.CONTEXT_FULL) is is_cut
    assert result.winner == "macro" or not is_cut


async def test_a_question_that_does_not_fit_is_refused_with_both_lengths(focus: DualFocus, photo: Photo) -> None:
    with pytest.raises(ContextFull, match=r"\d{4} tokens long.*2048"):
        await focus.ask(photo("astronaut"), "why " * 600)


@pytest.fixture
def ungrammatical(focus: DualFocus) -> DualFocus:
    """The same engine with the released checkpoints' profile: the untrained model writes its boxes freely."""
    other = DualFocus(focus.model, "llava-dualfocus")
    other._engine = VllmEngine(focus.engine.llm, other.profile, Heartbeat())
    return other


async def test_without_a_readable_box_the_macro_answer_stands(ungrammatical: DualFocus, photo: Photo) -> None:
    result = await ungrammatical.ask(photo("astronaut"), "What is on the badge?")
    assert (result.winner, result.selection) == ("macro", Selection.NO_BOX)
    assert set(result.turns) == {"macro", "grounding"}


async def test_the_released_checkpoints_are_asked_in_their_own_words(ungrammatical: DualFocus, photo: Photo) -> None:
    text = "What colour is it?\nAnswer the question using a single word or phrase."
    result = await ungrammatical.ask(photo("astronaut"), text)
    tokenizer = ungrammatical.engine.llm.renderer.get_tokenizer()
    system = load_profile("llava-dualfocus").system
    image = "<image>" * IMAGE_TOKENS
    asked = {name: tokenizer.decode(turn.prompt_token_ids) for name, turn in result.turns.items()}
    assert asked["macro"] == f"<s>{system} USER: {image}\n{text} ASSISTANT:"
    assert asked["grounding"] == (
        f"<s>{system} USER: {image}\nPlease provide the bounding box coordinate of the region this question asks: "
        "What colour is it? ASSISTANT:"
    )


@pytest.mark.parametrize("template", [None, "{{ bos_token }}USER: {{ messages[0]['content'] }} ASSISTANT:"])
async def test_a_prompt_opens_once_whether_the_template_or_the_tokenizer_writes_it(
    focus: DualFocus, template: str | None
) -> None:
    tokenizer = get_tokenizer(focus.model)
    opening = tokenizer.bos_token_id
    # As LLaVA's does; the model to start with has one that adds nothing.
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", opening)])
    running = focus.engine.llm
    config = running.vllm_config
    renderer = HfRenderer(config, tokenizer)
    parts = {"model_config": running.model_config, "vllm_config": config, "input_processor": running.input_processor}
    llm: Any = SimpleNamespace(renderer=renderer, **parts)
    engine = VllmEngine(llm, focus.profile.model_copy(update={"chat_template": template}), Heartbeat())
    prompt = await engine.prompt([Message("user", "What?")])
    assert prompt.token_ids[0] == opening
    assert opening not in prompt.token_ids[1:]
    assert opening not in engine.encode("What?")


async def test_what_a_turn_tells_the_template_goes_before_what_the_profile_does(focus: DualFocus) -> None:
    changes = {"chat_template": "{{ messages[0]['content'] }} {{ mood }}", "chat_template_kwargs": {"mood": "calm"}}
    engine = VllmEngine(focus.engine.llm, focus.profile.model_copy(update=changes), Heartbeat())
    asked = [Message("user", "What?")]
    prompts = [await engine.prompt(asked), await engine.prompt(asked, TurnOptions({"mood": "grim"}))]
    assert [list(prompt.token_ids) for prompt in prompts] == [
        engine.encode(f"What? {mood}") for mood in ("calm", "grim")
    ]
