"""GroundingDINO itself, in the process that it has to itself.

Leans on transformers' `GroundingDinoProcessor.post_process_grounded_object_detection`.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from PIL import Image

from dualfocus_engine.families.boxes import Box

# The thresholds of transformers; the paper names none.
_THRESHOLD = 0.25


def end_with_parent() -> None:
    """Let this process end when the server does, however that ends; signals that all are sent are the server's."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_after, args=(parent.join,), daemon=True).start()


def _end_after(wait: Callable[[], None]) -> None:
    wait()
    os._exit(0)


def load(model: str, device: str) -> None:
    """Load a model, so that the first question need not wait for it. Raises what transformers and torch do."""
    _loaded(model, device)


def locate(model: str, device: str, picture: Image.Image, caption: str) -> Box | None:
    """Return what holds all that the caption's phrases name in a picture; None where nothing of it is found."""
    import torch

    processor, detector = _loaded(model, device)
    length = {"truncation": True, "max_length": detector.config.max_text_len}
    inputs = processor(images=picture, text=caption, return_tensors="pt", **length).to(device)
    with torch.inference_mode():
        outputs = detector(**inputs)
    (found,) = processor.post_process_grounded_object_detection(
        outputs, inputs["input_ids"], threshold=_THRESHOLD, text_threshold=_THRESHOLD
    )
    return union(found["boxes"].tolist())


def union(boxes: list[list[float]]) -> Box | None:
    """Return what holds all boxes, clipped to the picture: the paper's sub-region "includes all relevant objects"."""
    if not boxes:
        return None
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return Box(max(min(lefts), 0.0), max(min(tops), 0.0), min(max(rights), 1.0), min(max(bottoms), 1.0))


@cache
def _loaded(model: str, device: str) -> tuple[Any, Any]:
    from transformers import AutoProcessor, GroundingDinoForObjectDetection

    processor = AutoProcessor.from_pretrained(model)
    # Plain PyTorch: the kernel of its own would be fetched and compiled.
    detector = GroundingDinoForObjectDetection.from_pretrained(model, disable_custom_kernels=True)
    return processor, detector.to(device).eval()
