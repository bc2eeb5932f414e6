"""A turn that continues another keeps its tokens (Eq. 6)."""

import pytest
from dualfocus_engine.method.prompts import Prompt

from ..builders import plain

IMAGE, CROP = plain(), plain((1, 2, 3))


def _continued(reply: list[int], follow_up: tuple[int, ...]) -> tuple[int, ...]:
    return Prompt((1, 2), (IMAGE,)).continued(reply, Prompt(follow_up, (CROP,))).token_ids


@pytest.mark.parametrize(
    ("reply", "follow_up", "whole"),
    [
        pytest.param([7, 8, 0], (0, 5, 6), (1, 2, 7, 8, 0, 5, 6), id="closing token is not doubled"),
        pytest.param([7, 8], (0, 5, 6), (1, 2, 7, 8, 0, 5, 6), id="cut reply is closed by the follow-up"),
        pytest.param([7, 8, 9], (0, 5), (1, 2, 7, 8, 9, 0, 5), id="another last token is kept"),
        pytest.param([7, 0, 0], (0, 5), (1, 2, 7, 0, 0, 5), id="one closing token is shared, no more"),
        pytest.param([0], (0, 5), (1, 2, 0, 5), id="reply of a closing token alone"),
        pytest.param([], (0, 5), (1, 2, 0, 5), id="no reply"),
        pytest.param([7, 0], (), (1, 2, 7, 0), id="no follow-up"),
        pytest.param([], (), (1, 2), id="nothing"),
        pytest.param([0, 7], (0, 5), (1, 2, 0, 7, 0, 5), id="only the end of the reply counts"),
    ],
)
def test_reply_stands_between_prompt_and_follow_up(
    reply: list[int], follow_up: tuple[int, ...], whole: tuple[int, ...]
) -> None:
    assert _continued(reply, follow_up) == whole


def test_pictures_follow_the_order_of_their_placeholders() -> None:
    first = Prompt((1,), (IMAGE,))
    assert first.continued([2], Prompt((3,), (CROP,))).pictures == (IMAGE, CROP)


def test_reply_may_be_a_tuple_and_nothing_is_changed_in_place() -> None:
    first, reply = Prompt((1,), (IMAGE,)), (2, 3)
    assert first.continued(reply, Prompt((3, 4), ())).token_ids == (1, 2, 3, 4)
    assert (first.token_ids, first.pictures, reply) == ((1,), (IMAGE,), (2, 3))
