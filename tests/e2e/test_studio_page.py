"""The studio's page as colleagues use it: what is set is an address, clips slide past a line, two settings stand side by side,
several people mark, and a recipe is written and run."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from longtake.curation.looking.studio.marks import Marks
from longtake.curation.recipe import load_recipe
from longtake.curation.workspace import Workspace
from tests.curation.looking.studio_server import Studio, studio
from tests.curation.tables import fill
from tests.e2e.conftest import SHOTS, Watched
from tests.e2e.test_browser import drag, focus, ready, serious, settled, still, totals, typed, until


def number(page: Page, end: str) -> float:
    return float(page.locator(f"#focus .ends input[data-end={end}]").input_value())


def strip_places(page: Page) -> dict[str, float]:
    """Where each clip of the film stands from the line of the low end, in pixels."""
    places: dict[str, float] = page.evaluate(
        """() => {
          const line = document.querySelector("#strip .cut.low").getBoundingClientRect().left;
          return Object.fromEntries([...document.querySelectorAll("#strip li[data-clip]")].map((clip) =>
            [clip.dataset.clip, clip.getBoundingClientRect().left - line]));
        }"""
    )
    return places


# ── faults that were there ───────────────────────────────────────────────────────────────────────────────────────────


def test_undo_never_shows_a_number_that_the_gate_is_not(watched: Watched, served: Studio) -> None:
    """Ctrl-Z in a field took back what was typed there, and the gate stayed: 40 was shown while the gate was 95."""
    page = watched.page
    ready(page, served.url)
    typed(page, "flow", "low", "100")
    typed(page, "flow", "low", "200.5")
    kept = totals(page)
    for back, expected in ((1, 100.0), (2, 2.0)):
        page.locator("#focus .ends input[data-end=low]").focus()
        page.keyboard.press("Control+z")
        still(page)
        assert number(page, "low") == expected, back
        assert float(page.get_by_role("slider", name="low end of flow").get_attribute("aria-valuenow") or 0) == expected
    assert totals(page)["kept"] > kept["kept"]
    page.keyboard.press("Control+Shift+z")
    page.keyboard.press("Control+y")
    still(page)
    assert number(page, "low") == 200.5
    assert totals(page) == kept
    page.locator("#save input[name=name]").fill("undone")
    page.get_by_role("button", name="Save recipe").click()
    assert load_recipe(page.locator("#saved code").first.inner_text()).tiers["pretrain"]["flow"].low == 200.5
    assert not watched.faults


def test_other_clips_are_those_of_what_is_set(watched: Watched, served: Studio) -> None:
    """The list of kept clips stayed as it was when the gates kept none any more."""
    page = watched.page
    ready(page, served.url)
    expect(page.locator("#listed [data-clip]")).to_have_count(totals(page)["kept"])
    typed(page, "flow", "low", "999")
    assert totals(page)["kept"] == 0
    expect(page.locator("#listed [data-clip]")).to_have_count(0)
    expect(page.locator("#listed")).to_contain_text("This tier keeps no clip as it is set")


def test_a_low_end_above_the_high_end_is_refused_in_words(watched: Watched, served: Studio) -> None:
    page = watched.page
    ready(page, served.url)
    focus(page, "psnr")
    field = page.locator("#focus .ends input[data-end=low]")
    field.fill("120")
    field.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="At least 120")).to_have_text(
        "At least 120 is above at most 100: no clip could pass. psnr stays 1 to 100."
    )
    assert number(page, "low") == 1
    typed(page, "psnr", "low", "3")
    expect(page.locator("#refused")).to_be_hidden()


@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_totals_and_funnel_stay_in_sight(browser: Browser, served: Studio, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844})
    page = context.new_page()
    try:
        ready(page, served.url)
        for target in ("#focus", "#gates li:last-child", "#besides", "#write"):
            page.locator(target).scroll_into_view_if_needed()
            expect(page.locator("#totals li").first).to_be_in_viewport()
            expect(page.locator("#mini" if width == 390 else "#funnel tbody tr").first).to_be_in_viewport()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        strap = page.locator("#strap").bounding_box()
        assert strap is not None
        assert strap["y"] + strap["height"] < 120
    finally:
        context.close()


def test_both_sides_of_the_line_have_pictures(watched: Watched, served: Studio) -> None:
    """Clips that were rejected had none: one side of the threshold was blank."""
    page = watched.page
    ready(page, served.url + "#gate=flow")
    for verdict in ("kept", "rejected"):
        image = page.locator(f"#strip li[data-verdict={verdict}] img").first
        expect(image).to_be_visible()
        until(page, f"document.querySelector('#strip li[data-verdict={verdict}] img').naturalWidth > 50")
    assert page.locator("#strip .blank").count() == 0
    assert not watched.faults


def test_an_axis_shows_what_a_score_can_be(watched: Watched, tmp_path: Path) -> None:
    """The axis of a share went from −0.48 to 0.59, and it had two numbers and no clips upwards."""
    page = watched.page
    with studio(fill(tmp_path / "workspace").path) as running:
        ready(page, running.url + "#gate=artifacts&end=high")
        along = page.locator("#focus .along span").all_inner_texts()
        assert along == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        upwards = page.locator("#focus .histogram .up span").all_inner_texts()
        assert upwards[0] == "0"
        assert len(upwards) >= 2
        handle = page.get_by_role("slider", name="high end of artifacts")
        assert (handle.get_attribute("aria-valuemin"), handle.get_attribute("aria-valuemax")) == ("0", "1")


# ── an address ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_set_is_an_address(watched: Watched, served: Studio, browser: Browser) -> None:
    """Reload, back, forward, and the same address in another browser."""
    page = watched.page
    ready(page, served.url)
    typed(page, "flow", "low", "4.5")
    page.get_by_label("finetune").check()
    still(page)
    typed(page, "psnr", "high", "60")
    page.locator("#filter input[name=uri]").fill("00.mp4")
    expect(page.locator("#selected")).not_to_have_text("9 clips")
    page.locator("#which").select_option("rejected")
    page.locator("#listed .open-clip").first.click()
    expect(page.locator("dialog h2")).to_be_visible()
    told = totals(page), page.locator("#selected").inner_text(), page.locator("dialog code").first.inner_text()
    address = page.url

    def same(other: Page) -> None:
        expect(other.locator("dialog h2")).to_be_visible()
        still(other)
        assert (totals(other), other.locator("#selected").inner_text()) == told[:2]
        assert other.locator("dialog code").first.inner_text() == told[2]
        assert number(other, "high") == 60
        assert other.get_by_label("finetune").is_checked()
        assert other.locator("#which").input_value() == "rejected"

    page.reload()
    same(page)
    context = browser.new_context()
    other = context.new_page()
    other.goto(address)
    same(other)
    other.keyboard.press("Escape")
    other.get_by_label("pretrain").check()
    still(other)
    focus(other, "flow")
    assert number(other, "low") == 4.5
    context.close()
    page.go_back()
    expect(page.locator("dialog")).to_be_hidden()
    page.go_forward()
    same(page)
    assert not watched.faults


def test_an_address_that_makes_no_sense_says_so(watched: Watched, served: Studio) -> None:
    page = watched.page
    for hash_, words in (
        ("#tier=third", "the link names a tier that this recipe has not: third"),
        ("#gate=<b>x</b>", "the link names a gate that this recipe has not: <b>x</b>"),
        ("#pretrain.flow=9..1", "9 lies above 1: nothing would pass"),
        ("#pretrain.flow=wide", "a gate is written LOW..HIGH or off, not “wide”"),
    ):
        page.goto("about:blank")
        page.goto(served.url + hash_)
        expect(page.locator("#totals li")).to_have_count(4)
        expect(page.locator("#fault")).to_contain_text(words)


# ── the way through ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_drag_mark_reload_undo_beside_write_run(watched: Watched, served: Studio, films: Workspace) -> None:
    page = watched.page
    ready(page, served.url)
    focus(page, "flow")
    first = strip_places(page)
    expect(page.locator("#strip li[data-verdict=kept]").first).to_be_visible()
    drag(page, "flow", "low", 0.45)
    dragged = number(page, "low")
    page.wait_for_timeout(300)
    moved = strip_places(page)
    shared = first.keys() & moved.keys()
    assert shared
    assert all(moved[clip] < first[clip] - 50 for clip in shared)  # The clips slid past the line.
    # The keys mark the clip before the line bad, and the one after it good.
    page.locator("#strip [tabindex='0']").focus()
    page.keyboard.press("g")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("b")
    expect(page.locator("#marked")).to_contain_text("1 good, 1 bad")
    chosen = page.evaluate("document.activeElement.closest('li').dataset.clip")
    page.keyboard.press(" ")
    expect(page.locator("#strip video, #strip img.flip")).to_have_count(1)
    page.keyboard.press(" ")
    expect(page.locator("#strip video, #strip img.flip")).to_have_count(0)
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_contain_text(chosen)
    page.locator("#note").fill("too fast")
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    still(page)
    kept = totals(page)
    page.reload()
    expect(page.locator("#marked")).to_contain_text("1 good, 1 bad")
    still(page)
    assert (number(page, "low"), totals(page)) == (dragged, kept)
    (mark,) = [mark for mark in Marks(films, "x").newest() if mark.clip == chosen]
    assert (mark.mark, mark.note) == ("bad", "too fast")
    page.get_by_role("button", name="Undo").click()  # The bad mark is undone: steps outlive a reload.
    expect(page.locator("#marked")).to_contain_text("1 good, 0 bad")
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#focus .ends input[data-end=low]")).to_have_value("2")
    still(page)
    # A is the present setting, and B is another one.
    page.get_by_role("button", name="Keep this setting as A").click()
    typed(page, "flow", "low", "200")
    row = page.locator("#ab tr[data-tier=pretrain]")
    expect(row.locator("td").nth(2)).to_have_text(str(totals(page)["kept"]))
    a, b, entering, leaving = (int(row.locator("td").nth(i).inner_text()) for i in (0, 2, 4, 6))
    assert (b, entering) == (a - leaving, 0)
    expect(page.locator("[data-list=leaving] [data-clip]")).to_have_count(leaving)
    page.get_by_role("button", name="Exchange A and B").click()
    still(page)
    assert totals(page)["kept"] == a
    expect(row.locator("td").nth(4)).to_have_text(str(leaving))
    expect(page.locator("#cost")).to_contain_text(re.compile("A run would compute at least|Nothing has to be computed"))
    page.locator("#save input[name=name]").fill("through")
    page.get_by_role("button", name="Save and run").click()
    expect(page.locator("#run-state")).to_contain_text("The run is at work")
    expect(page.locator("#run-state[data-state=ended]")).to_be_visible(timeout=120_000)
    assert films.recipe(None).name == "through"
    expect(page.locator("#totals li")).to_have_count(4)
    assert not watched.faults


def test_two_browsers_mark_at_once_and_lose_nothing(browser: Browser, served: Studio, films: Workspace) -> None:
    """Two people in two browsers on one studio, each under a name of their own, marking every clip by keys."""
    contexts = [browser.new_context(), browser.new_context()]
    pages = [context.new_page() for context in contexts]
    try:
        for page, who in zip(pages, ("ada", "bob"), strict=True):
            ready(page, served.url + "#gate=flow")
            page.locator("#who").fill(who)
            page.locator("#who").press("Enter")
            expect(page.locator("#marked")).to_contain_text(f"by {who}")
            page.get_by_role("button", name="clips with lower scores").click()
            page.locator("#strip [tabindex='0']").focus()
        for _ in range(12):
            for page in pages:
                page.keyboard.press("ArrowLeft")
        below, _, _, _, _, above, *_ = pages[0].locator("#strip .tools .note").inner_text().split()
        clips = int(below) + int(above)
        for at in range(clips):
            pages[0].keyboard.press("g")
            pages[1].keyboard.press("g" if at % 2 else "b")
            for page in pages:
                page.keyboard.press("ArrowRight")
        for page in pages:
            page.wait_for_timeout(1000)
            expect(page.locator("#unsent")).to_be_hidden()
        made = Marks(films, "x").by_rater()
        assert set(made) == {"ada", "bob"}
        assert made["ada"].keys() == made["bob"].keys()
        assert len(made["ada"]) == clips
        assert all(made["ada"].values())
        pages[0].reload()
        expect(pages[0].locator("#raters")).to_contain_text("ada and bob")
    finally:
        for context in contexts:
            context.close()


def test_questions_of_two_pages_do_not_meet(served: Studio) -> None:
    """What one page sets is nobody else's business: counts are those of the tiers that were asked about."""
    tiers = served.ask("/api/state").data["tiers"]

    def kept(low: float) -> int:
        question = {"tiers": {**tiers, "pretrain": {"flow": [low, None]}}, "tier": "pretrain"}
        told = served.ask("/api/decide", question).data["counts"]["pretrain"]["kept"]
        listed = served.ask("/api/clips", {**question, "which": "kept", "count": 100}).data
        assert told == listed["of"] == len(listed["clips"])
        return int(told)

    lows = [0, 2.5, 5, 100] * 6
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(kept, lows))
    assert found == found[:4] * 6
    assert len(set(found[:4])) > 2


