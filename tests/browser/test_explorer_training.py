"""The recorded training in a browser: a scrubber through its epochs, the map moving along."""

import pytest
from browsing import explorer
from playwright.sync_api import expect

PAGE = "notebooks/08_contrastive_pretraining.html"
PLACES = "found => [...found.querySelectorAll('svg g path')].map(p => p.style.transform)"
MIDDLE = "#x=training&epoch=6&net=ACL&show=class_gap"


def told(training):
    return training.locator("p[aria-live]")


def test_a_key_on_the_scrubber_moves_line_map_and_sentence(visit):
    page = visit(PAGE)
    training = explorer(page, "training")
    expect(told(training)).to_contain_text("Untrained (NT-Xent)")
    chart, places = training.locator("svg[role=img]").first, training.evaluate(PLACES)
    before = chart.inner_html()
    training.get_by_role("slider", name="epoch").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(told(training)).to_contain_text("NT-Xent after epoch 3")
    expect(told(training)).to_contain_text("ACL after epoch 3")
    assert chart.inner_html() != before and training.evaluate(PLACES) != places
    assert "after epoch 3" in chart.get_attribute("aria-label")
    assert page.complaints == []


def test_a_link_brings_epoch_network_and_curve_back(visit):
    page = visit(PAGE, MIDDLE)
    training = explorer(page, "training")
    expect(told(training)).to_contain_text("ACL after epoch 6")
    assert "NT-Xent" not in told(training).inner_text()
    assert training.get_by_label("curve").input_value() == "class_gap"
    assert training.locator("svg[role=img]:visible").count() == 2  # one chart, one map
    link = training.get_by_role("link", name="Link to these settings").get_attribute("href")
    assert "epoch=6" in link and "net=ACL" in link and "show=class_gap" in link
    training.get_by_label("curve").select_option("angular")
    expect(training.locator("svg path[data-name=ACL]")).to_be_visible()
    assert page.complaints == []


def test_play_goes_to_the_end_and_can_be_held(visit):
    """By a clock that the test turns: a busy machine would miss epochs."""
    page = visit(PAGE, alone=True)  # the tab keeps that clock
    page.clock.install()
    page.clock.pause_at(page.evaluate("Date.now()") + 1000)
    training = explorer(page, "training")
    training.get_by_role("button", name="Play").click()
    page.clock.run_for(900)
    expect(told(training)).to_contain_text("after epoch 2:")
    training.get_by_role("button", name="Pause playing").click()
    page.clock.run_for(5000)
    expect(told(training)).to_contain_text("after epoch 2:")
    training.get_by_role("button", name="Play").click()
    page.clock.run_for(60_000)
    slider = training.get_by_role("slider", name="epoch")
    expect(slider).to_have_value(slider.get_attribute("max"))
    expect(training.get_by_role("button", name="Pause playing")).to_have_count(0)


def test_less_motion_means_the_last_epoch_at_once(visit):
    page = visit(PAGE, motion="reduce")
    training = explorer(page, "training")
    training.get_by_role("button", name="Play").click()
    slider = training.get_by_role("slider", name="epoch")
    assert slider.input_value() == slider.get_attribute("max")
    assert training.get_by_role("button", name="Pause playing").count() == 0
    assert "transition" not in training.locator("svg g path").first.get_attribute("style")


@pytest.mark.parametrize("net", ["both", "NT-Xent"])
def test_it_fits_a_phone_and_the_map_lies_below(visit, net):
    page = visit(PAGE, f"#x=training&net={net}", width=390, height=844)
    training = explorer(page, "training")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    chart, first = (training.locator("svg[role=img]:visible").nth(k).bounding_box() for k in (0, 1))
    assert first["y"] >= chart["y"] + chart["height"]
    assert (
        training.locator("svg[role=img] text").first.evaluate(
            "text => getComputedStyle(text).fontSize"
        )
        == "12px"
    )
