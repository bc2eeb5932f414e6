"""Take the README's picture of the page: `make screenshot`. The shipped model answers about the sample."""

import tempfile
from pathlib import Path

from conftest import CHROMIUM, FLAGS
from PIL import Image
from playwright.sync_api import sync_playwright
from running_server import PATIENCE, Server, start_server

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "playground.png"
WIDTH, HEIGHT = 1180, 1530
COLOURS = 128


def photograph(server: Server) -> None:
    """Ask about the sample and keep what is seen, in as many colours as it takes to look the same."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce")
        page.goto(f"{server.url}/playground")
        page.click("#sample")
        page.wait_for_selector(".framed svg")
        page.mouse.move(0, 0)
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=PICTURE)
        browser.close()
    with Image.open(PICTURE) as seen:
        reduced = seen.convert("RGB").quantize(COLOURS)
    reduced.save(PICTURE, optimize=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        running = start_server(Path(folder) / "log", model=())
        try:
            photograph(running)
        finally:
            running.process.terminate()
            running.process.wait(PATIENCE)
