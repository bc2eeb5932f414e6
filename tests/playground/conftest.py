"""Chromium, and pages opened in it that are held to what every page has to keep."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from stub import Stub, stub_server

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"),
    *("--disable-background-networking", "--disable-sync", "--hide-scrollbars"),
]
# Milliseconds: reached only where something does not come.
PATIENCE = 60_000
# Violations of the page's policy, kept from the first script on.
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""


# Not for the whole session: while it runs, this process has an event loop running, and other files' tests need theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    if CHROMIUM is None:
        pytest.skip("SKIPPED, UNTESTED: the page needs Debian's package chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)
        yield started
        started.close()


Open = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Open a server's page, with the browser's settings. At the end: no error, no violation, nothing from elsewhere."""
    opened: list[tuple[Page, str]] = []
    wrong: list[str] = []

    def open_page(url: str, **settings: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **settings})
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.add_init_script(_WATCH)
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("response", lambda response: wrong.extend(_elsewhere(response.url, url)))
        page.goto(f"{url}/playground")
        opened.append((page, url))
        return page

    yield open_page
    for page, _ in opened:
        wrong += page.evaluate("window.violations")
        page.context.close()
    assert wrong == []


def _elsewhere(address: str, url: str) -> list[str]:
    return [] if address.startswith((f"{url}/", "blob:", "data:")) else [address]


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    """The page's files as the server serves them, beside an endpoint that answers as it is told."""
    with stub_server() as running:
        yield running


@pytest.fixture(autouse=True)
def _as_new(request: pytest.FixtureRequest) -> None:
    if "stub" in request.fixturenames:
        request.getfixturevalue("stub").reset()
