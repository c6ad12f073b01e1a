"""A real browser, and the built book; skips, with the reason, where one is missing."""

from contextlib import closing

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


def watched(context):
    """A tab; `page.complaints` collects requests to elsewhere and errors."""
    context.set_default_timeout(120_000)  # a busy machine is slow, not wrong
    page = context.new_page()
    page.complaints = []

    def on_request(request):
        if not request.url.startswith(("file:", "data:", "blob:", "about:")):
            page.complaints.append(request.url)

    def on_console(message):
        if message.type == "error":
            page.complaints.append(message.text)

    page.on("request", on_request)
    page.on("requestfailed", lambda request: page.complaints.append(request.url))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", on_console)
    return page


@pytest.fixture(scope="session")
def tab(browser):
    """The tab that readers of a desk's screen share: a new one takes as long as a page."""
    with closing(browser.new_context()) as context:
        yield watched(context)


@pytest.fixture
def visit(browser, request):
    """Opens a page of the book as if for the first time; `page.complaints` as in `watched`.

    In the tab that all tests share, which leaves the page it was on; in one of its own where
    `settings` of a browser's context are asked for, or `alone`.
    """
    if not (SITE / "intro.html").exists():
        pytest.skip("no built book: python3 run.py book")
    contexts = []

    def open_page(
        name,
        fragment="",
        *,
        scheme="light",
        motion="no-preference",
        width=1280,
        height=800,
        alone=False,
        **settings,
    ):
        size = {"width": width, "height": height}
        if alone or settings:
            contexts.append(browser.new_context(viewport=size, **settings))
            page = watched(contexts[-1])
        else:
            page = request.getfixturevalue("tab")
            if page.url.startswith("file:"):
                page.evaluate("localStorage.clear()")
            page.goto("about:blank")  # a link to the page itself would not load it again
            page.complaints.clear()
            page.set_viewport_size(size)
            page.mouse.move(0, 0)
        page.emulate_media(color_scheme=scheme, reduced_motion=motion)
        page.goto((SITE / name).as_uri() + fragment)
        page.evaluate("window.MathJax?.startup?.promise")  # nothing moves any more
        return page

    yield open_page
    for context in contexts:
        context.close()
