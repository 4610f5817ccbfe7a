"""The report in a real Chromium: its contents stay in sight, it fits a phone, both sides of each threshold have pictures, and axe
finds nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from longtake.curation.looking.report.page import write_report
from longtake.curation.workspace import Workspace
from tests.e2e.conftest import SHOTS


@pytest.fixture(scope="module")
def page_file(made: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_bytes(write_report(made, made.recipe()))
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_contents_pictures_and_room(browser: Browser, page_file: Path, width: int, scheme: Any) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for section in ("funnel", "near", "time"):
        page.locator(f"nav a[href='#{section}']").click()
        page.wait_for_timeout(100)
        nav = page.locator("nav").bounding_box()
        heading = page.locator(f"#{section} h2").bounding_box()
        assert nav is not None
        assert heading is not None
        assert nav["y"] >= -1  # The contents are still in sight.
        beside = nav["x"] + nav["width"] <= heading["x"]
        assert (
            beside or nav["y"] + nav["height"] <= heading["y"] + 1 or section == "time"
        )  # The contents cover no heading.
    sides = page.locator("#near .two > div")
    for side in sides.all():
        empty = side.get_by_text("No clip is on this side.").count()
        assert side.locator("img").count() or empty
    loaded = page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth)")
    assert loaded
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.locator("#near").scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / f"report-near-{width}-{scheme}.png")
    axe = Axe().run(page).response
    assert axe["passes"]
    found = axe["violations"]
    assert not found, [(fault["id"], [node["html"] for node in fault["nodes"]][:3]) for fault in found]
    context.close()
