"""Qwen-VL in plain torch: its layout, what the recipe trains of it, and the adapter that comes out."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from asking import CHAT, lend
from dualfocus_engine.conversion.reading import tensors_in, tensors_of
from dualfocus_engine.families.profiles import Profile, load_profile
from dualfocus_training.learning.objective import TERMS
from dualfocus_training.models.qwen_vl.model import QwenVL
from dualfocus_training.models.qwen_vl.processor import QwenVLProcessor
from dualfocus_training.recipe import Recipe, load_recipe
from dualfocus_training.starting import build_course, build_learner, build_processor_of
from dualfocus_training.train import Run
from hostile_images import data_url, saved
from peft import PeftModel
from PIL import Image
from running_server import PATIENCE, start_server
from torch import Tensor

from tests.engine.qwen_vl.original import SPECIAL_IDS, config, weights, write_checkpoint
from tests.engine.qwen_vl.plain_forward import logits

RECIPE = Path(__file__).parents[2] / "training" / "recipes" / "qwen.yaml"
LORA = ("attn.c_attn", "attn.c_proj", "mlp.w1", "mlp.w2")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("qwen-vl") / "original")


@pytest.fixture(scope="module")
def recipe(original: Path, conversations_of: Callable[[Profile], Path]) -> Recipe:
    """The committed recipe with a tiny base, a few conversations and eight steps."""
    committed = load_recipe(RECIPE)
    (stage,) = committed.stages
    tiny = {
        "steps": 8,
        "rows": 4,
        "slices": 2,
        "conversations": (conversations_of(load_profile(committed.profile)),),
        "rates": stage.rates.model_copy(update={"adam": 1e-3, "warmup": 1, "cooldown": 0}),
    }
    changes = {"base": str(original), "workers": 0, "precision": "no", "stages": (stage.model_copy(update=tiny),)}
    return committed.model_copy(update=changes)


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen-run")
    Run(recipe, folder).train()
    return folder


@pytest.fixture(scope="module")
def inputs(recipe: Recipe) -> dict[str, Tensor]:
    """Two rounds about two pictures."""
    processor = build_processor_of(recipe)
    course = build_course(recipe, 0, processor)
    found = next(item for item in map(course.__getitem__, range(4)) if len(item[1]) > 1)
    return course.collate([found]).inputs


def test_logits_are_those_of_the_original_weights(original: Path, inputs: dict[str, Tensor]) -> None:
    pictures = [Image.new("RGB", (640, 480), "red"), Image.radial_gradient("L").convert("RGB")]
    processor = QwenVLProcessor(original)
    pixels = processor(text="", images=pictures)["pixel_values"]
    with torch.no_grad():
        found = QwenVL.from_pretrained(original)(inputs["input_ids"], pixels).logits[0]
    expected = logits(
        {name: tensor.float() for name, tensor in weights().items()}, inputs["input_ids"][0].tolist(), pictures
    )
    torch.testing.assert_close(found.log_softmax(-1), expected.log_softmax(-1), atol=1e-4, rtol=0)


def test_what_is_written_reads_back_equal(original: Path, tmp_path: Path) -> None:
    QwenVL.from_pretrained(original).save_pretrained(tmp_path)
    QwenVLProcessor(original).save_pretrained(tmp_path)
    written = dict(tensors_in(tmp_path))
    assert written.keys() == weights().keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in weights().items())
    assert json.loads((tmp_path / "config.json").read_text()) == config()
    beside = {file.name for file in original.iterdir() if not file.name.startswith("pytorch_model")}
    assert beside < {file.name for file in tmp_path.iterdir()}


def test_a_weight_that_is_missing_is_named(original: Path, tmp_path: Path) -> None:
    model = QwenVL.from_pretrained(original)
    del model.transformer.visual.proj
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match=r"visual\.proj"):
        QwenVL.from_pretrained(tmp_path)


def test_more_than_the_context_is_refused(original: Path) -> None:
    with pytest.raises(ValueError, match="2049 tokens"):
        QwenVL.from_pretrained(original)(torch.zeros(1, 2049, dtype=torch.long), torch.zeros(0, 3, 448, 448))


def test_the_pictures_of_a_conversation_are_numbered(original: Path, inputs: dict[str, Tensor]) -> None:
    ids = inputs["input_ids"][0].tolist()
    assert (ids.count(SPECIAL_IDS["<img>"]), ids.count(SPECIAL_IDS["<imgpad>"])) == (2, 512)
    text = QwenVLProcessor(original).tokenizer.decode(ids).replace("<imgpad>", "")
    assert text.startswith(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nPicture 1: <img>"
    )
    assert "Picture 2: <img></img>\n" in text
    assert inputs["pixel_values"].shape == (2, 3, 448, 448)


def test_gradients_reach_low_rank_updates_and_the_resampler_alone(recipe: Recipe) -> None:
    processor = build_processor_of(recipe)
    learner, course = build_learner(recipe, processor), build_course(recipe, 0, processor)
    losses = learner(course.collate([course[number] for number in range(2)]))
    sum(losses.values()).backward()
    reached = {name for name, weight in learner.named_parameters() if weight.grad is not None}
    updates = {name for name in reached if "lora_" in name}
    assert {name.split(".h.")[1].split(".", 1)[1].split(".lora_")[0] for name in updates} == set(LORA)
    assert len(updates) == 2 * len(LORA) * config()["num_hidden_layers"]
    resampler = {name.split("attn_pool.")[1] for name in reached - updates}
    assert resampler == {
        "query", "kv_proj.weight", "ln_q.weight", "ln_q.bias", "ln_kv.weight", "ln_kv.bias", "attn.in_proj_weight",
        "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias",
    }  # fmt: skip
    # At first an update is 0, by its second matrix: only that one's gradient is not.
    assert all(learner.get_parameter(name).grad.any() for name in reached if "lora_A" not in name)


def test_the_loss_falls(run: Path) -> None:
    losses = [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]
    first, *_, last = [sum(step[term] for term in TERMS) for step in losses]
    assert last < 0.9 * first


def test_of_the_base_the_resampler_has_learned(run: Path) -> None:
    base = dict(tensors_in(run / "base"))
    changed = {name for name, tensor in weights().items() if not torch.equal(base[name], tensor)}
    assert changed
    assert all("attn_pool" in name and "pos_embed" not in name for name in changed)
    merged = dict(tensors_in(run / "model"))
    assert {name for name in base if not torch.equal(base[name], merged[name])} == {
        f"transformer.h.{layer}.{module}.weight" for layer in range(config()["num_hidden_layers"]) for module in LORA
    }


def test_the_adapter_over_its_base_is_the_merged_model(run: Path, inputs: dict[str, Tensor]) -> None:
    base, merged = (QwenVL.from_pretrained(run / name) for name in ("base", "model"))
    with torch.no_grad():
        alone, expected = (model(**inputs).logits.log_softmax(-1) for model in (base, merged))
        adapted = PeftModel.from_pretrained(base, str(run / "adapter")).eval()(**inputs).logits.log_softmax(-1)
    apart, changed = (adapted - expected).abs().mean(), (alone - expected).abs().mean()
    assert apart < 0.05  # the merged weights are rounded once more, to bfloat16
    assert changed > 4 * apart


def test_the_adapter_has_pefts_form(run: Path) -> None:
    said = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert (said["peft_type"], said["r"], said["lora_alpha"]) == ("LORA", 64, 16)
    assert said["base_model_name_or_path"] == str(run / "base")
    names = {name for name, _ in tensors_of(run / "adapter" / "adapter_model.safetensors")}
    assert "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight" in names
    assert len(names) == 2 * len(LORA) * config()["num_hidden_layers"]


@pytest.fixture(scope="module")
def web(run: Path) -> Iterator[httpx.Client]:
    """A server of the base with the adapter, as README.md has it."""
    flags = ("--dtype", "float32", "--enable-lora", "--max-lora-rank", "64", "--max-loras", "2")
    adapter = f"trained={run / 'adapter'}"
    running = start_server(run / "log", *flags, "--lora-modules", adapter, model=(str(run / "base"),))
    for server in lend(running):
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as http:
            yield http


def _ask(web: httpx.Client, picture: Image.Image, **fields: Any) -> dict[str, Any]:
    content = [{"type": "image_url", "image_url": {"url": data_url(saved(picture, "PNG"))}}]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": "What colour is it?"}]}]
    response = web.post(CHAT, json={"messages": messages, "max_tokens": 12, "temperature": 0, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.slow
def test_the_server_loads_the_adapter_and_looks_twice(web: httpx.Client, photo: Callable[[str], Image.Image]) -> None:
    answer = _ask(web, photo("coffee"), model="trained", dualfocus={"box": [0.1, 0.1, 0.6, 0.6]})
    assert set(answer["dualfocus"]["turns"]) == {"macro", "micro"}
    assert answer["dualfocus"]["winner"] in ("macro", "micro")


@pytest.mark.slow
@pytest.mark.parametrize("adapted", [False, True], ids=["base", "adapter"])
def test_what_is_served_is_what_was_trained(
    adapted: bool, web: httpx.Client, run: Path, photo: Callable[[str], Image.Image]
) -> None:
    base, picture = run / "base", photo("coffee").resize((448, 448))
    model: torch.nn.Module = QwenVL.from_pretrained(base)
    if adapted:
        model = PeftModel.from_pretrained(model, str(run / "adapter")).eval()
    fields = {"dualfocus": {"mode": "off"}, "logprobs": True, "return_token_ids": True}
    told = _ask(web, picture, model="trained" if adapted else str(base), **fields)
    (choice,) = told["choices"]
    answer, served = choice["token_ids"], [token["logprob"] for token in choice["logprobs"]["content"]]
    pixels = QwenVLProcessor(base)(text="", images=[picture])["pixel_values"]
    with torch.no_grad():
        logits = model(torch.tensor([told["prompt_token_ids"] + answer]), pixels).logits[0, -len(answer) - 1 : -1]
    expected = logits.log_softmax(-1)[torch.arange(len(answer)), answer]
    torch.testing.assert_close(torch.tensor(served), expected, atol=1e-3, rtol=0)
