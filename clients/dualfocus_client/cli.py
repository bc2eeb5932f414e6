"""`dualfocus COMMAND …`: finds the command among those that installed packages registered."""

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points, version
from typing import cast

_COMMANDS = "dualfocus.commands"
# As a shell has it: 128 and the signal's number.
_INTERRUPTED = 130


def main() -> int:
    """Run the command line; returns the exit status."""
    commands = {command.name: command for command in entry_points(group=_COMMANDS)}
    match sys.argv[1:]:
        case ["--version" | "-V"]:
            print(f"dualfocus {version('dualfocus')}")
        case [name, *rest] if name in commands:
            return _run(commands[name], rest)
        case [] | ["--help" | "-h"]:
            print(_usage(commands))
        case [name, *_]:
            print(f"error: no command {name!r}\n{_usage(commands)}", file=sys.stderr)
            return 2
    return 0


def _run(command: EntryPoint, arguments: list[str]) -> int:
    try:
        run = cast("Callable[[list[str]], int]", command.load())
    except ModuleNotFoundError as error:
        extras = "cpu or gpu to serve, eval for plots, training for all else"
        print(f"error: dualfocus {command.name}: {error}; the extras of dualfocus bring it: {extras}", file=sys.stderr)
        return 1
    try:
        return run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED


def _usage(commands: dict[str, EntryPoint]) -> str:
    names = "\n".join(f"  dualfocus {name} --help" for name in sorted(commands))
    return f"usage: dualfocus COMMAND …\n\n{names}"


if __name__ == "__main__":  # where the program itself is on no path
    sys.exit(main())
