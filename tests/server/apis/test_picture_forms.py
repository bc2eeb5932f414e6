"""Pictures in vLLM's other forms: processed as the client says, and named by a uuid, or as embeddings."""

import base64
import io
import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch
from asking import CHAT, lend
from hostile_images import data_url, saved
from PIL import Image
from running_server import PATIENCE, Server, start_server

KEYS = ("one-tenant", "another-tenant")
_SHADES = itertools.count(1)


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the model that ships, with keys, that trusts its clients."""
    flags = ("--dtype", "float32", "--trust-request-mm-kwargs", "--enable-mm-embeds", "--api-key", *KEYS)
    running = start_server(tmp_path_factory.mktemp("forms") / "log", *flags, model=())
    yield from lend(running)


@pytest.fixture(scope="module")
def web(trusting: Server) -> Iterator[httpx.Client]:
    """A plain client of it, with the first key."""
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    with httpx.Client(base_url=trusting.url, timeout=PATIENCE, headers=headers) as http:
        yield http


def fresh() -> bytes:
    """An image that nobody has asked about."""
    image = Image.new("RGB", (300, 200), "white")
    image.paste((next(_SHADES), 30, 40), (50, 50, 120, 120))
    return saved(image, "PNG")


def image(data: bytes | None, uuid: str | None = None) -> dict[str, Any]:
    """An image's part, sent or only named."""
    sent = None if data is None else {"url": data_url(data)}
    return {"type": "image_url", "image_url": sent} | ({} if uuid is None else {"uuid": uuid})


