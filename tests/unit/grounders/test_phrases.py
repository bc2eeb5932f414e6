"""What GroundingDINO is asked to find, of a question: the project's own rule."""

import pytest
from dualfocus_engine.families.boxes import Box
from dualfocus_engine.grounders.detector import union
from dualfocus_engine.grounders.phrases import caption_of


@pytest.mark.parametrize(
    ("question", "caption"),
    [
        ("What colour is the cup on the table?", "cup. table."),
        ("How many people are wearing Red Hats?", "people. wearing red hats."),
        ("Is there a dog, a cat or a dog in the picture?", "dog. cat."),
        ("What's written on the driver's seat?", "written. driver's seat."),
        ("Where is the t-shirt", "t-shirt."),
        ("What is this?", "what is this."),
        ("Was steht auf dem Schild?", "steht auf dem schild."),
        ("杯子是什么颜色?", "杯子是什么颜色."),
    ],
)
def test_phrases_are_what_stands_between_words_that_name_nothing(question: str, caption: str) -> None:
    assert caption_of(question) == caption


def test_what_is_found_is_taken_together_and_clipped() -> None:
    assert union([[0.3, 0.2, 0.4, 0.9], [-0.1, 0.5, 0.2, 1.2]]) == Box(0.0, 0.2, 0.4, 1.0)
    assert union([]) is None
