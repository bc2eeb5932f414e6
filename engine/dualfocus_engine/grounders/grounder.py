"""What the method needs of a grounder, and how long and how far it is trusted."""

import asyncio
from typing import Protocol

from PIL import Image

from dualfocus_engine.families.boxes import Box
from dualfocus_engine.machine.pool import run_in_image_pool
from dualfocus_engine.pictures.picture_cache import PictureCache
from dualfocus_engine.pictures.pictures import Picture

# Pixels of the longer side of the picture that a grounder is given: what GroundingDINO's own processor makes of it.
_LONGEST_SIDE = 1333


class Grounder(Protocol):
    """Says where in a picture a question is to be looked at.

    One that is an async context manager too is entered before the server starts, and left when it ends.
    """

    async def locate(self, picture: Image.Image, question: str) -> Box | None:
        """Return the box to look at, as shares of the picture; None where there is none.

        The picture is upright, in RGB, of at most 1333 pixels a side; the question is without options and hints at the
        answer's form. Many questions may be asked at once. A call that is late or no longer needed is cancelled.
        """


class GrounderFailed(Exception):
    """The grounder gave no box that can be used; the message says why, for the log."""


class GrounderTimedOut(GrounderFailed):
    """The grounder was late."""


class BoundedGrounder:
    """Asks a grounder, for at most `timeout` seconds (None: no limit), and judges the box that it gives."""

    def __init__(self, grounder: Grounder, timeout: float | None) -> None:
        self._grounder = grounder
        self._timeout = timeout

    async def locate(self, pictures: PictureCache, picture: Picture, question: str) -> Box | None:
        """Return where to look in a picture. Raises GrounderFailed, and BadPicture where it can't be decoded."""
        shown = await run_in_image_pool(pictures.within_side, picture.original, _LONGEST_SIDE)
        try:
            async with asyncio.timeout(self._timeout):
                return _checked(await self._grounder.locate(shown, question))
        except TimeoutError as error:
            raise GrounderTimedOut(f"it gave no box within {self._timeout} s (--grounder-timeout)") from error
        except Exception as error:
            raise GrounderFailed(f"{type(error).__name__}: {error}") from error


def _checked(box: Box | None) -> Box | None:
    """Return a box that can be one: of shares, its corners in their order. Raises ValueError."""
    if box is None:
        return None
    x1, y1, x2, y2 = box.as_tuple()
    if not (0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1):  # so that no NaN passes
        raise ValueError(f"{box} is no box of shares: 0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1 is expected")
    return box
