"""What the tests of deploy/ share."""

from collections.abc import Callable

import pytest
from dualfocus_server.api import chat, health
from dualfocus_server.settings import Settings, settings_of
from dualfocus_server.startup.arguments import parse_arguments


@pytest.fixture(scope="session")
def paths() -> set[str]:
    """The server's own paths."""
    return {str(getattr(route, "path", "")) for route in (*chat.router.routes, *health.router.routes)}


@pytest.fixture
def accepted(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], Settings]:
    """Reads a command line with the server's own parser, and fails with the parser's complaint."""

    def read(argv: list[str]) -> Settings:
        try:
            return settings_of(parse_arguments(argv))
        except SystemExit:
            raise AssertionError(capsys.readouterr().err) from None

    return read