def test_an_audit_and_what_would_be_lost(watched: Watched, served: Studio) -> None:
    page = watched.page
    ready(page, served.url)
    kept = totals(page)["kept"]
    page.get_by_role("button", name="Draw clips").click()
    expect(page.locator("#audit [data-clip]")).to_have_count(kept)
    expect(page.locator("#audited")).to_contain_text(f"{kept} clips of {kept} kept ones drawn")
    for button in page.locator("#audit button.good").all():
        button.click()
    expect(page.locator("#audited")).to_contain_text(
        f"{kept} of {kept} marked clips are good: of all {kept} kept clips 100 %"
    )
    typed(page, "flow", "low", "999")
    expect(page.locator("#lost")).to_contain_text(f"You would lose these {kept} that you marked good.")
    expect(page.locator("#lost [data-clip]")).to_have_count(kept)
    expect(page.locator("#lost .facts").first).to_contain_text("by flow")
    page.reload()
    expect(page.locator("#audited")).to_have_text("")
    expect(page.locator("#audit")).to_contain_text("The tier keeps no clip, so none can be drawn.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_full_panels_are_for_everybody(browser: Browser, served: Studio, width: int, scheme: Any) -> None:
    """An empty film, a refusal, an audit and a comparison of settings: as seen, and by axe."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    SHOTS.mkdir(parents=True, exist_ok=True)
    try:
        page.goto(served.url + "#tier=pretrain&gate=flow&end=low&pretrain.flow=3..&audit=7/5&which=leaving")
        expect(page.locator("#audit [data-clip]").first).to_be_visible()
        page.locator("#strip button.good").nth(1).click()
        page.locator("#strip button.bad").first.click()
        expect(page.locator("#agreement table")).to_be_visible()
        page.wait_for_timeout(500)
        page.screenshot(path=SHOTS / f"page-{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert serious(page) == []
        typed(page, "width", "low", "9999")
        focus(page, "psnr")
        expect(page.locator("#strip .empty")).to_contain_text("width rejects")
        page.screenshot(path=SHOTS / f"page-empty-{width}-{scheme}.png")
        assert serious(page) == []
        page.get_by_role("button", name=re.compile("^width rejects")).click()
        settled(page, "width")
    finally:
        context.close()
