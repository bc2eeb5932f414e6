"""What a uuid means is the same whichever process is asked."""

import asyncio
from functools import partial
from typing import Any

from dualfocus_server.startup.several.channel import Channel
from dualfocus_server.startup.several.pictures import SharedNames

from ...fake_engine import WAIT
from .pairs import pair


async def pass_on(children: list[Channel], owner: int, name: str, *given: Any) -> Any:
    """What the parent does: the owner is asked."""
    return await children[owner].ask(name, *given)


async def test_a_name_given_in_one_process_is_known_in_the_other() -> None:
    async with asyncio.timeout(WAIT), pair() as (parent_of_one, one), pair() as (parent_of_other, other):
        children = [parent_of_one, parent_of_other]
        for channel in children:
            channel.answers["pass_on"] = partial(pass_on, children)
        names = [SharedNames(one, 0, 2), SharedNames(other, 1, 2)]
        uuids = [f"picture {number}" for number in range(16)]
        assert {names[0].owner("a", None, uuid) for uuid in uuids} == {0, 1}, "each process has names to know"
        for uuid in uuids:
            await names[0].keep("a", None, uuid, uuid.encode())
        for asked in names:
            assert [await asked.find("a", None, uuid) for uuid in uuids] == [uuid.encode() for uuid in uuids]
            assert await asked.find("b", None, uuids[0]) is None
            assert await asked.find("a", "salt", uuids[0]) is None
        await names[1].keep("a", None, uuids[0], b"another")
        assert [await asked.find("a", None, uuids[0]) for asked in names] == [b"another"] * 2
