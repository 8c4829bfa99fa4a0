"""The page in a real browser: three classes and a query are drawn and named; nobody is shut out.

Run by `make test-browser`. Screenshots lie in build/screenshots afterwards.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FOUND = next(filter(None, map(shutil.which, BROWSERS)), None)
ROOT = Path(__file__).parents[2]
AXE = Path(os.environ.get("KSHOT_AXE", ROOT / ".venv" / "axe" / "axe.min.js"))
SCREENSHOTS = ROOT / "build" / "screenshots"

SIZES = {"desktop": (1280, 860), "phone": (390, 844)}
SHAPES = {
    "circle": [
        [(0.5, 0.2), (0.71, 0.29), (0.8, 0.5), (0.71, 0.71), (0.5, 0.8), (0.29, 0.71),
         (0.2, 0.5), (0.29, 0.29), (0.5, 0.2)],
    ],
    "cross": [[(0.2, 0.2), (0.8, 0.8)], [(0.8, 0.2), (0.2, 0.8)]],
    "zigzag": [[(0.15, 0.3), (0.35, 0.7), (0.5, 0.3), (0.65, 0.7), (0.85, 0.3)]],
}  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if FOUND is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra `dev`)")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=FOUND, args=["--no-sandbox"])
        yield opened
        opened.close()


def address_of(*arguments: str) -> Iterator[str]:
    """Where `kshot demo` answers, while it runs."""
    command = [sys.executable, "-m", "kshot", "demo", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert " at http://" in line
    yield line.split(" at ")[1].split()[0]
    process.terminate()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    yield from address_of()


@pytest.fixture(scope="module")
def waves_address() -> Iterator[str]:
    yield from address_of("--sinusoid")


def open_page(browser: Any, address: str, size: str, colors: str) -> tuple[Any, list[str]]:
    """A page, and what it complains of on its console."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=colors, device_scale_factor=1
    )
    context.set_default_timeout(120_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((address, "data:", "blob:"))
            else complaints.append(f"asked {request.url}")
        ),
    )
    page.goto(address)
    page.wait_for_selector("html[data-ready]", state="attached")
    return page, complaints


def expect_text(page: Any, place: str, text: str) -> None:
    """Wait until something says so; the page's policy forbids to wait by a script of one's own."""
    page.locator(place, has_text=text).wait_for()


def stroke(page: Any, pad: str, shape: str, dx: float = 0.0, zoom: float = 1.0) -> None:
    """Draw a shape with the mouse."""
    canvas = page.locator(pad)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for line in SHAPES[shape]:
        for number, (x, y) in enumerate(line):
            place = (
                box["x"] + box["width"] * (0.5 + (x - 0.5) * zoom + dx),
                box["y"] + box["height"] * (0.5 + (y - 0.5) * zoom),
            )
            page.mouse.move(*place, steps=2)
            if number == 0:
                page.mouse.down()
        page.mouse.up()


def teach(page: Any) -> None:
    """Name the page's three classes and draw an example of each."""
    for number, shape in enumerate(SHAPES):
        card = page.locator(".class").nth(number)
        card.locator("input").fill(shape)
        card.locator("input").press("Tab")
        page.locator(".class").nth(number).locator(".pick").click()
        stroke(page, "#example-pad", shape, dx=0.03)
        page.click("#keep")


def violations(page: Any) -> list[str]:
    """What axe-core finds against WCAG 2.2 AA."""
    assert AXE.exists(), f"there is no {AXE}: `make test-browser` fetches axe-core with npm"
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(
        "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']})"
    )
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes']]}"
        for one in found["violations"]
    ]


@pytest.mark.parametrize("colors", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_three_drawn_classes_and_a_query_are_named(browser, address, size: str, colors: str):
    page, complaints = open_page(browser, address, size, colors)
    teach(page)
    for shape in ("cross", "zigzag"):
        if shape != "cross":
            page.click("#query-clear")
        stroke(page, "#query-pad", shape, dx=-0.05, zoom=0.8)
        expect_text(page, "#verdict", shape)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(500)
    page.screenshot(path=SCREENSHOTS / f"draw-{size}-{colors}.png", full_page=True)
    wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not wide, "nothing is cut off at the side"
    assert violations(page) == []
    assert complaints == []
    page.context.close()


def test_the_learner_is_changed_on_the_same_drawings(browser, address):
    page, complaints = open_page(browser, address, "desktop", "light")
    teach(page)
    stroke(page, "#query-pad", "circle", zoom=0.8)
    expect_text(page, "#verdict", "circle")
    page.check("input[value=maml]", force=True)
    expect_text(page, "#map-of", "outputs")
    expect_text(page, "#verdict", "circle")
    assert complaints == []
    page.context.close()


def test_everything_can_be_done_by_keyboard(browser, address):
    page, complaints = open_page(browser, address, "desktop", "light")

    def draw(pad: str, *moves: str) -> None:
        page.focus(pad)
        page.keyboard.press("Space")
        for move in moves:
            for _ in range(5):
                page.keyboard.press(f"Shift+{move}")
        page.keyboard.press("Space")

    corner = ("ArrowRight", "ArrowDown")
    line = ("ArrowLeft", "ArrowLeft")
    for number, moves in ((0, corner), (1, line)):
        page.locator(".class").nth(number).locator(".pick").focus()
        page.keyboard.press("Enter")
        draw("#example-pad", *moves)
        page.keyboard.press("Enter")
        page.locator(".class").nth(number).locator(".shot").wait_for()
    draw("#query-pad", *line)
    expect_text(page, "#verdict", "Star")
    assert complaints == []
    page.context.close()


def test_a_class_set_is_saved_and_loaded(browser, address, tmp_path: Path):
    page, complaints = open_page(browser, address, "desktop", "light")
    teach(page)
    with page.expect_download() as download:
        page.click("#save")
    file = tmp_path / "classes.json"
    download.value.save_as(file)
    page.click("#restart")
    assert page.locator(".shot").count() == 0
    page.set_input_files("#load", file)
    page.locator(".shot").nth(2).wait_for()
    names = page.locator(".class input").evaluate_all("all => all.map(one => one.value)")
    assert names == list(SHAPES)
    (tmp_path / "wrong.json").write_text("{}")
    page.set_input_files("#load", tmp_path / "wrong.json")
    page.wait_for_selector("#alert:not([hidden])")
    assert "is no class set" in page.text_content("#alert")
    assert complaints == []
    page.context.close()


@pytest.mark.parametrize(("size", "colors"), [("desktop", "light"), ("phone", "dark")])
def test_waves_are_followed_step_by_step(browser, waves_address, size: str, colors: str):
    page, complaints = open_page(browser, waves_address, size, colors)
    box = page.locator("#plot").bounding_box()
    for x, y in ((0.2, 0.3), (0.4, 0.7), (0.6, 0.35), (0.75, 0.25)):
        page.mouse.click(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
    page.locator(".player").nth(2).wait_for()
    expect_text(page, "#step-value", "10")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"waves-{size}-{colors}.png", full_page=True)
    assert violations(page) == []
    assert complaints == []
    page.context.close()
