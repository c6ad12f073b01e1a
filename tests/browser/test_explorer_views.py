"""Two views in a browser: sliders, boxes that are dragged, a link, and sounds made in the page."""

import pytest
from browsing import explorer, until
from playwright.sync_api import expect

PAGE = "notebooks/02_two_views.html"
PIXELS = "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, 101, 96).data).join()"


def pixels(of, k):
    """What the picture of the clip (0) or of a view (1, 2) shows."""
    return of.locator("canvas").nth(k).evaluate(PIXELS)


def press(page, slider, key, times=1):
    slider.focus()
    for _ in range(times):
        page.keyboard.press(key)


def told(of):
    return of.locator("p[aria-live]").inner_text()


def test_a_key_on_a_slider_changes_one_view_and_the_readout(visit):
    page = visit(PAGE)
    views = explorer(page, "views")
    before, said = [pixels(views, k) for k in range(3)], told(views)
    slider = views.get_by_label("view 1 starts at")
    press(page, slider, "ArrowRight", 9)
    assert slider.get_attribute("aria-valuetext") == "0.09 s"
    after = [pixels(views, k) for k in range(3)]
    assert after[0] == before[0] and after[1] != before[1] and after[2] == before[2]
    assert told(views) != said
    assert "0.09 s" in views.locator("canvas").nth(1).get_attribute("aria-label")
    assert page.complaints == []


@pytest.mark.parametrize(
    "label", ["mix-back", "crop", "compander", "noise", "time masks", "frequency masks", "draw"]
)
def test_every_step_changes_both_views(visit, label):
    page = visit(PAGE)
    views = explorer(page, "views")
    before = [pixels(views, k) for k in (1, 2)]
    slider = views.get_by_role("slider", name=label)
    press(page, slider, "ArrowLeft" if label in ("crop", "compander") else "ArrowRight", 3)
    assert all(pixels(views, k) != old for k, old in zip((1, 2), before, strict=True))


def test_the_same_second_at_strength_nought_is_the_same_view(visit):
    page = visit(PAGE, "#x=views&i=0.5&j=0.5&s=0")
    views = explorer(page, "views")
    assert pixels(views, 1) == pixels(views, 2)
    assert "cosine of 1.00" in told(views) and "1.00 s" in told(views)
    assert views.get_by_text("Nothing was done to it.").count() == 2
    press(page, views.get_by_label("strength"), "ArrowRight", 10)
    assert pixels(views, 1) != pixels(views, 2)
    assert page.complaints == []


def test_views_are_heard_and_change_with_the_settings(visit):
    page = visit(PAGE)
    views = explorer(page, "views")
    first = views.get_by_label("View 1, from its picture")
    first.scroll_into_view_if_needed()
    made = "a => a.src.startsWith('blob:') && a.duration > 0"
    until(page, made, first.element_handle())
    assert first.evaluate("a => a.duration") == pytest.approx(1, abs=0.05)
    before = first.get_attribute("src")
    press(page, views.get_by_label("time masks"), "ArrowRight", 2)
    expect(first).not_to_have_attribute("src", before)
    clip = views.get_by_label("The clip, as recorded")
    until(page, "a => a.duration > 0.9", clip.element_handle())
    sound = clip.get_attribute("src")
    views.get_by_role("combobox", name="clip").select_option(index=1)
    assert clip.get_attribute("src") != sound
    assert page.complaints == []


def test_a_box_is_dragged_and_the_page_still_scrolls(visit):
    page = visit(PAGE, width=390, height=844)
    views = explorer(page, "views")
    box = views.locator("rect[data-view='1']")
    box.scroll_into_view_if_needed()
    before = box.bounding_box()
    x, y = before["x"] + before["width"] / 3, before["y"] + before["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y, steps=4)
    page.mouse.up()
    after = views.locator("rect[data-view='1']").bounding_box()
    assert after["x"] - before["x"] == pytest.approx(30, abs=2)
    assert views.get_by_label("view 1 starts at").get_attribute("aria-valuetext") != "0.30 s"
    svg = views.locator("svg").first
    assert svg.evaluate("e => getComputedStyle(e).touchAction") == "pan-y"
    assert views.evaluate("e => e.scrollWidth <= e.clientWidth")


def test_buttons_draw_anew_and_go_back_to_the_authors(visit):
    page = visit(PAGE, "#x=views&mix=0.6&crop=0.3&tm=3&blur=1")
    views = explorer(page, "views")
    before = [pixels(views, k) for k in (1, 2)]
    views.get_by_role("button", name="Draw anew").click()
    assert views.get_by_label("draw", exact=True).get_attribute("aria-valuetext") == "no. 1"
    assert all(pixels(views, k) != old for k, old in zip((1, 2), before, strict=True))
    views.get_by_role("button", name="As the authors").click()
    assert views.get_by_label("mix-back").get_attribute("aria-valuetext") == "0.05"
    assert views.get_by_label("time masks").get_attribute("aria-valuetext") == "0"
    assert not views.get_by_label("Gaussian blur").is_checked()


def test_a_link_brings_views_back(visit):
    page = visit(PAGE, "#x=views&clip=2&mix=0.4&fm=2&seed=7")
    views = explorer(page, "views")
    assert views.get_by_role("combobox", name="clip").input_value() == "2"
    assert views.get_by_label("mix-back").get_attribute("aria-valuetext") == "0.40"
    link = views.get_by_role("link", name="Link to these settings").get_attribute("href")
    before = [pixels(views, k) for k in range(3)]
    again = explorer(visit(PAGE, link), "views")
    assert [pixels(again, k) for k in range(3)] == before
