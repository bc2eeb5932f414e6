"""GroundingDINO in its process, on a tiny model with random weights."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch
from dualfocus_engine import Box, ConfigError
from dualfocus_engine.grounders import detector
from dualfocus_engine.grounders.grounding_dino import GroundingDino
from dualfocus_engine.grounders.phrases import caption_of
from PIL import Image

from ..fake_engine import WAIT
from .tiny_detector import TEXT_LENGTH, write_tiny_detector

# Two processes that import torch and transformers: 20 s on a machine with nothing else to do.
pytestmark = pytest.mark.slow

PICTURES = [Image.new("RGB", (300, 200), (200, 30, 30)), Image.radial_gradient("L").convert("RGB").resize((120, 400))]
QUESTION = "What colour is the cup on the table?"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_detector(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="module")
async def grounder(tiny: str) -> AsyncIterator[GroundingDino]:
    async with GroundingDino(tiny) as running:
        yield running


def by_hand(model: str, picture: Image.Image, caption: str) -> Box | None:
    """The union of the boxes of which a token scores more than 0.25, from the model's raw outputs."""
    processor, network = detector._loaded(model, "cpu")
    inputs = processor(images=picture, text=caption, return_tensors="pt")
    with torch.no_grad():
        outputs = network(**inputs)
    kept = outputs.logits[0].sigmoid().max(-1).values > 0.25
    if not kept.any():
        return None
    x, y, width, height = outputs.pred_boxes[0][kept].T
    lefts, tops, rights, bottoms = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    corners = (lefts.min(), tops.min(), rights.max(), bottoms.max())
    return Box(*(corner.clamp(0, 1).item() for corner in corners))


@pytest.mark.parametrize("picture", PICTURES)
async def test_the_process_gives_what_the_raw_outputs_say(
    tiny: str, grounder: GroundingDino, picture: Image.Image
) -> None:
    async with asyncio.timeout(WAIT):
        box = await grounder.locate(picture, QUESTION)
    expected = by_hand(tiny, picture, "cup. table.")
    assert box is not None
    assert expected is not None
    assert box.as_tuple() == pytest.approx(expected.as_tuple(), abs=1e-4)


async def test_many_at_once_are_each_answered(tiny: str, grounder: GroundingDino) -> None:
    async with asyncio.timeout(WAIT):
        boxes = await asyncio.gather(*(grounder.locate(picture, QUESTION) for picture in PICTURES * 4))
    assert boxes == boxes[:2] * 4
    assert boxes[0] != boxes[1]


async def test_a_cancelled_call_leaves_the_next_its_own_answer(grounder: GroundingDino) -> None:
    async with asyncio.timeout(WAIT):
        wanted = await grounder.locate(PICTURES[1], QUESTION)
        call = asyncio.create_task(grounder.locate(PICTURES[0], QUESTION))
        await asyncio.sleep(0)
        call.cancel()
        assert await grounder.locate(PICTURES[1], QUESTION) == wanted
        assert call.cancelled()


def test_where_nothing_is_found_there_is_no_box(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "_THRESHOLD", 1.0)
    assert detector.locate(tiny, "cpu", PICTURES[0], "cup.") is None


def test_a_long_question_is_cut_to_what_the_model_reads(tiny: str) -> None:
    caption = caption_of("zebra " * TEXT_LENGTH)
    assert detector.locate(tiny, "cpu", PICTURES[0], caption) is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_that_all_are_sent_are_the_servers(grounder: GroundingDino, number: signal.Signals) -> None:
    async with asyncio.timeout(WAIT):
        wanted = await grounder.locate(PICTURES[1], QUESTION)
        (process,) = grounder._process._processes
        os.kill(process, number)
        assert await grounder.locate(PICTURES[1], QUESTION) == wanted
        assert [process] == list(grounder._process._processes)


async def test_a_process_that_dies_fails_one_question_and_is_started_again(grounder: GroundingDino) -> None:
    async with asyncio.timeout(WAIT):
        wanted = await grounder.locate(PICTURES[0], QUESTION)
        (process,) = grounder._process._processes
        os.kill(process, signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            await grounder.locate(PICTURES[0], QUESTION)
        assert await grounder.locate(PICTURES[0], QUESTION) == wanted


async def test_a_model_that_can_not_be_loaded_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--grounder grounding-dino: .* can't be loaded on cpu"):
        async with GroundingDino(str(tmp_path)):
            raise AssertionError("unreachable")
