"""The model that ships, served as a user serves it: found without a name, and really trained."""

import re
from collections.abc import Iterator

import pytest
from dualfocus_engine.shipped import SHIPPED_MODEL, SHIPPED_NAME
from dualfocus_training.evaluation import asking
from dualfocus_training.evaluation.figures import figures
from openai import OpenAI
from running_server import PATIENCE, Server, start_server
from transformers import AutoTokenizer

# No training run and no committed result draws scenes of this seed.
SEED, SCENES = 901, 40


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = start_server(tmp_path_factory.mktemp("shipped") / "log", model=())
    yield running
    running.process.terminate()
    assert running.process.wait(PATIENCE) == 0


def test_it_is_served_where_no_model_is_named(shipped: Server) -> None:
    models = OpenAI(base_url=f"{shipped.url}/v1", api_key="none").models.list().data
    assert models[0].id == SHIPPED_NAME
    log = shipped.log.read_text()
    assert re.findall("^note: .*", log, re.MULTILINE) == [
        "note: Up to 0.25 GiB of processed pictures are kept; --mm-processor-cache-gb sets another size."
    ], "it is trained: nothing else is noted"


def test_it_looks_twice_and_sees_more(shipped: Server) -> None:
    """160 held-out questions: the bounds are the goals of docs/results.md, less three standard deviations of so few."""
    found = figures(asking.ask_all(asking.Server(shipped.url), SEED, SCENES))
    detail, whole, overall = found["detail"], found["global"], found["overall"]
    assert detail["chosen"] >= detail["macro"] + 0.2
    assert detail["chosen"] >= 0.7
    assert detail["iou"] >= 0.6
    assert whole["chosen"] >= whole["micro"] - 0.06
    assert overall["chosen"] >= max(overall["macro"], overall["micro"]) - 0.06
    assert found["shifts"]["10"] >= found["shifts"]["0"] - 0.06


def test_it_is_small_and_reads_any_text() -> None:
    assert sum(file.stat().st_size for file in SHIPPED_MODEL.iterdir()) <= 16 << 20
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED_MODEL)
    text = "Ünïcode 日本語 🙂 \x00\t1234"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    assert len(tokenizer("1234", add_special_tokens=False).input_ids) == 4
