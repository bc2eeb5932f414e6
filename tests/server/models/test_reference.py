"""The perplexities the server reports, against `transformers` alone: another renderer, another model code."""

import io
import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import httpx
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from transformers import AutoProcessor, LlavaForConditionalGeneration

QUESTIONS = ["What is in the picture?", "What colour is the largest thing?", "How many people are there?"]
PHOTOS = ["astronaut", "chelsea", "coffee", "camera", "rocket", "china.jpg", "flower.jpg"]
Q1 = "Provide the coordinates of the region this question is asking about: "
Q2 = "Combine these two images and answer the question: "


class Reference:
    """The same checkpoint, run by transformers: one forward pass a score, no cache."""

    def __init__(self, checkpoint: str) -> None:
        self._model = LlavaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self._processor = AutoProcessor.from_pretrained(checkpoint)

    @torch.inference_mode()
    def perplexity(self, text: str, images: Sequence[Image.Image], answer: Sequence[int]) -> float:
        inputs = self._processor(text=text, images=list(images), return_tensors="pt", add_special_tokens=False)
        tokens = torch.cat([inputs["input_ids"], torch.tensor([answer])], dim=1)
        logits = self._model(input_ids=tokens, pixel_values=inputs["pixel_values"]).logits
        scores = logits[0, -len(answer) - 1 : -1].log_softmax(-1)
        return math.exp(-scores[range(len(answer)), list(answer)].mean().item())


@pytest.fixture(scope="module")
def reference(http: httpx.Client) -> Reference:
    return Reference(http.get("/v1/models").json()["data"][0]["root"])


@pytest.fixture(scope="module")
def picture(photo: Callable[[str], Image.Image]) -> Callable[[str], Image.Image]:
    def by_name(name: str) -> Image.Image:
        source = Image.fromarray(load_sample_image(name)) if "." in name else photo(name)
        return source.convert("RGB")

    return by_name


def answered(
    http: httpx.Client, image: Image.Image, text: str, mode: str, sampling: dict[str, Any]
) -> tuple[dict[str, Any], list[int]]:
    """Ask in one mode; return the `dualfocus` field and the tokens of the answer."""
    import base64

    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    body = {
        "messages": [{"role": "user", "content": content}],
        "dualfocus": {"mode": mode},
        "logprobs": True,
        "return_tokens_as_token_ids": True,
    }
    answer = http.post("/v1/chat/completions", json=body | sampling).json()
    tokens = [int(t["token"].removeprefix("token_id:")) for t in answer["choices"][0]["logprobs"]["content"]]
    return answer["dualfocus"], tokens


# What an answer is drawn with does not change what the model thinks of it.
DRAWN = {"temperature": 1.3, "seed": 5, "presence_penalty": 1.5, "logit_bias": {"70": 5.0}, "max_tokens": 40}
ALL = list(product(PHOTOS, QUESTIONS))


@pytest.mark.parametrize(
    ("name", "text", "sampling"),
    [*((*asked, {}) for asked in ALL[:20]), *((*asked, DRAWN) for asked in ALL[::5])],
)
def test_perplexities_equal_those_of_transformers(
    http: httpx.Client, reference: Reference, picture: Callable[[str], Image.Image], name: str, text: str, sampling: Any
) -> None:
    image = picture(name)
    macro, macro_tokens = answered(http, image, text, "macro", sampling)
    expected = reference.perplexity(f"USER: <image>\n{text} ASSISTANT: ", [image], macro_tokens)
    assert macro["macro"]["perplexity"] == pytest.approx(expected, rel=1e-2)

    micro, micro_tokens = answered(http, image, text, "micro", sampling)
    box = "[{:.2f}, {:.2f}, {:.2f}, {:.2f}]".format(*micro["box"])
    conversation = f"USER: <image>\n{Q1}{text} ASSISTANT: {box}</s>USER: <image>\n{Q2}{text} ASSISTANT: "
    expected = reference.perplexity(conversation, [image, image.crop(micro["crop"])], micro_tokens)
    assert micro["micro"]["perplexity"] == pytest.approx(expected, rel=1e-2)
