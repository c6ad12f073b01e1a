"""The circle and the penalty in a browser: keys, mouse, finger, link, and what they change."""

import pytest
from browsing import explorer
from playwright.sync_api import expect

ACL = "notebooks/09_acl_pretraining.html"
MARGIN = "notebooks/13_additive_margin.html"


def readout(of, row):
    """A row of the table under the circle, as numbers."""
    cells = of.get_by_role("row", name=row).get_by_role("cell").all_inner_texts()
    return [float(cell) for cell in cells]


def points(of):
    return of.get_by_role("slider", name="clip 1, view 1").first


def test_a_key_on_the_slider_changes_picture_and_readout(visit):
    page = visit(ACL)
    circle = explorer(page, "circle")
    slider = circle.get_by_label("weight of NT-Xent")
    picture, before = circle.locator("svg").first.inner_html(), readout(circle, "ACL")
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "0.50"
    after = readout(circle, "ACL")
    assert after[0] != before[0] and after[1] == before[1]  # beside it stays alpha = 1
    assert circle.locator("svg").first.inner_html() != picture
    # what the loss says is what its parts say
    parts = [readout(circle, row)[0] for row in ("NT-Xent", "angular term")]
    assert after[0] == pytest.approx(sum(parts) / 2, abs=2e-3)
    assert page.complaints == []


def test_a_dragged_point_changes_the_loss(visit):
    page = visit(ACL)
    circle = explorer(page, "circle")
    before = readout(circle, "NT-Xent")
    place = points(circle).bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 60, steps=5)
    page.mouse.up()
    assert readout(circle, "NT-Xent") != before
    moved = points(circle).bounding_box()
    assert abs(moved["x"] - place["x"]) + abs(moved["y"] - place["y"]) > 10
    assert page.complaints == []


def test_a_point_moves_by_the_keyboard(visit):
    page = visit(ACL)
    circle = explorer(page, "circle")
    before, told = readout(circle, "ACL"), points(circle).get_attribute("aria-valuetext")
    points(circle).focus()
    page.keyboard.press("ArrowRight")
    assert points(circle).get_attribute("aria-valuetext") != told
    assert readout(circle, "ACL") != before


def test_a_finger_moves_a_point_and_the_page_still_scrolls(visit):
    page = visit(ACL, width=390, height=844, has_touch=True, is_mobile=True)
    circle = explorer(page, "circle")
    before = readout(circle, "NT-Xent")
    place = points(circle).bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    hand = page.context.new_cdp_session(page)

    def touch(kind, *at):
        fingers = [{"x": at[0], "y": at[1]}] if at else []
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    touch("touchStart", x, y)
    for k in range(1, 6):
        touch("touchMove", x + 10 * k, y + 10 * k)
    touch("touchEnd")
    assert readout(circle, "NT-Xent") != before
    assert circle.locator("svg").first.evaluate("e => getComputedStyle(e).touchAction") == "pan-y"


@pytest.mark.parametrize("sphere", [False, True])
def test_play_brings_the_views_of_a_clip_together(visit, sphere):
    page = visit(ACL, f"#x=circle&alpha=0.3&tau=0.2&sphere={int(sphere)}", alone=True)
    page.clock.install()
    page.clock.pause_at(page.evaluate("Date.now()") + 1000)
    circle = explorer(page, "circle")
    before = readout(circle, "angle of a clip's views")
    circle.get_by_role("button", name="Play").click()
    page.clock.run_for(60_000)
    expect(circle.locator("p[aria-live]")).to_contain_text("Step 300:")
    after = readout(circle, "angle of a clip's views")
    assert after[0] < before[0]
    assert page.complaints == []


def test_less_motion_means_the_end_at_once(visit):
    page = visit(ACL, motion="reduce")
    circle = explorer(page, "circle")
    circle.get_by_role("button", name="Play").click()
    expect(circle.locator("p[aria-live]")).to_contain_text("Step 300:")
    assert circle.get_by_role("button", name="Pause").count() == 0


