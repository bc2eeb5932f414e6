"""Put on a server's path, it notes in NOTED_IN each file below NOTED_BELOW that a process of the server's opens."""

import os
import sys
from typing import Any

_below = os.environ.get("NOTED_BELOW")
_notes = os.open(os.environ["NOTED_IN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND) if _below else -1


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(str(_below)):
        os.write(_notes, f"{os.getpid()} {arguments[0]}\n".encode())


if _below:
    sys.addaudithook(_note)
