"""A real browser, and the built book; skips, with the reason, where one is missing."""

import pytest
from browsing import CHROMIUM, FLAGS, SITE


@pytest.fixture(scope="session")
def browser():
    """Chromium, as the system has it."""
    if not CHROMIUM:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Opens a page of the book; `page.complaints` collects requests to elsewhere and errors."""
    if not (SITE / "intro.html").exists():
        pytest.skip("no built book: python3 run.py book")
    contexts = []

    def open_page(name, fragment="", *, scheme="light", width=1280, height=800, **settings):
        size = {"width": width, "height": height}
        contexts.append(browser.new_context(color_scheme=scheme, viewport=size, **settings))
        contexts[-1].set_default_timeout(120_000)  # a busy machine is slow, not wrong
        page = contexts[-1].new_page()
        page.complaints = []

        def on_request(request):
            if not request.url.startswith(("file:", "data:", "blob:")):
                page.complaints.append(request.url)

        def on_console(message):
            if message.type == "error":
                page.complaints.append(message.text)

        page.on("request", on_request)
        page.on("requestfailed", lambda request: page.complaints.append(request.url))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("console", on_console)
        page.goto((SITE / name).as_uri() + fragment)
        page.wait_for_load_state("networkidle")
        return page

    yield open_page
    for context in contexts:
        context.close()
