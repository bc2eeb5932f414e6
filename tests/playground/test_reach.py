"""For whom and where: keyboards, phones, the dark, calm eyes, proxies, and a policy that lets nothing else in."""

from typing import Any

import pytest
from conftest import Open
from looking import ask, choose
from playwright.sync_api import Page, expect
from stub import PREFIX, Stub

STOPS = ["file", "question", "dual", "key", "send", "sample", "copy-curl", "copy-python"]
_FOCUSED = "document.activeElement.id || document.activeElement.value || 'body'"
# The least contrast of any text that is seen, and whose it is (WCAG's formula; the nearest background that is painted).
_LEAST_CONTRAST = """() => {
    const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => parts(colour).slice(0, 3).map((value) => value / 255)
        .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
    const ground = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const colour = getComputedStyle(each).backgroundColor;
            if ((parts(colour)[3] ?? 1) === 1) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const texts = [...document.body.querySelectorAll("*")].filter((element) => element.checkVisibility() &&
        [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
    return texts.map((element) => {
        const [one, other] = [getComputedStyle(element).color, ground(element)].map(light);
        return [(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), element.outerHTML.slice(0, 80)];
    }).sort((one, other) => one[0] - other[0])[0];
}"""


def light_of_ground(page: Page) -> float:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3


def answered(page: Page) -> Page:
    choose(page)
    ask(page)
    return page


def test_everything_is_reached_by_keyboard_and_what_has_the_focus_shows_it(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    for stop in STOPS:
        before = page.screenshot()
        page.keyboard.press("Tab")
        assert page.evaluate(_FOCUSED) == stop
        assert page.screenshot() != before


def test_it_works_by_keyboard_alone(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    page.keyboard.press("Tab")
    with page.expect_file_chooser() as chooser:
        # Playwright does not wait until dialogs are caught: asking for the focus lets that go first.
        expect(page.locator("#file")).to_be_focused()
        page.keyboard.press("Enter")
    chooser.value.set_files({"name": "a.png", "mimeType": "image/png", "buffer": b"no matter what"})
    expect(page.locator("#drop-title")).to_have_text("a.png")
    page.keyboard.press("Tab")
    page.keyboard.type("First line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_be_visible()
    [body] = stub.asked
    assert body["dualfocus"]["mode"] == "regions"
    assert body["messages"][0]["content"][1]["text"] == "First line\nsecond"


def test_what_is_asked_for_has_a_label(visit: Open, stub: Stub) -> None:
    page = visit(stub.url)
    for label in (
        "Choose a picture",
        "Question",
        "API key",
        "dual",
        "regions",
        "search",
        "adaptive",
        "macro",
        "micro",
        "off",
    ):
        expect(page.get_by_label(label, exact=label != "Choose a picture")).to_have_count(1)
    expect(page.get_by_role("group", name="Looks")).to_be_visible()
    expect(page.locator("[aria-live]#status")).to_have_attribute("role", "status")


def test_a_phone_need_not_be_scrolled_sideways(visit: Open, stub: Stub) -> None:
    page = visit(stub.url, viewport={"width": 320, "height": 640})
    choose(page, name=f"{'long' * 60}.jpg")
    ask(page, "Donaudampfschifffahrtsgesellschaft" * 12)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        page.click("#copy-curl")
        expect(page.locator("#copied")).not_to_be_empty()
    stub.refuse(400, "x" * 400, "invalid_value")
    page.click("#send")
    expect(page.locator("#problem")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 320


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_easy_to_read_in_the_light_and_in_the_dark(visit: Open, stub: Stub, scheme: Any) -> None:
    stub.models_need_key = True
    page = visit(stub.url, color_scheme=scheme)
    expect(page.locator("#key-hint.needed")).to_be_visible()
    assert (light_of_ground(page) < 50) is (scheme == "dark")
    answered(page)
    least, whose = page.evaluate(_LEAST_CONTRAST)
    assert least >= 4.5, whose
    stub.refuse(400, "No.", "invalid_value")
    page.click("#send")
    expect(page.locator("#problem")).to_be_visible()
    least, whose = page.evaluate(_LEAST_CONTRAST)
    assert least >= 4.5, whose


@pytest.mark.parametrize(("wish", "moves"), [("reduce", False), ("no-preference", True)])
def test_nothing_moves_for_those_who_want_it_so(visit: Open, stub: Stub, wish: Any, moves: bool) -> None:
    stub.is_held = True
    page = visit(stub.url, reduced_motion=wish)
    choose(page)
    page.fill("#question", "What?")
    page.click("#send")
    expect(page.locator("#status")).to_have_text("Looking …")
    assert (page.evaluate("document.getAnimations().length") > 0) is moves
    page.click("#stop")


def test_it_asks_under_a_proxys_prefix(visit: Open, stub: Stub) -> None:
    page = visit(stub.url + PREFIX)
    page.click("#sample")
    expect(page.locator("#answer-title")).to_have_text("42")
    page.goto(f"{stub.url}{PREFIX}/playground/")
    assert page.url == f"{stub.url}{PREFIX}/playground"


@pytest.mark.parametrize(
    ("script", "violated"),
    [
        ("document.body.append(Object.assign(document.createElement('script'), {text: '1'}))", "script-src-elem"),
        ("document.body.setAttribute('style', 'color: red')", "style-src-attr"),
        ("fetch('http://127.0.0.1:9/').catch(() => 0)", "connect-src"),
        ("new Image().src = 'http://127.0.0.1:9/'", "img-src"),
        ("document.body.append(Object.assign(document.createElement('iframe'), {src: '/playground'}))", "frame-src"),
    ],
)
def test_the_policy_lets_nothing_else_in(visit: Open, stub: Stub, script: str, violated: str) -> None:
    page = visit(stub.url)
    page.evaluate(f"() => {{ {script} }}")
    page.wait_for_function("window.violations.length > 0")
    assert page.evaluate("window.violations.splice(0)") == [violated]
