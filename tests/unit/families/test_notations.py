"""Each shipped profile reads its family's boxes as their authors or users publish them, and writes them so."""

import pytest
from dualfocus_engine.families.box_format import BoxFormat
from dualfocus_engine.families.boxes import Box
from dualfocus_engine.families.profiles import load_profile, profile_names

WANTED = Box(0.25, 0.1, 0.5, 0.3)
WRITTEN = {
    "deepseek-vl2": "<|ref|>region<|/ref|><|det|>[[250, 100, 500, 300]]<|/det|>",
    "ernie-4.5-vl": '```json\n[\n\t{"bbox_2d": [250, 100, 500, 300], "label": "region"}\n]\n```',
    "fifth-patch": "[0.25, 0.10, 0.50, 0.30]",
    "gemma4": '```json\n[{"box_2d": [100, 250, 300, 500], "label": "region"}]\n```',
    "glm-v": "<|begin_of_box|>[[250,100,500,300]]<|end_of_box|>",
    "isaac": '<point_box mention="region"> (250,100) (500,300) </point_box>',
    "kimi-vl": '{"bbox_2d": [0.250, 0.100, 0.500, 0.300], "label": "region"}',
    "llava-next": "[0.25, 0.10, 0.50, 0.30]",
    "minicpm-v": "<ref>region</ref><box>250 100 500 300</box>",
    "ovis2.5": "<box>(0.250,0.100),(0.500,0.300)</box>",
    "qwen-vl": "<ref>region</ref><box>(250,100),(500,300)</box>",
    "qwen2-vl": "<|object_ref_start|>region<|object_ref_end|><|box_start|>(250,100),(500,300)<|box_end|>",
    "qwen3.5": '```json\n[\n\t{"bbox_2d": [250, 100, 500, 300], "label": "region"}\n]\n```',
    # The paper's, where a client says where to look.
    "gemma3": "[0.25, 0.10, 0.50, 0.30]",
    "mistral3": "[0.25, 0.10, 0.50, 0.30]",
    "no-grounding": "[0.25, 0.10, 0.50, 0.30]",
    "one-picture": "[0.25, 0.10, 0.50, 0.30]",
}
POINTS = {
    "molmo": '<point x="37.5" y="20.0" alt="region">region</point>',
    "molmo2": '<points coords="1 1 375 200">region</points>',
}


def _format(name: str) -> BoxFormat:
    return load_profile(name).box_format


@pytest.mark.parametrize("name", [*WRITTEN, *POINTS])
def test_a_clients_box_is_written_as_the_family_writes_its_own(name: str) -> None:
    assert _format(name).write(WANTED) == {**WRITTEN, **POINTS}[name]


def test_every_profile_has_a_case() -> None:
    elsewhere = {"dualfocus-released", "internvl", "llava-dualfocus", "paper", "qwen2.5-vl", "qwen3-vl"}
    assert {*WRITTEN, *POINTS, *elsewhere} == set(profile_names())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *WRITTEN.items(),
        ("qwen-vl", "<ref> the sign </ref><box> (250,100),(500,300) </box> and a pole (1,2),(3,4)"),
        ("qwen-vl", "It is at (250,100),(500,300)."),
        ("qwen2-vl", "sign(250,100),(500,300)"),  # its tokens left out
        ("qwen3.5", '<think>\nmaybe [1, 2, 3, 4]</think>\n\n[{"bbox_2d": [250, 100, 500, 300], "label": "sign"}]'),
        ("qwen3.5", '[{"bbox_2d": [250, 100, 500, 300], "bbox_2d": [0, 0, 9, 9]}]'),
        ("glm-v", "The sign is at <|begin_of_box|>(250,100,500,300)<|end_of_box|>."),
        ("glm-v", "The sign is at <250,100,500,300>."),
        ("glm-v", "[[250, 100, 500, 300]]"),
        ("glm-v", '<|begin_of_box|>[{"bbox_2d": [250, 100, 500, 300], "label": "sign"}]<|end_of_box|>'),
        ("glm-v", "<think>It is at [1, 2, 3, 4].</think><answer>[250, 100, 500, 300]</answer>"),
        ("gemma4", '[\n  {"box_2d": [100, 250, 300, 500], "label": "2 cups"}\n]'),
        ("gemma4", '[{"box_2d": [0.1, 0.25, 0.3, 0.5], "label": "sign"}]'),
        ("llava-next", "[0.25,0.1,0.5,0.3]"),
        ("ovis2.5", "The sign is at [<box>(0.250,0.100),(0.500,0.300)</box>,<box>(0.1,0.2),(0.3,0.4)</box>]."),
        ("ovis2.5", "(0.250,0.100),(0.500,0.300)"),
        ("minicpm-v", "<ref>book</ref><box>250 100 500 300</box><|im_end|>"),
        ("kimi-vl", '◁think▷It is at [0.1, 0.2, 0.3, 0.4].◁/think▷{"bbox_2d": [0.250, 0.100, 0.500, 0.300]}'),
        ("kimi-vl", '```json\n{"bbox_2d": [0.250, 0.100, 0.500, 0.300], "label": "sign"}\n```'),
        ("ernie-4.5-vl", '[{"bbox_2d": [250, 100, 500, 300], "label": "sign"}]'),
        ("deepseek-vl2", "The giraffe[[250, 100, 500, 300]]."),
        ("isaac", 'The <point_box mention="light"> (250,100) (500,300) </point_box> is red.'),
        ("isaac", '<collection> <point_box mention="a" t=0.5> (250,100) (500,300) </point_box> </collection>'),
    ],
)
def test_a_box_is_read_as_the_family_means_it(name: str, text: str) -> None:
    box = _format(name).read(text)
    assert box is not None
    assert box.as_tuple() == pytest.approx(WANTED.as_tuple(), abs=1e-3)


