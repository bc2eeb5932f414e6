"""`dualfocus serve`: starts the engine, then the server."""

import sys
from collections.abc import Sequence

from dualfocus_engine.machine.platform import prepare_environment

from dualfocus_server.startup.memory import return_freed_memory
from dualfocus_server.startup.progress import say, step


def main(argv: Sequence[str] | None = None) -> int:
    """Run `dualfocus serve` with the given arguments; returns the process's exit status."""
    return_freed_memory()
    try:
        prepare_environment()
    except ModuleNotFoundError as error:
        say(f"error: {error}")
        return 1
    with step("Importing vLLM"):
        # Only now: vLLM reads its environment when it is imported, which takes seconds.
        from dualfocus_server.startup.arguments import parse_arguments
        from dualfocus_server.startup.runtime import run
    return run(parse_arguments(sys.argv[2:] if argv is None else argv))
