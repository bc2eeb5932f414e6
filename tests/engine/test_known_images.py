"""The second question about an image: what is not done again, counted where it would be done."""

import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from dualfocus_engine import DualFocus, FocusResult, Mode
from dualfocus_engine.method.questions import Message
from dualfocus_engine.pictures import picture_cache
from dualfocus_engine.pictures.pictures import Picture
from PIL import Image, ImageFile
from vllm.multimodal.processing import BaseMultiModalProcessor

Photo = Callable[[str], Image.Image]
IMAGE_TOKENS = 64


class Work:
    """How often pictures were decoded (by Pillow), fitted, and processed by vLLM's image processor."""

    def __init__(self) -> None:
        self.decoded = self.fitted = self.processed = 0

    def lately(self) -> tuple[int, int, int]:
        """Return the counts, and begin anew."""
        counts = (self.decoded, self.fitted, self.processed)
        self.__init__()  # type: ignore[misc]
        return counts


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    done = Work()
    decode, fit, process = (
        ImageFile.ImageFile.load_prepare,
        picture_cache.fit,
        BaseMultiModalProcessor._call_hf_processor,
    )

    def decoding(file: ImageFile.ImageFile) -> None:
        done.decoded += 1
        decode(file)

    def fitting(*given: Any) -> Image.Image:
        done.fitted += 1
        return fit(*given)

    def processing(processor: Any, data: dict[str, Any], kwargs: Any) -> Any:
        done.processed += len(data["images"])
        return process(processor, data, kwargs)

    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", decoding)
    monkeypatch.setattr(picture_cache, "fit", fitting)
    monkeypatch.setattr(BaseMultiModalProcessor, "_call_hf_processor", processing)
    return done


@pytest.fixture
def jpeg(photo: Photo, work: Work) -> Callable[[str], bytes]:
    """A large photo, in a file of its own; what it takes to make it is not counted."""

    def by_name(name: str) -> bytes:
        file = io.BytesIO()
        photo(name).convert("RGB").resize((2400, 1600)).save(file, "JPEG", quality=91)
        work.lately()
        return file.getvalue()

    return by_name


def runs(result: FocusResult) -> int:
    return sum(turn.encoder_runs or 0 for turn in result.turns.values())


def recomputed(focus: DualFocus, result: FocusResult) -> dict[str, int]:
    """How many tokens of whole blocks up to the end of the first image each turn computed."""
    block = focus.engine.llm.vllm_config.cache_config.block_size
    image = focus.engine.llm.model_config.hf_config.image_token_index
    return {
        name: (turn.prompt_token_ids.index(image) + IMAGE_TOKENS) // block * block - turn.cached_tokens
        for name, turn in result.turns.items()
    }


@pytest.mark.parametrize("name", ["coffee", "rocket"])
async def test_the_second_question_does_nothing_again(
    focus: DualFocus, jpeg: Callable[[str], bytes], encoded_images: Callable[[], Awaitable[int]], work: Work, name: str
) -> None:
    image, before = jpeg(name), await encoded_images()
    first = await focus.ask(image, f"What stands beside the {name}?")
    assert work.lately() == (1, 2, 2), "decoded once; fitted and processed, the picture and its crop"
    assert (await encoded_images() - before, runs(first)) == (2, 2)

    second = await focus.ask(bytes(bytearray(image)), f"Is anything written on the {name}?")
    assert second.look.crop_box != first.look.crop_box, "the second question has to look elsewhere, or nothing is new"
    assert work.lately() == (0, 1, 1), "only the new crop was fitted and processed"
    assert (await encoded_images() - before, runs(second)) == (3, 1)
    assert max(recomputed(focus, second).values()) <= 0
    assert max(recomputed(focus, first).values()) > 0, "counted wrong: the first question had to compute the image"

    again = await focus.ask(image, f"Is anything written on the {name}?")
    assert again.look.crop_box == second.look.crop_box
    assert work.lately() == (0, 0, 0)
    assert (await encoded_images() - before, runs(again)) == (3, 0)


async def test_a_crop_of_a_large_jpeg_takes_no_further_decoding(
    focus: DualFocus, jpeg: Callable[[str], bytes], work: Work
) -> None:
    image = jpeg("chelsea")
    await focus.ask(image, "What animal is it?", Mode.MACRO)
    assert work.lately() == (1, 1, 1)
    micro = await focus.ask(image, "What animal is it?", Mode.MICRO)
    assert work.lately() == (0, 1, 1), "the crop"
    assert runs(micro) == 1


async def test_a_known_picture_beyond_those_that_vllm_keeps_is_processed_again_and_no_more(
    focus: DualFocus, jpeg: Callable[[str], bytes], encoded_images: Callable[[], Awaitable[int]], work: Work
) -> None:
    """What a small --mm-processor-cache-gb costs."""
    image = jpeg("moon")
    await focus.ask(image, "What is it?", Mode.MACRO)
    assert work.lately() == (1, 1, 1)
    before = await encoded_images()
    focus.engine.llm.renderer.mm_processor_cache.invalidate(focus.engine.pictures.open(image).key)
    again = await focus.ask(image, "What is it?", Mode.MACRO)
    assert work.lately() == (0, 0, 1)
    assert (await encoded_images() - before, runs(again)) == (0, 0)
    assert max(recomputed(focus, again).values()) <= 0


async def test_a_picture_that_vllm_lets_go_of_is_given_to_it_again(
    focus: DualFocus, jpeg: Callable[[str], bytes], work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(picture: Picture) -> None:
        """What was known when it was looked at, and no longer is."""

    image = jpeg("camera")
    with monkeypatch.context() as patched:
        patched.setattr(focus.engine, "encoder_input", none)
        assert runs(await focus.ask(image, "Who is it?", Mode.MACRO)) == 1
    assert work.lately() == (1, 1, 1)


async def test_a_picture_that_vllm_only_takes_for_sent_is_sent(
    focus: DualFocus, jpeg: Callable[[str], bytes], work: Work
) -> None:
    image = jpeg("page")
    picture = focus.engine.pictures.open(image)
    prompt = await focus.engine.prompt([Message("user", "What is it?", (picture,))])
    await focus.engine.engine_input(prompt)  # and goes nowhere
    assert runs(await focus.ask(image, "What is it?", Mode.MACRO)) == 1
    assert work.lately() == (1, 1, 2)
