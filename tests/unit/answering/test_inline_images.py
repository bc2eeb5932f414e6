"""Images of requests that vLLM answers are opened before it sees them."""

import json
from copy import deepcopy
from typing import Any, cast

import pytest
from dualfocus_engine import (
    BadQuestion,
    DualFocusError,
    open_picture,
)
from dualfocus_engine.method.stages import Stages
from dualfocus_server.answering.contents import normalize_message
from dualfocus_server.answering.intake import inlined_images
from dualfocus_server.answering.protocol import FocusRequest
from dualfocus_server.images.hosts import HostRules
from dualfocus_server.images.image_fetcher import ImageFetcher
from dualfocus_server.images.request_images import RequestImages, SentImage
from PIL import Image
from vllm.renderers.chat_utils import _parse_chat_message_content_mm_part as as_vllm_reads

from ..builders import data_url, encoded
from ..local_web import respond, serving
from .test_intake import focus, images, request, text, user


async def inlined(asked: FocusRequest, asker: Any, source: RequestImages) -> None:
    """Open a request's images as vLLM is given them."""
    async with inlined_images(asked, asker, source):
        given = deepcopy(asked.messages)
    asked.messages = given


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("kind", ["image_url", "input_image"])
async def test_image_reaches_vllm_opened_upright_and_under_our_key(kind: str, nested: bool) -> None:
    turned = Image.new("RGB", (40, 30), (255, 0, 0))
    turned.getexif()[0x0112] = 6
    with serving({"/a": respond(body=encoded(turned, exif=turned.getexif()))}) as web:
        source = ImageFetcher(HostRules(["*"], public=lambda address: True))
        url = f"{web.address}/a"
        part = {"type": kind, "image_url": {"url": url} if nested else url, "uuid": "the client's own"}
        asked = request(user(part, text()), dualfocus={"mode": "off"})
        await inlined(asked, focus(), RequestImages(source))
        (picture,) = await RequestImages(source).opened([SentImage(url)], Stages(), open_picture)
        await source.close()
    name, shown = as_vllm_reads(cast("Any", asked.messages)[-1]["content"][0])
    assert name == "image_pil"
    assert shown.size == (30, 40)
    assert picture.key in cast("Any", asked.messages)[-1]["content"][0]["uuid"]


@pytest.mark.parametrize("tokens", [[1, 9, 2], [9]])
async def test_tokens_that_vllm_would_take_for_the_conversation_hold_no_picture(tokens: list[int]) -> None:
    asked = request(user(text()), kv_transfer_params={"prompt_token_ids": tokens})
    with pytest.raises(BadQuestion, match="Token 9 stands for a picture"):
        await inlined(asked, focus(), images())


@pytest.mark.parametrize("tokens", [None, [1, 2], [1, [9]], "9", {"9": 9}])
async def test_what_else_is_sent_as_tokens_is_vllms_to_judge(tokens: Any) -> None:
    asked = request(user(text()), kv_transfer_params={"prompt_token_ids": tokens, "remote_host": "a"})
    await inlined(asked, focus(), images())


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
    try:
        asked = request({"role": role, "content": [written, text()]}, user(text()), stream=True)
        await inlined(asked, focus(), images())
    except (DualFocusError, ValueError):
        return
    assert address not in repr(asked.messages)


NAMED = [
    {"type": "image_url", "image_url": None, "uuid": "sign"},
    {"type": "image_url", "image_url": {"url": None}, "uuid": "sign"},
    {"image_url": None, "uuid": "sign"},
    {"type": "input_image", "image_url": None, "uuid": "sign"},
]


@pytest.mark.parametrize("part", NAMED, ids=repr)
async def test_an_image_sent_before_may_be_named_by_its_uuid(part: dict[str, Any]) -> None:
    picture, bound = encoded(Image.new("RGB", (40, 30))), images().of("client")
    sent = {"type": "image_url", "image_url": {"url": data_url(picture)}, "uuid": "sign"}
    first, then = request(user(sent, text())), request(user(part, text()))
    for asked in (first, then):
        await inlined(asked, focus(), bound)
    shown = [cast("Any", asked.messages)[-1]["content"][0] for asked in (first, then)]
    assert shown[0]["uuid"] == shown[1]["uuid"] != "sign", "vLLM's caches go by our key"
    assert shown[1]["image_pil"].size == (40, 30)


@pytest.mark.parametrize("uuid", ["", "x" * 257, 5, ["x"], {"a": 1}])
def test_a_uuid_is_a_short_string(uuid: Any) -> None:
    with pytest.raises(ValueError, match="uuid must be a string of 1 to 256 characters"):
        normalize_message(user({"type": "image_url", "image_url": None, "uuid": uuid}))


def test_without_a_uuid_an_image_needs_its_url() -> None:
    with pytest.raises(ValueError, match="has no image_url with a url in it"):
        normalize_message(user({"type": "image_url", "image_url": None, "uuid": None}))


async def test_what_stands_for_a_picture_is_words_wherever_a_template_may_write_it() -> None:
    asker: Any = focus()
    asker.engine.in_words = lambda value: json.loads(json.dumps(value).replace("<image>", "< image>"))
    told = {"type": "tool_reference", "name": "<image>"}
    asked = request({"role": "<image>", "content": [{**text(), "from": "<image>"}, told]})
    await inlined(asked, asker, images())
    assert "<image>" not in json.dumps(asked.messages)


async def test_pictures_are_gone_once_vllm_has_answered() -> None:
    asked = request(
        user({"type": "image_url", "image_url": {"url": data_url(encoded(Image.new("RGB", (4, 3))))}}, text())
    )
    async with inlined_images(asked, focus(), images()):
        (part, _) = cast("Any", asked.messages)[-1]["content"]
        assert part["image_pil"].size == (4, 3)
    assert part["image_pil"] is None
