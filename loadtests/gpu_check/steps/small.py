"""The step that proves the model that ships: README's question, then the tests that count, each written as it ends."""

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx

from loadtests.asking.servers import Servers
from loadtests.gpu_check.journal import Journal
from loadtests.gpu_check.settings import Settings, read_settings
from loadtests.plan import small_model

_ROOT = Path(__file__).parents[3]
_COUNTED = ("test_floor", "test_shared", "test_drafts")
_ANSWER = "42"


def readme_question() -> dict[str, Any]:
    """Return the request that README shows."""
    text = (_ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"/v1/chat/completions .* -d '(\{.*\})'", text)
    assert found is not None, "README.md shows no request"
    body: dict[str, Any] = json.loads(found[1])
    return body


class Recorder:
    """A plugin of pytest's: writes down each test as it ends."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take the test's own part, and whatever else of it failed."""
        if report.when == "call" or report.failed:
            name = report.nodeid.rpartition("/")[2]
            said = {"why": str(report.longrepr)[-1500:]} if report.failed else {}
            self._journal.write("small", test=name, outcome=report.outcome, **said)


def ask_readmes_question(settings: Settings) -> None:
    """Start the model that ships, ask what README asks, and write down what it answers."""
    subject, folder = small_model(), settings.folder / "small"
    folder.mkdir(exist_ok=True)
    flags = {"all": [*subject.flags["all"], *(("--enforce-eager",) if settings.eager else ())]}
    servers = Servers(str(subject.folder), subject.key, flags, folder)
    began = time.monotonic()
    try:
        servers.need(["plain"])
        settings.journal.write("small", start_s=round(time.monotonic() - began, 1))
        url = servers.urls["plain"] + "/v1/chat/completions"
        answer = httpx.post(url, json=readme_question(), timeout=60).raise_for_status().json()
        said = answer["choices"][0]["message"]["content"]
        settings.journal.write("small", readme=said, outcome="passed" if said == _ANSWER else "failed")
    finally:
        servers.stop_all()


def main() -> None:
    """Ask, then run the tests; a server that does not start is written down, and the tests are run all the same."""
    import pytest

    settings = read_settings()
    try:
        ask_readmes_question(settings)
    except Exception as error:
        settings.journal.write("small", readme=f"{type(error).__name__}: {error}", outcome="failed")
    tests = [str(_ROOT / "tests" / "engine" / f"{name}.py") for name in _COUNTED]
    arguments = ["--rootdir", str(_ROOT), "-p", "no:cacheprovider", *tests]
    raise SystemExit(int(pytest.main(arguments, plugins=[Recorder(settings.journal)])))


if __name__ == "__main__":
    main()