def test_a_swap_leaves_the_loss_and_changes_the_gap(visit):
    page = visit(ACL)
    circle = explorer(page, "circle")
    loss, gap = readout(circle, "ACL"), readout(circle, "class gap")
    circle.get_by_role("button", name="Swap two clips").click()
    assert readout(circle, "ACL") == loss and readout(circle, "class gap") != gap
    assert "have changed places" in circle.locator("p[aria-live]").inner_text()


def test_the_sphere_turns_by_mouse_and_keys_and_no_number_moves(visit):
    page = visit(ACL)
    circle = explorer(page, "circle")
    circle.get_by_label("sphere").check()
    svg, numbers = circle.locator("svg").first, circle.locator("table").inner_text()
    picture = svg.inner_html()
    svg.focus()
    page.keyboard.press("ArrowUp")
    turned = svg.inner_html()
    assert turned != picture and circle.locator("table").inner_text() == numbers
    middle = svg.bounding_box()
    page.mouse.move(middle["x"] + 100, middle["y"] + 8)  # beside the points
    page.mouse.down()
    page.mouse.move(middle["x"] + 160, middle["y"] + 40, steps=4)
    page.mouse.up()
    assert svg.inner_html() != turned and circle.locator("table").inner_text() == numbers


def test_a_link_brings_the_settings_back(visit):
    page = visit(ACL, "#alpha=0.7&tau=0.35&quarter=1&clips=12&sum=paper_code")
    circle = explorer(page, "circle")
    assert circle.get_by_label("weight of NT-Xent").get_attribute("aria-valuetext") == "0.70"
    assert circle.get_by_label("temperature").get_attribute("aria-valuetext") == "0.35"
    assert circle.get_by_label("no negative").is_checked()
    assert circle.get_by_label("angular term", exact=False).last.input_value() == "paper_code"
    assert circle.get_by_role("slider", name="clip 12, view 2").count() >= 1
    assert circle.bounding_box()["y"] < 800  # the page has scrolled there
    # and the link below it says the same, for the next teacher
    link = circle.get_by_role("link", name="Link to these settings").get_attribute("href")
    assert link.startswith("#x=circle") and "alpha=0.7" in link and "quarter=1" in link
    slider = circle.get_by_label("margin m")
    slider.focus()
    page.keyboard.press("ArrowRight")
    link = circle.get_by_role("link", name="Link to these settings").get_attribute("href")
    again = explorer(visit(ACL, link), "circle")
    assert again.get_by_label("margin m").get_attribute("aria-valuetext") == "0.55 rad"
    assert again.get_by_label("no negative").is_checked()
    assert page.complaints == []


def test_a_link_on_the_page_itself_moves_the_sliders(visit):
    page = visit(ACL)
    page.evaluate("location.hash = '#x=circle&alpha=0.9'")
    circle = explorer(page, "circle")
    slider = circle.get_by_label("weight of NT-Xent")
    expect(slider).to_have_attribute("aria-valuetext", "0.90")
    page.evaluate("location.hash = '#x=penalty&alpha=0.1'")  # of another explorer
    page.wait_for_timeout(200)
    assert slider.get_attribute("aria-valuetext") == "0.90"


def test_the_penalty_follows_its_sliders(visit):
    page = visit(MARGIN)
    penalty = explorer(page, "penalty")
    told = penalty.locator("p[aria-live]").inner_text()
    lines = "[...document.querySelectorAll('[data-explorer=penalty] path[data-name]')]"
    before = page.evaluate(f"{lines}.map(p => p.getAttribute('d'))")
    penalty.get_by_label("temperature").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert penalty.locator("p[aria-live]").inner_text() != told
    after = page.evaluate(f"{lines}.map(p => p.getAttribute('d'))")
    assert len(after) == 3 and after != before
    assert page.complaints == []
    asked = explorer(visit(MARGIN, "#am=0.4"), "penalty")
    assert asked.get_by_role("slider", name="additive").get_attribute("aria-valuetext") == "0.40"
