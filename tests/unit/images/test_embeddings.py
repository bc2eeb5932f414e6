"""Embeddings in a picture's place: what is handed on to vLLM, and what would end its engine."""

import base64
import io
import zipfile
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from dualfocus_engine import BadPicture
from dualfocus_server.images.embeddings import check_embeddings, embeddings_key

GRID = "image_grid_thw"


def written(tensor: Any) -> str:
    file = io.BytesIO()
    torch.save(tensor, file)
    return base64.b64encode(file.getvalue()).decode()


def as_numpy(array: Any) -> str:
    file = io.BytesIO()
    np.save(file, array)
    return base64.b64encode(file.getvalue()).decode()


def check(value: Any, *, enabled: bool = True, **config_of_the_model: Any) -> None:
    own = config_of_the_model or {"vision_config": SimpleNamespace(spatial_merge_size=2)}
    config: Any = SimpleNamespace(
        multimodal_config=SimpleNamespace(enable_mm_embeds=enabled),
        hf_config=SimpleNamespace(**own),
        get_inputs_embeds_size=lambda: 8,
    )
    check_embeddings([value], config)


ROWS = written(torch.zeros(4, 8))


@pytest.mark.parametrize(
    "value",
    [
        ROWS,
        written(torch.zeros(1, 4, 8)),
        written(torch.zeros(8, 4).T),
        written(torch.zeros(4, 8, dtype=torch.bfloat16)),
        as_numpy(np.zeros((4, 8), np.float32)),
        {"image_embeds": ROWS, GRID: [1, 4, 4]},
        {"image_embeds": ROWS, GRID: [1, 2, 8]},
    ],
)
def test_a_row_for_each_image_token_is_handed_on(value: Any) -> None:
    check(value)


def test_a_model_whose_config_names_its_encoder_otherwise_merges_nothing() -> None:
    check({"image_embeds": ROWS, GRID: [1, 2, 2]}, visual={})


def packed_small() -> str:
    """A tensor whose file takes less than what is in it."""
    file, small = io.BytesIO(base64.b64decode(written(torch.zeros(400, 8)))), io.BytesIO()
    with zipfile.ZipFile(file) as stored, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as deflated:
        for entry in stored.infolist():
            deflated.writestr(entry.filename, stored.read(entry))
    return base64.b64encode(small.getvalue()).decode()


def claiming(shape: tuple[int, ...]) -> str:
    """A numpy file whose header claims more than it holds."""
    data = bytearray(base64.b64decode(as_numpy(np.zeros((4, 8), np.float32))))
    given, claimed = b"(4, 8), }", f"{shape}, }}".encode()
    data[data.index(given) : data.index(given) + len(claimed)] = claimed  # over the spaces that follow
    return base64.b64encode(data).decode()


BAD = {
    "not base64": ("%%%", "no tensor that can be read"),
    "no tensor": (base64.b64encode(b"hello").decode(), "no tensor that can be read"),
    "another object": (written({"a": 1}), "it is a dict"),
    "code": (written(torch.nn.Linear(1, 1)), "it holds other objects than tensors"),
    "numpy objects": (as_numpy(np.array([{}], dtype=object)), "it holds other objects than numbers"),
    "compressed": (packed_small(), "larger unpacked"),
    "a header of more": (claiming((9**9, 8)), "claims another size"),
    "one number for all": (written(torch.zeros(1, 1).expand(10**6, 8)), "a number for each place"),
    "empty": (written(torch.zeros(0, 8)), "a number for each place"),
    "no device": (written(torch.zeros(4, 8, device="meta")), "dense tensor"),
    "nested": (written(torch.nested.nested_tensor([torch.zeros(4, 8)])), "holds no tensor"),
    "with gradients": (written(torch.zeros(4, 8, requires_grad=True)), "without gradients"),
    "a parameter": (written(torch.nn.Parameter(torch.zeros(4, 8))), "it is a Parameter"),
    "sparse": (written(torch.zeros(4, 8).to_sparse()), "dense tensor"),
    "integers": (written(torch.zeros(4, 8, dtype=torch.int64)), "float32, float16 or bfloat16"),
    "complex": (written(torch.zeros(4, 8, dtype=torch.complex64)), "float32, float16 or bfloat16"),
    "one dimension": (written(torch.zeros(8)), "a row for each image token"),
    "a picture": (written(torch.zeros(1, 3, 4, 8)), "a row for each image token"),
    "several": (written(torch.zeros(2, 4, 8)), "a row for each image token"),
    "longer rows": (written(torch.zeros(4, 9)), "must have the model's 8 numbers, not 9"),
    "longer rows in a grid": ({"image_embeds": written(torch.zeros(4, 9)), GRID: [1, 4, 4]}, "the model's 8 numbers"),
    "no grid": ({"image_embeds": ROWS}, "and no more"),
    "pixels too": ({"image_embeds": ROWS, GRID: [1, 4, 4], "pixel_values": ROWS}, "and no more"),
    "a grid as tensor": ({"image_embeds": ROWS, GRID: written(torch.tensor([1, 4, 4]))}, "and no more"),
    "three dimensions": ({"image_embeds": written(torch.zeros(1, 4, 8)), GRID: [1, 4, 4]}, r"\[1, rows, columns\]"),
} | {
    f"grid {grid}": ({"image_embeds": ROWS, GRID: grid}, r"\[1, rows, columns\]")
    for grid in (
        [1, 4],
        [1, 4, 8],
        [1, 2, 4],
        [1, 16, 1],
        [16, 1, 1],
        [4, 2, 2],
        [1, -4, -4],
        [1, 4.0, 4],
        [True, 4, 4],
    )
}


@pytest.mark.parametrize(("value", "said"), BAD.values(), ids=BAD)
def test_what_is_not_what_it_claims_is_refused(value: Any, said: str) -> None:
    with pytest.raises(BadPicture, match=said):
        check(value)


def test_without_the_flag_nothing_is_read() -> None:
    check("%%%", enabled=False)


def test_a_salt_is_hashed_into_their_key() -> None:
    assert embeddings_key(ROWS, "a") == embeddings_key(ROWS, "a")
    values = (ROWS, {"image_embeds": ROWS, GRID: [1, 4, 4]}, {"image_embeds": ROWS, GRID: [1, 2, 8]})
    assert len({embeddings_key(value, salt) for salt in ("a", "b", None) for value in values}) == 9
