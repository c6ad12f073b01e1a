"""The map in a browser: keys, mouse and finger choose a clip to see and hear."""

import re

import pytest
from browsing import until
from playwright.sync_api import expect

PAGE = "notebooks/12_embedding_analysis.html"
# where the audio element goes when something is played: it is not part of the page
HEARD = """() => {
  window.heard = [];
  const play = HTMLMediaElement.prototype.play;
  HTMLMediaElement.prototype.play = function () {
    window.heard.push(this.src);
    return play.call(this);
  };
}"""


@pytest.fixture
def opened(visit):
    """Opens the map, and writes down in `heard` what is played."""

    def open_map(fragment="", **settings):
        page = visit(PAGE, fragment, **settings)
        page.evaluate(HEARD)
        found = page.locator(".acl-x[data-explorer=map]")
        found.scroll_into_view_if_needed()
        return page, found

    return open_map


def told(found):
    return found.locator("p[aria-live]")


def choice(found, name):
    """A select, whose label's text goes on with its options."""
    return found.locator("label").filter(has_text=re.compile(f"^{name} ")).locator("select")


def heard(page):
    return page.evaluate("window.heard.map((src) => src.split('/').at(-1))")


def places(found):
    return found.locator("svg [role=button]").evaluate_all(
        "all => all.map(e => e.getAttribute('transform').split(' ')[0])"
    )


def neighbours(found):
    return found.locator("ol li").all_inner_texts()


def test_switching_the_map_moves_points_and_keeps_neighbours(opened):
    page, found = opened(motion="reduce")
    before, near = places(found), neighbours(found)
    choice(found, "map").select_option("PCA")
    assert places(found) != before and neighbours(found) == near
    expect(told(found)).to_contain_text("NT-Xent, PCA")
    words = found.locator("p").filter(has_text="Measured on").inner_text()
    choice(found, "network").select_option("CE")
    expect(told(found)).to_contain_text("CE, PCA")
    assert neighbours(found) != near
    assert found.locator("p").filter(has_text="Measured on").inner_text() != words
    assert page.complaints == []


def test_points_travel_unless_less_motion_is_asked_for(opened):
    _, found = opened()
    start = places(found)
    choice(found, "map").select_option("PCA")
    found.page.wait_for_timeout(1500)
    end = places(found)
    assert end != start
    _, other = opened("#x=map&map=PCA&net=NT-Xent", motion="reduce")
    assert places(other) == end


def test_arrow_keys_go_from_clip_to_clip_and_enter_plays(opened):
    page, found = opened()
    stops = found.locator("svg [role=button][tabindex='0']")
    assert stops.count() == 1  # one tab stop for the whole map
    before = told(found).inner_text()
    stops.focus()
    for key in ("ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
        if told(found).inner_text() != before:
            break
    assert told(found).inner_text() != before and stops.count() == 1
    assert stops.evaluate("e => e === document.activeElement")
    clip = choice(found, "clip").input_value()
    page.keyboard.press("Enter")
    until(page, "window.heard.length == 1")
    assert heard(page) == [f"{clip}.mp3"]
    shown = found.locator(".clip img")
    assert shown.get_attribute("src").endswith(f"{clip}.webp")
    assert shown.evaluate("e => e.decode().then(() => e.naturalHeight)") == 96
    assert page.complaints == []


def point(found, name):
    """Middle of a clip's mark."""
    mark = found.locator(f"svg [role=button][aria-label$='clip {name}'] path").bounding_box()
    return mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2


def another(found):
    """Name of a clip that is not the chosen one."""
    options = choice(found, "clip").locator("option")
    chosen = choice(found, "clip").input_value()
    names = options.evaluate_all("all => all.map(e => e.value)")
    return next(name for name in names[1:] if name != chosen)


def test_the_mouse_shows_and_a_click_plays(opened):
    page, found = opened()
    before = neighbours(found)
    found.locator("svg").first.scroll_into_view_if_needed()
    page.mouse.move(*point(found, another(found)))
    page.wait_for_timeout(400)
    assert heard(page) == [] and neighbours(found) != before  # seen, not heard
    page.mouse.click(*point(found, another(found)))
    until(page, "window.heard.length == 1")
    clip = choice(found, "clip").input_value()
    assert heard(page) == [f"{clip}.mp3"]
    assert len(neighbours(found)) == 5
    found.get_by_role("button", name="Play neighbour 2").click()
    until(page, "window.heard.length == 2")
    assert heard(page)[1] != heard(page)[0]
    page.mouse.move(1, 1)
    found.get_by_label("play on hover").check()
    page.mouse.move(*point(found, another(found)))
    until(page, "window.heard.length == 3")
    assert page.complaints == []


def test_a_finger_chooses_and_plays_and_the_page_still_scrolls(opened):
    page, found = opened(width=390, height=844, has_touch=True, is_mobile=True)
    svg = found.locator("svg").first
    svg.scroll_into_view_if_needed()
    page.touchscreen.tap(*point(found, another(found)))
    until(page, "window.heard.length == 1")
    assert svg.evaluate("e => getComputedStyle(e).touchAction") == "pan-y"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.complaints == []


def test_a_link_brings_network_map_class_and_clip_back(opened):
    page, found = opened()
    clip = another(found)
    choice(found, "clip").select_option(clip)
    choice(found, "network").select_option("ACL")
    found.get_by_label("only clips").check()
    clip = choice(found, "clip").input_value()
    link = found.get_by_role("link", name="Link to these settings").get_attribute("href")
    page, again = opened(link)
    assert choice(again, "clip").input_value() == clip
    assert choice(again, "network").input_value() == "ACL"
    assert again.get_by_label("only clips").is_checked()
    expect(told(again)).to_contain_text(f"clip {clip}")
    assert page.complaints == []


def test_one_class_can_stand_out(opened):
    _, found = opened()
    name = choice(found, "class").locator("option").nth(1).inner_text()
    choice(found, "class").select_option(name)
    marks = found.locator("svg [role=button]")
    lit = marks.evaluate_all("all => all.filter(e => e.getAttribute('opacity') == 1).length")
    assert 5 <= lit < marks.count()


def test_a_page_without_its_files_says_so(opened):
    _, found = opened()
    assert found.locator("p[role=status]").inner_text() == ""
    found.locator(".clip img").evaluate("e => { e.src = e.src.replace('.webp', '-gone.webp'); }")
    expect(found.locator("p[role=status]")).to_contain_text("not beside the page")
