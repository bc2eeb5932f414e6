"""LoRA adapters of the model that ships: each answers by two looks of its own, beside the model and the other one."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml
from asking import CHAT, lend
from dualfocus_engine.families.boxes import Box
from dualfocus_engine.families.choosing import profile_of
from dualfocus_engine.families.profiles import Profile
from dualfocus_engine.shipped import SHIPPED_MODEL
from hostile_images import data_url, saved
from peft import LoraConfig, get_peft_model
from PIL import Image
from running_server import PATIENCE, Server, start_server
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

NAMES = ("trained", "random")
ADMIN = "an-administrators-key"
_PLACES = itertools.count()
_WORDS = "What colour is the square?"
BASE = profile_of(str(SHIPPED_MODEL))
QUESTION = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]


def own_profile() -> Profile:
    """A profile in other words than the model's, with boxes of three digits, closer crops and short answers."""
    profile = BASE.model_dump(mode="json")
    box_format = profile["box_format"]
    box_format["template"] = box_format["template"].replace(".2f", ".3f")
    box_format["pattern"] = [pattern.replace(r"\.\d\d", r"\.\d{3}") for pattern in box_format["pattern"]]
    profile["crop"] |= {"margin": 5}
    for prompt in ("grounding_prompt", "micro_prompt"):
        profile[prompt] += " Look closely."
    return Profile.model_validate(profile | {"name": "own", "max_answer_tokens": 1})


def make_adapter(folder: Path, *, steps: int) -> None:
    """Write an adapter: random, or trained a little to answer in another word."""
    torch.manual_seed(7)
    model = AutoModelForImageTextToText.from_pretrained(SHIPPED_MODEL, dtype=torch.float32)
    layers = r".*language_model.*(q_proj|v_proj|down_proj)"
    adapter = get_peft_model(model, LoraConfig(r=8, target_modules=layers, init_lora_weights=bool(steps)))
    processor = AutoProcessor.from_pretrained(SHIPPED_MODEL)
    word = f"banana{processor.tokenizer.eos_token}"
    prompt = processor.apply_chat_template(QUESTION, add_generation_prompt=True)
    taught = processor(images=Image.new("RGB", (200, 150)), text=prompt + word, return_tensors="pt")
    labels = taught["input_ids"].clone()
    labels[:, : -len(processor.tokenizer(word, add_special_tokens=False).input_ids)] = -100
    optimizer = torch.optim.AdamW([weight for weight in adapter.parameters() if weight.requires_grad], lr=5e-3)
    for _ in range(steps):
        adapter(**taught, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapter.save_pretrained(str(folder))


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the model and of both adapters."""
    folder = tmp_path_factory.mktemp("adapters")
    for name, steps in zip(NAMES, (30, 0), strict=True):
        make_adapter(folder / name, steps=steps)
    modules = [f"{name}={folder / name}" for name in NAMES] + [f"worded={folder / 'trained'}"]
    (folder / "own.yaml").write_text(yaml.safe_dump(own_profile().model_dump(mode="json")))
    # One place more than there are adapters: vLLM's CPU build has the base model computed with what is in the last one.
    flags = ("--dtype", "float32", "--enable-lora", "--max-loras", "2", "--max-lora-rank", "8")
    flags += (
        "--admin-api-key",
        ADMIN,
        "--lora-profiles",
        *(f"{name}={folder / 'own.yaml'}" for name in ("worded", "late")),
    )
    environment = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    running = start_server(folder / "log", *flags, "--lora-modules", *modules, model=(), environment=environment)
    yield from lend(running)


@pytest.fixture(scope="module")
def web(adapted: Server) -> Iterator[httpx.Client]:
    """A plain client of it."""
    with httpx.Client(base_url=adapted.url, timeout=PATIENCE) as http:
        yield http


def asking(model: str | None, image: bytes, words: str = _WORDS, **fields: Any) -> dict[str, Any]:
    """A question about an image, answered greedily."""
    content = [{"type": "image_url", "image_url": {"url": data_url(image)}}, {"type": "text", "text": words}]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 12, "temperature": 0, **fields}
    return body if model is None else body | {"model": model}


def ask(web: httpx.Client, *given: Any, **fields: Any) -> dict[str, Any]:
    """Ask it."""
    response = web.post(CHAT, json=asking(*given, **fields))
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def fresh() -> bytes:
    """An image that nobody has asked about: a red square, somewhere on white."""
    image, at = Image.new("RGB", (300, 200), "white"), 5 * next(_PLACES)
    image.paste((200, 30, 40), (at, at // 2, at + 60, at // 2 + 60))
    return saved(image, "PNG")


def box() -> dict[str, Any]:
    """A second look that needs no box of the model's, which an adapter may not write."""
    return {"dualfocus": {"box": [0.1, 0.1, 0.6, 0.6]}}


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_looks_twice_and_its_answers_are_its_own(web: httpx.Client, name: str) -> None:
    image, words = fresh(), "How many shapes are there?"
    answer = ask(web, name, image, words, **box())
    assert answer["model"] == name
    assert set(answer["dualfocus"]["turns"]) == {"macro", "micro"}
    off = ask(web, name, image, words, dualfocus={"mode": "off"})
    assert answer["dualfocus"]["macro"]["text"] == off["choices"][0]["message"]["content"]
    base = ask(web, None, image, words, **box())
    assert name == "random" or answer["dualfocus"]["macro"]["text"] != base["dualfocus"]["macro"]["text"]
    assert answer["dualfocus"]["macro"]["perplexity"] != base["dualfocus"]["macro"]["perplexity"]


def test_an_adapters_name_chooses_a_mode_too(web: httpx.Client) -> None:
    answer = ask(web, "trained:macro", fresh())
    assert (answer["model"], set(answer["dualfocus"]["turns"])) == ("trained:macro", {"macro"})


def test_prefixes_are_shared_among_requests_of_one_adapter_only(web: httpx.Client) -> None:
    image = fresh()
    order = (None, "trained", "random", None, "trained", "random")
    turns = [ask(web, name, image, dualfocus={"mode": "macro"})["dualfocus"]["turns"]["macro"] for name in order]
    assert [turn["cached_tokens"] > 0 for turn in turns] == [False] * 3 + [True] * 3


def words_of(profile: Profile) -> int:
    """The tokens that a profile's own words take in the micro turn."""
    words = (
        profile.grounding_text(_WORDS),
        profile.micro_text(_WORDS),
        profile.box_format.write(Box(0.1, 0.1, 0.6, 0.6)),
    )
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED_MODEL)
    return sum(len(tokenizer(text, add_special_tokens=False).input_ids) for text in words)