def test_deepseeks_999_is_the_edge() -> None:
    box = _format("deepseek-vl2").read("<|ref|>giraffe<|/ref|><|det|>[[580, 270, 999, 900]]<|/det|>")
    assert box is not None
    assert (box.x2, box.y2) == (1.0, pytest.approx(900 / 999))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *POINTS.items(),
        ("molmo", '<points x1="37.5" y1="20" x2="80.1" y2="9.0" alt="signs">signs</points>'),
        ("molmo2", '<points coords="1 1 375 200;2 521 432">signs</points>'),
    ],
)
def test_a_point_is_the_middle_of_what_is_looked_at(name: str, text: str) -> None:
    box = _format(name).read(text, (2000, 1000))
    assert box is not None
    # 0.3 of the shorter side: 300 x 300 pixels.
    assert box.as_tuple() == pytest.approx((0.3, 0.05, 0.45, 0.35), abs=1e-3)


@pytest.mark.parametrize(
    ("name", "text", "points"),
    [
        (
            "molmo",
            '<points x1="37.5" y1="20" x2="80.1" y2="9.0" alt="signs">signs</points>',
            [(0.375, 0.2), (0.801, 0.09)],
        ),
        ("molmo", "<point x='1' y='2'>", []),
        ("molmo2", '<points coords="1 1 521 432 2 500 600">', [(0.521, 0.432), (0.5, 0.6)]),
        ("molmo2", '<points coords="1 1 375 200;2 2 521 432">', [(0.375, 0.2), (0.521, 0.432)]),
        ("molmo2", '<points coords="1 1 375 200\t2 2 521 432">', [(0.375, 0.2), (0.521, 0.432)]),
        ("molmo2", '<points coords="1 99 375 200 100 521 432">', [(0.375, 0.2), (0.521, 0.432)]),
        ("molmo2", '<points coords="1 100 375 200">', [(0.375, 0.2)]),
        ("molmo2", '<points coords="1 1 375 200 2 521 43', [(0.375, 0.2)]),  # cut
    ],
)
def test_each_point_of_a_list_is_one(name: str, text: str, points: list[tuple[float, float]]) -> None:
    boxes = _format(name).model_copy(update={"point_side": 0.1}).read_all(text)
    middles = [((box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2) for box in boxes]
    assert middles == [pytest.approx(point, abs=1e-3) for point in points]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("deepseek-vl2", "<|ref|>giraffe<|/ref|><|det|>[[580, 270, 999]]<|/det|>"),
        ("deepseek-vl2", "<|det|>[[580, 270, 999, 99999999]]<|/det|>"),
        ("minicpm-v", "Of 250 books 100 are red, 500 300."),
        ("molmo", "There is none."),
        ("molmo2", '<points coords="1 1 375">sign</points>'),
        ("gemma4", '[{"box_2d": [y1, x1, y2, x2]}]'),
        ("glm-v", "<think>It is at [250, 100, 500, 300].</think>It is not there."),
        ("ovis2.5", "<box>(0.250,0.100)</box>"),
        ("kimi-vl", "◁think▷It is at [0.25, 0.1, 0.5, 0.3], or"),
        ("qwen3-vl", "<think>\nIt is at [250, 100, 500, 300], or"),
        ("molmo2", '<points coords="1 1 375 20'),  # cut
        ("molmo2", "In 1990 some 100 of 500 stood there, 3 100 500 later."),
    ],
)
def test_what_the_family_writes_beside_boxes_is_none(name: str, text: str) -> None:
    assert _format(name).read(text) is None
