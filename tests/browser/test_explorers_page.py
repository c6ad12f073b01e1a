"""Every link with settings on the book's pages leads to an explorer that takes them."""

from urllib.parse import parse_qs

import pytest
from browsing import SITE

LISTED = "explorers.html"


def links(visit):
    page = visit(LISTED)
    hrefs = page.locator(".bd-article a").evaluate_all(
        "all => all.map(a => a.getAttribute('href'))"
    )
    return [href for href in hrefs if "#x=" in href]


def test_each_link_opens_its_explorer_with_its_settings(visit):
    if not (SITE / LISTED).exists():
        pytest.skip(f"no {LISTED} in the built book")
    asked = links(visit)
    assert len({href.split("&")[0] for href in asked}) == 6
    for href in asked:
        name, fragment = href.split("#")
        page = visit(name, f"#{fragment}")
        shown = page.locator("[data-explorer-asked]")
        assert shown.count() == 1, href
        told = shown.get_by_role("link", name="Link to these settings").get_attribute("href")
        wanted, got = parse_qs(fragment), parse_qs(told[1:])
        for key, (value,) in wanted.items():
            (back,) = got[key]
            try:
                assert float(back) == float(value), (href, key)
            except ValueError:
                assert back == value, (href, key)
        assert page.complaints == []
