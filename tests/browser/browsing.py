"""The built book, a browser to open it with, and what is asked of every page."""

import os
import shutil
import time
from pathlib import Path

SITE = Path(__file__).resolve().parents[2] / "book" / "_build" / "html"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",  # continuous integration runs as root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

# Text against the first painted ground below it.
FAINT = """within => {
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const rgba = colour => colour.match(/[\\d.]+/g).map(Number);
  const known = new Map([[null, [255, 255, 255]]]);
  const ground = element => {
    if (!known.has(element)) {
      const [r, g, b, a = 1] = rgba(getComputedStyle(element).backgroundColor);
      known.set(element, a > .5 ? [r, g, b] : ground(element.parentElement));
    }
    return known.get(element);
  };
  const shown = element => element.checkVisibility({visibilityProperty: true}) &&
    element.getClientRects().length > 0;
  const words = element => [...element.childNodes].some(n => n.nodeType == 3 && n.data.trim());
  return [...document.querySelectorAll(`${within} *`)].filter(e => words(e) && shown(e))
    .filter(e => !e.closest('mjx-container, script, style')).map(e => {
      const style = getComputedStyle(e);
      const ink = rgba(e instanceof SVGElement ? style.fill : style.color);
      const [a, b] = [light(ink), light(ground(e))];
      const large = parseFloat(style.fontSize) >= 24;
      const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
      return {text: e.textContent.trim().slice(0, 40), ratio, enough: ratio >= (large ? 3 : 4.5)};
    }).filter(found => !found.enough);
}"""


def explorer(page, name):
    """The first explorer of this name on a page, on the screen."""
    found = page.locator(f".acl-x[data-explorer={name}]").first
    found.scroll_into_view_if_needed()
    return found


def faint(page, scheme, within=".bd-article"):
    """Texts that can hardly be read in a theme, which the page takes over from the system."""
    page.emulate_media(color_scheme=scheme)
    until(page, "scheme => document.documentElement.dataset.theme == scheme", scheme)
    page.add_style_tag(content="* { transition: none !important }")  # no colour half way
    return page.evaluate(FAINT, within)


def until(page, expression, argument=None):
    """Waits until an expression holds; wait_for_function evaluates strings, which pages forbid."""
    end = time.monotonic() + 120
    while not page.evaluate(expression, argument):
        assert time.monotonic() < end, f"still not: {expression}"
        page.wait_for_timeout(100)
