"""What is copied works when pasted, whatever the question holds."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Open
from looking import choose, picture
from playwright.sync_api import Page, expect
from stub import RECORDED, Stub

# Whatever a shell, JSON, Python or a replacement could take for its own.
NASTY = 'It\'s "$HOME" `id` $(id) \\n {x} %s @@picture@@ $& END\nEND\n日本 🙂'
NAME = "it's a $picture.jpg"


def copied(page: Page, button: str) -> str:
    page.click(button)
    expect(page.locator("#copied")).to_contain_text("Copied.")
    return str(page.evaluate("navigator.clipboard.readText()"))


def prepared(page: Page, question: str = NASTY, key: str = "") -> Page:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose(page, name=NAME)
    page.fill("#question", question)
    page.fill("#key", key)
    page.locator("input[value=micro]").check()
    return page


def run(command: list[str], folder: Path, key: str) -> str:
    (folder / NAME).write_bytes(picture())
    environment = {"PATH": "/usr/bin:/bin", "DUALFOCUS_API_KEY": key, "HOME": "/nowhere"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


@pytest.mark.parametrize("key", ["", "sk-mine"])
@pytest.mark.parametrize(
    ("button", "command"), [("#copy-curl", ["sh", "-c"]), ("#copy-python", [sys.executable, "-c"])]
)
def test_what_is_copied_asks_the_same(
    visit: Open, stub: Stub, tmp_path: Path, button: str, command: list[str], key: str
) -> None:
    page = prepared(visit(stub.url), key=key)
    expect(page.locator("#model")).to_be_visible()
    page.click("#send")
    expect(page.locator("#answer")).to_be_visible()
    text = copied(page, button)
    assert "sk-mine" not in text
    assert "42" in run([*command, text], tmp_path, key)
    asked, again = stub.asked
    assert again["messages"] == asked["messages"]
    assert again["dualfocus"] == {"mode": asked["dualfocus"]["mode"]} == {"mode": "micro"}
    assert "stream" not in again, "one answer, for whoever reads it"
    assert again["model"] == RECORDED["models"]["data"][0]["id"]
    if key:
        assert stub.keys == [f"Bearer {key}"] * 2


def test_without_a_question_it_says_what_is_missing(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    page.click("#copy-curl")
    expect(page.locator("#copied")).to_contain_text("Choose a picture and write a question first.")


def test_where_the_clipboard_is_shut_it_can_be_copied_by_hand(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    choose(page)
    page.fill("#question", "What?")
    page.click("#copy-python")
    field = page.locator("#by-hand")
    expect(field).to_be_focused()
    assert "from openai import OpenAI" in field.input_value()
    selected = field.evaluate("field => field.value.slice(field.selectionStart, field.selectionEnd)")
    assert selected == field.input_value()
