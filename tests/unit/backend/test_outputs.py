"""What is shown of a text that comes in pieces."""

import pytest
from dualfocus_engine.backend.outputs import Dropping


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["<box>", "a cup", "</box>"], ["", "a cup", ""]),
        (["<b", "ox>a cup</bo", "x>"], ["", "a cup", ""]),
        (["a <", "b"], ["a ", "<b"]),
        (["a <b"], ["a <b"]),
        (["<bo", "<box>x"], ["", "<box"]),
        (["a", "", "b"], ["a", "", "b"]),
    ],
)
def test_words_are_taken_out_also_where_they_come_in_two_pieces(pieces: list[str], shown: list[str]) -> None:
    drop = Dropping(["<box>", "</box>"])
    assert [drop(piece, place == len(pieces)) for place, piece in enumerate(pieces, 1)] == shown


def test_where_nothing_is_dropped_nothing_is_held_back() -> None:
    assert Dropping([])("<b", is_last=False) == "<b"
