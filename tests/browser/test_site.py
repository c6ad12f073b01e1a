"""The built book in a real browser, from the disk: complete without a network, readable, quiet."""

import re

import pytest
from browsing import FAINT, SITE

PAGES = sorted(
    path.relative_to(SITE).as_posix()
    for path in SITE.rglob("*.html")
    if path.relative_to(SITE).parts[0] != "_static" and path.name != "index.html"
)

# Formulas that MathJax has not turned into pictures, or has turned into its red error boxes.
UNSET = """() => [...document.querySelectorAll('.math')]
  .filter(e => !e.querySelector('mjx-container svg') || e.querySelector('[data-mjx-error]'))
  .map(e => e.textContent)"""

# Seconds of each player, or why it does not play.
SECONDS = """() => Promise.all([...document.querySelectorAll('.acl-audio audio')].map(player =>
  new Promise(done => {
    player.onloadedmetadata = () => done(player.duration);
    player.onerror = () => done(player.error.message);
    player.preload = 'metadata';
    player.load();
  })))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_complete_readable_and_quiet(visit, name, scheme):
    page = visit(name, scheme=scheme)
    assert page.locator("html").get_attribute("data-theme") == scheme
    page.evaluate("window.MathJax?.startup?.promise")
    assert page.evaluate(UNSET) == []
    page.add_style_tag(content="* { transition: none !important }")  # no colour half way
    assert page.evaluate(FAINT) == []
    for player in page.locator(".acl-audio audio").all():
        assert player.get_attribute("src").startswith("data:audio/mpeg;base64,")
        assert player.get_attribute("aria-label")
    seconds = page.evaluate(SECONDS)
    assert [s for s in seconds if not isinstance(s, (int, float)) or s <= 0] == []
    for picture in page.locator(".bd-article img").all():
        assert picture.get_attribute("alt")
        assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") > 0
    assert page.complaints == []


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1400, 900)])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_phone_and_desk(visit, name, width, height):
    page = visit(name, width=width, height=height)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_book_is_light():
    assert sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) < 60e6


def test_the_search_answers_without_a_network(visit):
    page = visit("search.html")
    page.get_by_role("searchbox").first.fill("temperature")
    page.keyboard.press("Enter")
    page.locator("#search-results li a").first.click()
    page.locator(".bd-article h1").first.wait_for()
    # from a file the browser lets no page read another, so that results come without an excerpt
    unread = (
        r"file:///\S*\.html|Failed to (fetch|load resource: net::ERR_FAILED)|Access to fetch at"
    )
    assert [c for c in page.complaints if not re.match(unread, c)] == []


def test_the_keyboard_alone_reads_the_book(visit):
    page = visit("notebooks/04_nt_xent.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent.trim()") == "Skip to main content"
    solution = page.locator(".bd-article details", has_text="Solution").first
    solution.locator("summary").first.focus()
    ring = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(ring) != "none"
    page.keyboard.press("Enter")
    assert solution.evaluate("details => details.open")
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.closest('a')?.getAttribute('href')"))
        if page.evaluate("document.activeElement === document.body"):
            break
    assert any("05_temperature" in str(href) for href in reached), "no way to the next page"


def test_the_menu_opens_on_a_phone(visit):
    page = visit("intro.html", width=390, height=844)
    menu = page.locator(".bd-sidebar-primary")
    link = menu.get_by_role("link", name="Bibliography")
    assert not link.is_visible() or link.bounding_box()["x"] < 0
    page.locator(".primary-toggle:visible").first.click()
    page.wait_for_timeout(600)  # it slides in
    assert link.bounding_box()["x"] >= 0
    link.click()
    page.wait_for_url("**/bibliography.html")


def test_the_first_page_leads_to_the_introduction(visit):
    page = visit("index.html")
    page.wait_for_url("**/intro.html")


def test_the_first_picture_moves_by_itself_and_stops(visit):
    page = visit("intro.html", height=1200)
    told = page.locator(".acl-x p[aria-live]")
    assert "Step 0:" in told.inner_text()
    page.get_by_role("button", name="Pause").click()
    assert "Step 0:" not in told.inner_text()
    page.get_by_role("button", name="Play").click()
    page.get_by_text("Step 120:").wait_for()
    assert page.complaints == []


def test_the_first_picture_stands_still_for_those_who_want_no_motion(visit):
    page = visit("intro.html", height=1200, reduced_motion="reduce")
    page.get_by_text("Step 120:").wait_for()
    assert page.get_by_role("button", name="Pause").count() == 0


def test_the_first_picture_is_there_without_scripts(visit):
    page = visit("intro.html", java_script_enabled=False)
    assert page.locator(".bd-article img").first.get_attribute("alt")


def test_search_finds_a_word_without_a_server(visit):
    page = visit("search.html")
    page.goto(page.url + "?q=licences")
    page.wait_for_function("document.querySelectorAll('#search-results li').length > 0")
    assert "Data and licences" in page.locator("#search-results").inner_text()


def test_a_solution_unfolds(visit):
    pages = [name for name in PAGES if name.startswith("notebooks/")]  # each has exercises
    for name in pages:
        page = visit(name)
        fold = page.locator(".bd-article details:not(.hide)").first
        fold.locator("summary").click()
        assert fold.locator("p").first.is_visible()
