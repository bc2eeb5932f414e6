"""The options that commands share, and their YAML file."""

import argparse
import os
from pathlib import Path

import yaml

from dualfocus_client.client import LONGEST_WAIT


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add where the server is and how it is asked."""
    parser.add_argument("--base-url", default="http://127.0.0.1:8000", help="where the server is, with or without /v1")
    parser.add_argument("--api-key", help="a key, where the server wants one; also DUALFOCUS_API_KEY")
    parser.add_argument("--timeout", type=seconds, default=120.0, help="seconds to wait for an answer")


def seconds(text: str) -> float:
    """Read a time to wait, in seconds. Raises argparse.ArgumentTypeError where it is none, or for ever."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= LONGEST_WAIT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0, at most {LONGEST_WAIT:,}")
    return value


def key_of(args: argparse.Namespace) -> str | None:
    """Return the key from the command line, else from the environment: the first, of several that a server takes."""
    return args.api_key or os.environ.get("DUALFOCUS_API_KEY", "").split(",")[0].strip() or None


def config_parser() -> argparse.ArgumentParser:
    """Return a parser of `--config` alone, to be a parent of a command's."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", help="a YAML file of these options; the command line goes before it")
    return parser


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parse a command line behind the options of its `--config`."""
    known, _ = config_parser().parse_known_args(argv)
    return parser.parse_args([*(_options(parser, known.config) if known.config else []), *argv])


def _options(parser: argparse.ArgumentParser, path: str) -> list[str]:
    """Return a YAML file's options as arguments, so that both are judged alike."""
    try:
        # Plain strings: YAML's own reading would make `mode: off` a false.
        given = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        parser.error(f"--config {path}: {error}")
    if not isinstance(given, dict):
        parser.error(f"--config {path}: expected lines of the form `option: value`")
    return [argument for name, value in given.items() for argument in _argument(name, value)]


def _argument(name: str, value: str | list[str]) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    if value in ("true", "false"):
        return [option] if value == "true" else []
    # In one piece: what follows an option that is none, or begins with a dash, would be read as something else.
    return [f"{option}={value}"] if isinstance(value, str) else [option, *value]
