"""The results explorer in a browser: asked by key, finger and link, it names the record."""

import re

from browsing import explorer

PAGE = "notebooks/14_does_it_hold.html"


def told(of):
    return of.locator("p").filter(has_text="Record:").inner_text()


def finding(of):
    return of.locator("[aria-live]").inner_text()


def test_another_measure_by_keyboard_changes_picture_and_sentence(visit):
    page = visit(PAGE)
    results = explorer(page, "results")
    picture, before = results.locator("svg").last.inner_html(), finding(results)
    assert "of 21 cells" in before and "by luck" in before
    results.get_by_label("measure").focus()
    page.keyboard.press("ArrowDown")
    assert results.get_by_label("measure").input_value() == "knn"
    assert finding(results) != before
    assert results.locator("svg").last.inner_html() != picture
    assert page.complaints == []


def test_arrow_keys_lead_from_cell_to_cell_and_each_names_its_record(visit):
    page = visit(PAGE)
    results = explorer(page, "results")
    cells = results.locator("svg g[role=img]")
    assert cells.count() == 21
    results.locator("svg g[tabindex='0']").focus()
    heard = {told(results)}
    for key in ["ArrowDown"] * 2 + ["ArrowRight"] * 2 + ["ArrowDown"] * 2:
        page.keyboard.press(key)
        heard.add(told(results))
    assert len(heard) == 7
    assert "no temperature" in told(results)  # the lowest row
    for words in heard:
        assert re.search(r"95 % interval .* n = 120 .* seeds 0, 1, 2", words)
        assert "alpha_temperature_synthetic.json" in words
    assert results.locator("svg g[tabindex='0']").get_attribute("aria-label") == told(results)


def test_mouse_and_finger_ask_a_cell(visit):
    page = visit(PAGE)
    results = explorer(page, "results")
    results.locator("svg g[role=img]").nth(3).hover()
    assert told(results) == results.locator("svg g[role=img]").nth(3).get_attribute("aria-label")
    page = visit(PAGE, width=390, height=844, has_touch=True, is_mobile=True)
    results = explorer(page, "results")
    results.locator("svg g[role=img]").nth(7).tap()
    assert told(results) == results.locator("svg g[role=img]").nth(7).get_attribute("aria-label")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_settings_come_back_from_a_link(visit):
    link = "#x=results&sweep=fold&measure=knn_z&view=curves&axis=temperature"
    page = visit(PAGE, link)
    results = explorer(page, "results")
    values = {k: results.get_by_label(k).input_value() for k in ("sweep", "measure", "view")}
    assert values == {"sweep": "fold", "measure": "knn_z", "view": "curves"}
    assert results.locator("svg g[role=img]").count() == 10
    assert "Wilson" in told(results) and "one_fold.json" in told(results)
    address = results.locator(".link a").get_attribute("href")
    assert all(part in address for part in link[1:].split("&"))


def test_a_sweep_without_the_measure_says_so_and_shows_its_like(visit):
    page = visit(PAGE, "#x=results&sweep=published_alpha&measure=linear")
    results = explorer(page, "results")
    assert "has no linear probe of h" in finding(results)
    assert "by patches" in finding(results)
    assert results.locator("svg g[role=img]").count() == 11
    assert "README" in told(results)