def about(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A question about what some parts show; its second look needs no box of the model's."""
    words = {"type": "text", "text": "What colour is the square?"}
    focus = {"box": [0.1, 0.1, 0.6, 0.6], "image": 0} | fields.pop("dualfocus", {})
    message = {"role": "user", "content": [*parts, words]}
    return {"messages": [message], "max_tokens": 8, "temperature": 0, "dualfocus": focus} | fields


def ask(web: httpx.Client, *parts: dict[str, Any], key: str = KEYS[0], **fields: Any) -> dict[str, Any]:
    """Ask it."""
    response = web.post(CHAT, json=about(*parts, **fields), headers={"Authorization": f"Bearer {key}"})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def runs(answer: dict[str, Any]) -> int:
    """The encoder runs of all turns of an answer."""
    return sum(turn["encoder_runs"] for turn in answer["dualfocus"]["turns"].values())


def test_what_the_processor_is_told_holds_for_both_looks_and_keeps_caches_apart(web: httpx.Client) -> None:
    data = fresh()
    told = ({}, {"do_rescale": False}, {"do_normalize": False}, {}, {"do_rescale": False}, {"do_normalize": False})
    answers = [ask(web, image(data), mm_processor_kwargs=kwargs) for kwargs in told]
    assert [runs(answer) for answer in answers] == [2, 2, 2, 0, 0, 0]
    for turn in ("macro", "micro"):
        perplexities = [answer["dualfocus"][turn]["perplexity"] for answer in answers[:3]]
        assert len(set(perplexities)) == 3
        off = ask(web, image(data), mm_processor_kwargs=told[1], dualfocus={"mode": "off"})
        assert answers[1]["dualfocus"]["macro"]["text"] == off["choices"][0]["message"]["content"]


@pytest.mark.parametrize("kwargs", [{"do_rescale": "{"}, {"size": "big"}, {"image_mean": "x"}, {"resample": "?"}])
def test_what_the_processor_can_not_be_told_is_a_400_and_the_engine_lives(web: httpx.Client, kwargs: Any) -> None:
    one_look = {"mode": "off"}
    asked = [about(image(fresh()), mm_processor_kwargs=kwargs, dualfocus=focus) for focus in ({}, one_look)]
    ours, vllms = [web.post(CHAT, json=body) for body in asked]
    assert (ours.status_code, vllms.status_code) == (400, 400)
    assert ours.json()["error"]["message"].startswith("mm_processor_kwargs can't be used: ")
    assert ours.json()["error"]["param"] == "mm_processor_kwargs"
    assert runs(ask(web, image(fresh()))) == 2


@pytest.mark.parametrize("mode", ["dual", "off"])
def test_an_image_of_a_refused_question_can_be_asked_about_by_what_the_processor_was_told(
    web: httpx.Client, mode: str
) -> None:
    """vLLM takes it for sent to its engine, which it was not, under another key than without."""
    told = {"mm_processor_kwargs": {"do_rescale": False}, "dualfocus": {"mode": mode}}
    asked = image(fresh())
    refused = web.post(CHAT, json=about(asked, **told, logit_bias={"99999": 1}))
    assert refused.status_code == 400
    assert ask(web, asked, **told)["usage"]["completion_tokens"] > 0


def test_a_picture_is_named_by_its_uuid_once_it_was_sent(web: httpx.Client) -> None:
    sent = ask(web, image(fresh(), "sign"))
    named = ask(web, image(None, "sign"))
    assert (runs(sent), runs(named)) == (2, 0)
    assert named["dualfocus"]["macro"]["perplexity"] == pytest.approx(sent["dualfocus"]["macro"]["perplexity"])
    assert named["dualfocus"]["crop"] == sent["dualfocus"]["crop"]


@pytest.mark.parametrize("modes", [("off", "off"), ("off", "dual"), ("dual", "off")])
def test_one_is_named_whichever_way_the_requests_are_answered(web: httpx.Client, modes: tuple[str, str]) -> None:
    data, uuid = fresh(), "-".join(modes)
    texts = []
    for part, mode in zip((image(data, uuid), image(None, uuid), image(data)), (*modes, modes[1]), strict=True):
        answer = ask(web, part, dualfocus={"mode": mode})
        texts.append(answer["choices"][0]["message"]["content"])
    assert texts[1] == texts[2]


def test_the_picture_sent_last_is_meant(web: httpx.Client) -> None:
    first, second = fresh(), fresh()
    for data in (first, second):
        ask(web, image(data, "again"))
    assert runs(ask(web, image(second))) == 0
    perplexities = [
        ask(web, part)["dualfocus"]["macro"]["perplexity"] for part in (image(None, "again"), image(second))
    ]
    assert perplexities[0] == pytest.approx(perplexities[1], rel=1e-3)


@pytest.mark.parametrize("mode", ["dual", "off"])
@pytest.mark.parametrize("stranger", [{"key": KEYS[1]}, {"cache_salt": "salt"}, {"uuid": "nobody's"}])
def test_a_name_is_its_keys_and_its_salts_alone(web: httpx.Client, stranger: dict[str, Any], mode: str) -> None:
    ask(web, image(fresh(), "mine"))
    key, uuid = stranger.get("key", KEYS[0]), stranger.get("uuid", "mine")
    salt = {"cache_salt": stranger["cache_salt"]} if "cache_salt" in stranger else {}
    body = about(image(None, uuid), dualfocus={"mode": mode}, **salt)
    refused = web.post(CHAT, json=body, headers={"Authorization": f"Bearer {key}"})
    assert refused.status_code == 400
    assert repr(uuid) in refused.json()["error"]["message"]
    assert ask(web, image(None, "mine"), dualfocus={"mode": mode})["choices"]


def test_a_name_under_a_salt_shares_no_encoder_output_with_another(web: httpx.Client) -> None:
    data = fresh()
    salts: list[dict[str, Any]] = [{"cache_salt": "a"}, {"cache_salt": "b"}]
    assert [runs(ask(web, image(data, "salted"), **salt)) for salt in salts] == [2, 2]
    assert [runs(ask(web, image(None, "salted"), **salt)) for salt in salts] == [0, 0]


def test_vllm_is_never_given_a_clients_name_as_its_key(web: httpx.Client) -> None:
    """In vLLM one that guesses a uuid is shown the picture of whoever sent it."""
    ask(web, image(fresh(), "guessed"), dualfocus={"mode": "off"})
    ask(web, image(fresh(), "guessed"), key=KEYS[1], dualfocus={"mode": "off"})
    mine, theirs = [ask(web, image(None, "guessed"), key=key)["dualfocus"]["macro"] for key in KEYS]
    assert mine["perplexity"] != theirs["perplexity"]


def test_each_conversation_of_a_batch_may_name_one(web: httpx.Client) -> None:
    sent = ask(web, image(fresh(), "batched"))
    fields = about(image(None, "batched"))
    batch = fields | {"messages": [fields["messages"]] * 2}
    answered = web.post(f"{CHAT}/batch", json=batch)
    assert answered.status_code == 200, answered.text
    for choice in answered.json()["choices"]:
        assert choice["dualfocus"]["crop"] == sent["dualfocus"]["crop"]
        assert sum(turn["encoder_runs"] for turn in choice["dualfocus"]["turns"].values()) == 0


def test_a_named_one_is_tokenized_too(web: httpx.Client) -> None:
    data = fresh()
    ask(web, image(data, "counted"))
    counts = [
        web.post("/tokenize", json={"messages": about(part)["messages"]})
        for part in (image(None, "counted"), image(data))
    ]
    assert counts[0].json()["count"] == counts[1].json()["count"]


# Of the model that ships.
TOKENS, SIZE = 64, 192


def embeddings(tensor: torch.Tensor) -> dict[str, Any]:
    """A part with a tensor as `torch.save` writes it."""
    file = io.BytesIO()
    torch.save(tensor, file)
    return {"type": "image_embeds", "image_embeds": base64.b64encode(file.getvalue()).decode()}


def test_embeddings_are_vllms_and_say_so(web: httpx.Client) -> None:
    answers = [ask(web, embeddings(torch.full((TOKENS, SIZE), fill))) for fill in (0.0, 0.5)]
    assert [answer["dualfocus"] for answer in answers] == [{"mode": "off", "because": "image_embeds"}] * 2
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert texts[0] != texts[1]
    counted = web.post("/tokenize", json={"messages": about(embeddings(torch.zeros(TOKENS, SIZE)))["messages"]})
    pictured = web.post("/tokenize", json={"messages": about(image(fresh()))["messages"]})
    assert counted.json()["count"] == pictured.json()["count"]


HOSTILE = {
    "not base64": {"type": "image_embeds", "image_embeds": "%%%"},
    "of another size": embeddings(torch.zeros(TOKENS, SIZE + 1)),
    "integers": embeddings(torch.zeros(TOKENS, SIZE, dtype=torch.int64)),
    "sparse": embeddings(torch.zeros(TOKENS, SIZE).to_sparse()),
    "one number for all": embeddings(torch.zeros(1, 1).expand(10**9, SIZE)),
    "a picture": embeddings(torch.zeros(1, 3, 64, 64)),
    "longer than the context": embeddings(torch.zeros(5000, SIZE)),
    "another family's": {"type": "image_embeds", "image_embeds": {"image_embeds": "AA==", "pixel_values": "AA=="}},
}


@pytest.mark.parametrize("part", HOSTILE.values(), ids=HOSTILE)
def test_hostile_embeddings_are_a_400_and_the_engine_lives(web: httpx.Client, part: dict[str, Any]) -> None:
    for body in (about(part), about(part, dualfocus={"mode": "off"})):
        assert web.post(CHAT, json=body).status_code == 400
    assert ask(web, embeddings(torch.zeros(TOKENS, SIZE)))["choices"]


def test_embeddings_of_a_prompt_that_was_refused_are_taken_in_the_next(web: httpx.Client) -> None:
    part = embeddings(torch.full((TOKENS, SIZE), 0.25).T.contiguous().T)
    long = {"type": "text", "text": "What? " * 3000}
    assert web.post(CHAT, json=about(part, long)).status_code == 400
    assert ask(web, part)["choices"]


def test_embeddings_beside_a_picture_are_refused_by_vllm(web: httpx.Client) -> None:
    refused = web.post(CHAT, json=about(image(fresh()), embeddings(torch.zeros(TOKENS, SIZE))))
    assert refused.status_code == 400
    assert "Mixing raw image and embedding inputs" in refused.json()["error"]["message"]