def test_an_adapter_with_a_profile_of_its_own_is_asked_in_its_words(web: httpx.Client) -> None:
    image, own = fresh(), own_profile()
    plain, worded = [ask(web, name, image, max_tokens=None, **box())["dualfocus"] for name in ("trained", "worded")]
    micro = [focus["turns"]["micro"]["prompt_tokens"] for focus in (plain, worded)]
    assert micro[1] - micro[0] == words_of(own) - words_of(BASE) > 0
    assert plain["crop"] == [5, 0, 205, 170] != worded["crop"]
    assert worded["crop"] == [25, 0, 185, 150]
    assert worded["macro"]["tokens"] == worded["micro"]["tokens"] == 1 < plain["macro"]["tokens"]


def test_each_adapters_profile_is_listed(web: httpx.Client) -> None:
    cards = {card["id"]: card["dualfocus"]["profile"] for card in web.get("/v1/models").json()["data"]}
    assert (cards["trained"], cards["worded"]) == (BASE.name, "own")


async def test_the_model_and_its_adapters_are_asked_at_once(adapted: Server, web: httpx.Client) -> None:
    asked = [asking(name, fresh(), **box()) for name in (None, *NAMES) * 4]
    async with httpx.AsyncClient(base_url=adapted.url, timeout=PATIENCE) as http:
        together = await asyncio.gather(*(http.post(CHAT, json=body) for body in asked))
    alone = [web.post(CHAT, json=body) for body in asked]
    for one, other in zip(together, alone, strict=True):
        first, second = one.json()["dualfocus"], other.json()["dualfocus"]
        assert first["macro"]["text"] == second["macro"]["text"]
        assert first["micro"]["text"] == second["micro"]["text"]


def test_one_that_is_loaded_into_the_running_server_looks_twice_until_it_is_unloaded(
    web: httpx.Client, adapted: Server
) -> None:
    as_admin = {"Authorization": f"Bearer {ADMIN}"}
    late = {"lora_name": "late", "lora_path": str(adapted.log.parent / "trained")}
    assert web.post("/v1/load_lora_adapter", json=late).status_code == 401
    image, words = fresh(), "How many shapes are there?"
    assert web.post(CHAT, json=asking("late", image)).status_code == 404
    loaded = web.post("/v1/load_lora_adapter", json=late, headers=as_admin)
    assert loaded.status_code == 200, loaded.text
    answer, same = [ask(web, name, image, words, **box()) for name in ("late", "worded")]
    assert set(answer["dualfocus"]["turns"]) == {"macro", "micro"}
    assert answer["dualfocus"]["crop"] == same["dualfocus"]["crop"]
    assert (
        answer["dualfocus"]["turns"]["micro"]["prompt_tokens"] == same["dualfocus"]["turns"]["micro"]["prompt_tokens"]
    )
    assert answer["dualfocus"]["macro"]["text"] == same["dualfocus"]["macro"]["text"]
    unloaded = web.post("/v1/unload_lora_adapter", json={"lora_name": "late"}, headers=as_admin)
    assert unloaded.status_code == 200, unloaded.text
    assert web.post(CHAT, json=asking("late", image)).status_code == 404


def test_another_name_is_told_what_there_is(web: httpx.Client) -> None:
    response = web.post(CHAT, json=asking("nonesuch", fresh()))
    assert response.status_code == 404
    assert all(name in response.json()["error"]["message"] for name in NAMES)
