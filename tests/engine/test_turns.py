"""The turns on the real engine: what is shared, what is computed, what is counted."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from dualfocus_engine import Box, ContextFull, DualFocus, Focused, Mode, Question, Selection, load_profile
from dualfocus_engine.vllm_engine import VllmEngine
from PIL import Image
from vllm import SamplingParams

Photo = Callable[[str], Image.Image]
IMAGE_TOKENS = 64


def block_size(focus: DualFocus) -> int:
    return int(focus.engine.llm.vllm_config.cache_config.block_size)


def whole_blocks(focus: DualFocus, tokens: int) -> int:
    return tokens // block_size(focus) * block_size(focus)


async def test_a_dual_question_holds_both_answers_and_how_they_were_found(focus: DualFocus, photo: Photo) -> None:
    result = await focus.ask(photo("astronaut"), "What is on the badge?")
    assert set(result.turns) == {"macro", "grounding", "micro"}
    assert result.selection is Selection.LOWER_PERPLEXITY
    losses = {"macro": result.turns["macro"].loss, "micro": result.turns["micro"].loss}
    assert result.winner == min(losses, key=lambda name: losses[name])
    assert result.text == result.turns[result.winner].text
    box, region = result.look.box, result.look.region
    assert box is not None
    assert region is not None
    assert 0 <= box.x1 < box.x2 <= 1
    assert region.left <= box.x1 * 512
    assert region.right >= min(box.x2 * 512, 511)


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


async def test_the_encoder_runs_twice_on_a_fresh_image_and_once_on_a_known_one(
    focus: DualFocus, photo: Photo, encoded_images: Callable[[], Awaitable[int]]
) -> None:
    fresh = photo("camera").rotate(90)
    before = await encoded_images()
    first = await focus.ask(fresh, "What is the man holding?")
    after_first = await encoded_images()
    second = await focus.ask(fresh, "Is there a building in the background?")
    after_second = await encoded_images()
    assert first.look.region != second.look.region, "the second question has to look elsewhere, or nothing is new"
    assert after_first - before == runs(first) == 2
    assert after_second - after_first == runs(second) == 1


def runs(result: Focused) -> int:
    return sum(turn.encoder_runs or 0 for turn in result.turns.values())


async def test_micro_does_not_wait_for_macro(focus: DualFocus, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    generate = focus.engine.generate

    async def noted(name: str, *args: object, **named: object) -> object:
        events.append(f"{name} begins")
        turn = await generate(name, *args, **named)  # type: ignore[arg-type]
        events.append(f"{name} ends")
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
        losses = [result.turns[name].loss for result in together]
        assert losses == pytest.approx([result.turns[name].loss for result in alone], rel=1e-2)


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
    assert result.look.region is not None


async def test_a_question_that_does_not_fit_is_refused_with_both_lengths(focus: DualFocus, photo: Photo) -> None:
    with pytest.raises(ContextFull, match=r"\d{4} tokens long.*2048"):
        await focus.ask(photo("astronaut"), "why " * 600)


@pytest.fixture
def ungrammatical(focus: DualFocus) -> DualFocus:
    """The same engine with the released checkpoints' profile: the untrained model writes its boxes freely."""
    other = DualFocus(focus.model, "llava-dualfocus")
    other._engine = VllmEngine(focus.engine.llm, other.profile)
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
    assert asked["macro"] == f"{system} USER: {image}\n{text} ASSISTANT:"
    assert asked["grounding"] == (
        f"{system} USER: {image}\nPlease provide the bounding box coordinate of the region this question asks: "
        "What colour is it? ASSISTANT:"
    )
