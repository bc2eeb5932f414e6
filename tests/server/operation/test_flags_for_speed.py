"""`--draft-boxes` and `--skip-below`, as an operator sets them; on the model that ships."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest
from asking import ask
from dualfocus_engine.shipped import SHIPPED_NAME
from dualfocus_eval.scenes.held_out import held_out
from openai import BadRequestError, OpenAI
from running_server import PATIENCE, start_server

# No training run and no committed result draws scenes of this seed.
ASKED = list(held_out(902, 6))


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """A server that drafts boxes, for which every macro answer is confident enough."""
    running = start_server(
        tmp_path_factory.mktemp("quick") / "log", "--draft-boxes", "--skip-below", "1e9", "--dtype", "float32", model=()
    )
    yield OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
    running.process.terminate()
    assert running.process.wait(PATIENCE) == 0


def about(number: int) -> list[dict[str, Any]]:
    png = io.BytesIO()
    ASKED[number].picture.save(png, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    image = {"type": "image_url", "image_url": {"url": url}}
    return [{"role": "user", "content": [image, {"type": "text", "text": ASKED[number].question.question}]}]


@pytest.mark.parametrize("number", range(0, len(ASKED), 4))
def test_a_drafted_box_takes_fewer_steps_than_it_has_tokens(quick: OpenAI, number: int) -> None:
    focus = ask(quick, about(number), model=SHIPPED_NAME).dualfocus
    grounding = focus["turns"]["grounding"]
    assert focus["box"] is not None
    assert grounding["completion_tokens"] == 14
    assert grounding["engine_steps"] <= 10


@pytest.mark.parametrize("number", range(0, len(ASKED), 4))
def test_a_sure_macro_answer_is_returned_without_a_second_look(quick: OpenAI, number: int) -> None:
    focus = ask(quick, about(number), {"mode": "adaptive"}, model=SHIPPED_NAME).dualfocus
    assert (focus["mode"], focus["winner"], focus["selection"]) == ("adaptive", "macro", "skipped")
    assert (focus["micro"], focus["box"]) == (None, None)
    assert set(focus["turns"]) == {"macro"}
    named = ask(quick, about(number), model=f"{SHIPPED_NAME}:adaptive").dualfocus
    assert named["selection"] == "skipped"


@pytest.mark.parametrize("field", [{"logit_bias": {"5": 1.0}}, {"temperature": 0.5, "extra_body": {"min_p": 0.1}}])
def test_what_can_not_be_had_beside_drafting_is_refused_by_name(quick: OpenAI, field: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match="min_p and logit_bias"):
        quick.chat.completions.create(model=SHIPPED_NAME, messages=about(0), **field)
