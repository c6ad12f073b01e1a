"""The built book in a real browser, from the disk: complete without a network, readable, quiet."""

import functools
import re
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from browsing import SITE, faint, until

from acl_lib.publish import POLICY

PAGES = sorted(
    path.relative_to(SITE).as_posix()
    for path in SITE.rglob("*.html")
    if path.relative_to(SITE).parts[0] != "_static" and path.name != "index.html"
)

# Attributes by which a page loads something, or goes somewhere by itself; a link is followed by
# readers only.
LOADING = {"src", "srcset", "data", "poster", "background", "action", "formaction", "ping"}
QUIET_LINKS = {"author", "canonical", "help", "index", "license", "next", "prev", "search", "up"}
ELSEWHERE = re.compile(r"\s*(https?:)?//|\s*(ftp|wss?):", re.I)
IN_STYLES = re.compile(r"(?:url\(\s*|@import\s+)[\"']?\s*(?:https?:)?//[^\s\"')]+", re.I)
IN_SCRIPTS = re.compile(
    r"(?:\b(?:fetch|import|importScripts|sendBeacon|WebSocket|EventSource|Worker)\s*\(|"
    r"\bfrom|\bimport|\.src\s*=|\.open\(\s*[\"']\w+[\"']\s*,)\s*[\"'`](?:https?:|wss?:)?//[^\"'`]+"
)


class Loads(HTMLParser):
    """Collects what a page loads from elsewhere, and the policy that it gives to the browser."""

    def __init__(self, page):
        super().__init__()
        self.found, self.policy, self.inside = [], None, None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.inside, given = tag, {name: value or "" for name, value in attributes}
        asked = [value for name, value in given.items() if name in LOADING]
        if tag == "link" and given.get("rel") not in QUIET_LINKS:
            asked.append(given.get("href", ""))
        if tag == "base":
            asked.append(given.get("href", ""))
        if tag == "meta" and given.get("http-equiv", "").lower() == "refresh":
            asked.append(given["content"].partition("=")[2])
        if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        self.found += [f"<{tag}> {url}" for url in asked if ELSEWHERE.match(url)]
        self.found += IN_STYLES.findall(given.get("style", ""))

    def handle_data(self, data):
        if self.inside == "style":
            self.found += IN_STYLES.findall(data)
        elif self.inside == "script":
            self.found += IN_SCRIPTS.findall(data)

    def handle_endtag(self, tag):
        self.inside = None


def test_what_would_be_loaded_from_elsewhere_is_seen():
    page = """<base href="//a.org/"><link rel="stylesheet" href="https://b.org/c.css">
    <link rel="canonical" href="https://b.org/"><a href="https://b.org/">a link is none</a>
    <img srcset="https://d.org/e.png 2x"><script src="http://f.org/g.js"></script>
    <p style="background: url('https://h.org/i.png')"></p><style>@import "//j.org/k.css";</style>
    <script>import x from "https://l.org/m.js"; fetch('https://n.org'); a.src = "//o.org/p.js"
    const link = "https://q.org/"</script><meta http-equiv="refresh" content="0; url=https://r.org">
    <iframe src="local.html"></iframe>"""
    hosts = [re.search(r"\b(\w)\.org", found)[1] for found in Loads(page).found]
    assert "".join(hosts) == "abdfhjlnor"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_nothing_to_load_from_elsewhere_and_forbids_it(name):
    page = Loads((SITE / name).read_text(encoding="utf-8"))
    assert page.found == []
    assert page.policy == POLICY


def test_neither_do_the_files_of_the_theme():
    found = [
        (path.name, what)
        for kind, pattern in (("css", IN_STYLES), ("js", IN_SCRIPTS), ("mjs", IN_SCRIPTS))
        for path in SITE.rglob(f"*.{kind}")
        for what in pattern.findall(path.read_text(encoding="utf-8"))
    ]
    assert found == []


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


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_complete_readable_and_quiet_on_phone_and_desk(visit, name):
    page = visit(name, width=1400, height=900)
    assert page.evaluate(UNSET) == []
    assert faint(page, "light") == [] and faint(page, "dark") == []
    for player in page.locator(".acl-audio audio").all():
        assert player.get_attribute("src").startswith("data:audio/mpeg;base64,")
        assert player.get_attribute("aria-label")
    seconds = page.evaluate(SECONDS)
    assert [s for s in seconds if not isinstance(s, (int, float)) or s <= 0] == []
    for picture in page.locator(".bd-article img").all():
        assert picture.get_attribute("alt")
        assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") > 0
    if name.startswith("notebooks/"):  # each has exercises
        fold = page.locator(".bd-article details:not(.hide)").first
        fold.locator("summary").click()
        assert fold.locator("p").first.is_visible()
    for width, height in [(1400, 900), (390, 844)]:
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.wait_for_load_state("networkidle")
    assert page.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["intro.html", "notebooks/04_nt_xent.html"])
def test_a_page_begins_in_the_theme_and_width_of_the_reader(visit, name, scheme):
    page = visit(name, scheme=scheme, width=390, height=844)
    assert page.locator("html").get_attribute("data-theme") == scheme
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.complaints == []


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
    page = visit("search.html")
    page.goto((SITE / "index.html").as_uri())
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
    page = visit("intro.html", height=1200, motion="reduce")
    page.get_by_text("Step 120:").wait_for()
    assert page.get_by_role("button", name="Pause").count() == 0


def test_the_first_picture_is_there_without_scripts(visit):
    page = visit("intro.html", java_script_enabled=False)
    assert page.locator(".bd-article img").first.get_attribute("alt")


def test_search_finds_a_word_without_a_server(visit):
    page = visit("search.html")
    page.goto(page.url + "?q=licences")
    until(page, "document.querySelectorAll('#search-results li').length > 0")
    assert "Data and licences" in page.locator("#search-results").inner_text()


class Quietly(SimpleHTTPRequestHandler):
    """Serves without a line for every request."""

    def log_message(self, *words):
        pass


ASK = """address => new Promise(done => {
  document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
  const script = document.createElement('script');
  script.src = address;
  script.onload = script.onerror = () => setTimeout(() => done('asked'), 1000);
  document.head.append(script);
})"""


@pytest.mark.parametrize("name", ["intro.html", "notebooks/12_embedding_analysis.html"])
def test_a_page_from_a_server_is_whole_and_its_policy_bites(visit, name):
    page = visit(name)  # from a file, with the same policy
    assert page.complaints == []
    serve = functools.partial(Quietly, directory=SITE)
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.goto("about:blank")
        page.complaints.clear()
        page.goto(f"http://127.0.0.1:{server.server_port}/{name}")
        page.wait_for_load_state("networkidle")
        own = f"http://127.0.0.1:{server.server_port}/"
        assert [c for c in page.complaints if not c.startswith(own)] == []
        # nothing needs to answer there: the browser must not even ask
        assert page.evaluate(ASK, "http://127.0.0.1:9/x.js") == "script-src-elem"
        server.shutdown()
