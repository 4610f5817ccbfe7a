"""The studio and the report in a real browser, as people use them."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from rich.console import Console

from longtake.curation.cli.progress import Progress
from longtake.curation.looking.report.page import write_report
from longtake.curation.looking.studio.marks import Marks
from longtake.curation.looking.tiering import retier
from longtake.curation.pipeline import run
from longtake.curation.recipe import load_recipe, parse_recipe
from longtake.curation.stages.stage import Options
from longtake.curation.workspace import Workspace
from longtake.presto.ab import _html
from tests.captioning.server import Reply, Server
from tests.curation.looking.studio_server import Studio, studio
from tests.curation.looking.test_report import hostile
from tests.curation.tables import clip_id, recipe
from tests.curation.workbench import wait_for
from tests.e2e.conftest import SHOTS, Watched


def ready(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("#totals li")).to_have_count(4)
    expect(page.locator("#strip li[data-clip]").first).to_be_visible()
    expect(page.locator("#besides table")).to_be_visible()  # The page asks for this table last.


def focus(page: Page, name: str) -> None:
    """Take a gate as the one that is looked at."""
    page.locator(f"#gate-{name}").click()
    expect(page.locator("#h-focus")).to_have_text(name)
    still(page)


def still(page: Page) -> None:
    """Until nothing is asked any more."""
    page.wait_for_timeout(100)
    expect(page.locator("main")).to_have_attribute("aria-busy", "false")


def typed(page: Page, name: str, end: str, value: str) -> None:
    if page.locator("#h-focus").inner_text() != name:
        focus(page, name)
    field = page.locator(f"#focus .ends input[data-end={end}]")
    field.fill(value)
    field.press("Enter")
    settled(page, name)


def totals(page: Page) -> dict[str, int]:
    items = page.locator("#totals li")
    return {
        items.nth(i).get_attribute("data-total") or "": int(items.nth(i).locator("b").inner_text().replace(",", ""))
        for i in range(items.count())
    }


def until(page: Page, expression: str) -> None:
    """`page.wait_for_function` needs an eval, which the page's policy forbids."""
    for _ in range(300):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    pytest.fail(f"never: {expression}")


def settled(page: Page, name: str) -> None:
    """Until the numbers are those of what the field says."""
    still(page)
    assert page.locator("#fault").is_hidden(), page.locator("#fault").inner_text()
    expect(page.locator("#h-focus")).to_have_text(name)


def drag(page: Page, name: str, end: str, share: float, steps: int = 12) -> list[dict[str, int]]:
    """Pull an end of a gate to a share of its scale; the totals on the way, before the button is let go."""
    if page.locator("#h-focus").inner_text() != name:
        focus(page, name)
    handle = page.locator(f"#focus .handle.{end}")
    handle.scroll_into_view_if_needed()
    box, plot = handle.bounding_box(), page.locator("#focus .histogram .plot").bounding_box()
    assert box is not None
    assert plot is not None
    start, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(start, y)
    page.mouse.down()
    seen = []
    for i in range(1, steps + 1):
        page.mouse.move(start + (plot["x"] + share * plot["width"] - start) * i / steps, y)
        page.wait_for_timeout(80)
        seen.append(totals(page))
    page.mouse.up()
    settled(page, name)
    seen.append(totals(page))
    return seen


def save(page: Page, name: str) -> Path:
    page.locator("#save input[name=name]").fill(name)
    page.get_by_role("button", name="Save recipe").click()
    return Path(page.locator("#saved code").first.inner_text())


# ── the studio ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dragged_threshold_counts_as_tiers_does(watched: Watched, served: Studio, films: Workspace) -> None:
    page = watched.page
    ready(page, served.url)
    assert sum(totals(page).values()) == 9
    before = totals(page)
    seen = drag(page, "flow", "low", 0.5)
    assert len({shown["kept"] for shown in seen}) > 2  # The number changes while the button is down.
    drag(page, "psnr", "high", 0.7)
    settled(page, "psnr")
    shown = totals(page)
    assert shown["kept"] < before["kept"]
    made = load_recipe(save(page, "dragged"))
    assert made.tiers["pretrain"]["flow"].low > 2
    (change, other) = retier(films, films.recipe(None), made).tiers
    assert (shown["kept"], shown["undecided"]) == (change.after, change.undecided)
    assert (other.before, other.entering, other.leaving) == (other.after, 0, 0)
    assert f"+{change.entering} −{change.leaving}" in page.locator("#totals").inner_text()
    last = page.locator("#funnel tbody tr").last
    assert int(last.locator(".left").inner_text()) == shown["kept"] + shown["undecided"]
    assert not watched.faults
    assert all(url.startswith((served.url, "data:", "blob:")) for url in watched.requests)


def test_by_keyboard_and_by_number(watched: Watched, served: Studio) -> None:
    page = watched.page
    ready(page, served.url)
    focus(page, "flow")
    handle = page.get_by_role("slider", name="low end of flow")
    handle.focus()
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowRight")
    low = float(page.locator("#focus .ends input").first.input_value())
    assert low > 2
    assert float(handle.get_attribute("aria-valuenow") or 0) == low
    page.keyboard.press("Home")
    assert handle.get_attribute("aria-valuetext") == "open"
    typed(page, "flow", "low", "12.345678901")
    made = load_recipe(save(page, "typed"))
    assert made.tiers["pretrain"]["flow"].low == 12.345678901
    page.get_by_label("gate flow is on").uncheck()
    settled(page, "flow")
    page.locator("#save input[name=name]").fill("typed")
    page.get_by_role("button", name="Save recipe").click()
    page.get_by_role("button", name="Replace it").click()
    expect(page.locator("#saved code").first).to_be_visible()
    assert "flow" not in load_recipe(Path(page.locator("#saved code").first.inner_text())).tiers["pretrain"]
    assert not watched.faults


def test_a_clip_plays(watched: Watched, served: Studio) -> None:
    page = watched.page
    ready(page, served.url)
    page.locator("#strip li[data-verdict=kept] .open-clip").first.click()
    video = page.locator("dialog video")
    expect(page.locator("dialog")).to_contain_text("the encoded clip")
    video.evaluate("video => video.play()")
    until(page, "document.querySelector('dialog video').currentTime > 0.2")
    assert video.evaluate("video => [video.videoWidth, video.videoHeight]") == [320, 180]
    assert not watched.faults


def test_a_rejected_clip_plays_from_its_source_and_says_why(watched: Watched, served: Studio) -> None:
    page = watched.page
    ready(page, served.url)
    page.locator("#which").select_option("rejected")
    expect(page.locator("#listed [data-verdict=rejected]").first).to_be_visible()
    page.locator("#listed .open-clip").first.click()
    expect(page.locator("dialog")).to_contain_text("pretrain: rejected")
    why = page.locator("dialog ul.why").first.inner_text()
    found = re.search(r"flow ([\d.e-]+) is outside >= 2 by ([\d.e-]+)", why)
    assert found
    assert float(found[1]) + float(found[2]) == pytest.approx(2, rel=1e-3)
    expect(page.locator("dialog")).to_contain_text("the source, h264")
    page.locator("dialog video").evaluate("video => video.play()")
    until(page, "document.querySelector('dialog video').currentTime > 0.2")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()


def test_what_cannot_play_says_so(watched: Watched, served: Studio, films: Workspace) -> None:
    clips = films.clips.read(["clip_id", "uri"]).to_pylist()
    old = next(clip["clip_id"] for clip in clips if clip["uri"].endswith(".avi"))
    Path(films.path, "encoded", old[:2], f"{old}.mp4").unlink(missing_ok=True)
    page = watched.page
    ready(page, served.url)
    page.locator("#filter input[name=uri]").fill("OLD.avi")
    expect(page.locator("#selected")).to_have_text("1 clip")
    expect(page.locator("#listed [data-clip]")).to_have_count(1)
    page.locator("#listed .open-clip").first.click()
    expect(page.locator("dialog")).to_contain_text("this browser cannot play it (mpeg4, avi)")


def test_mark_propose_save_reload(watched: Watched, served: Studio, films: Workspace) -> None:
    page = watched.page
    ready(page, served.url)
    typed(page, "flow", "low", "")
    page.locator("#which").select_option("kept")
    expect(page.locator("#listed [data-clip]").nth(5)).to_be_visible()
    shown = page.locator("#listed [data-clip]").evaluate_all("cards => cards.map((card) => card.dataset.clip)")
    table = films.clips.read(["clip_id"], optional=["flow"]).to_pylist()
    ordered = sorted((row for row in table if row["clip_id"] in shown), key=lambda row: row["flow"])
    bad, good = ordered[:3], ordered[-3:]
    for rows, kind in ((bad, "bad"), (good, "good")):
        for row in rows:
            page.locator(f"#listed [data-marks='{row['clip_id']}'] button.{kind}").click()
    expect(page.locator("#marked")).to_contain_text("3 good, 3 bad")
    typed(page, "flow", "low", "1")
    button = page.locator("#agreement [data-propose=flow]")
    expect(button).to_be_visible()
    button.click()
    settled(page, "flow")
    low = float(page.locator("#focus .ends input").first.input_value())
    assert bad[-1]["flow"] < low < good[0]["flow"]
    row = page.locator("#agreement tr", has=page.get_by_role("rowheader", name="flow"))
    expect(row).to_contain_text("100 %")
    saved = save(page, "marked")
    assert load_recipe(saved).tiers["pretrain"]["flow"].low == low
    (marks,) = Marks(films, "a reader").by_rater().values()
    assert marks == {row["clip_id"]: is_good for rows, is_good in ((bad, False), (good, True)) for row in rows}
    page.reload()
    ready(page, served.url)
    expect(page.locator("#marked")).to_contain_text("3 good, 3 bad")
    page.locator("#a").select_option("studio/marked.yaml")
    page.locator("#which").select_option("good")
    expect(page.locator("#listed li")).to_have_count(3)
    assert page.locator("#listed button.good[aria-pressed=true]").count() == 3
    assert not watched.faults


def test_answers_are_told_in_words_and_compared_with_marks(watched: Watched, films: Workspace) -> None:
    """A model says of two films that they are slideshows, is not sure of a third, and says no to the rest."""
    said = iter(["yes", "yes", "not sure"])
    with Server(lambda ask: Reply(json.dumps({"slideshow": next(said, "no")}))) as server:
        plain = films.recipe(None).model_dump(mode="json")
        plain["filters"]["slideshow"] = {}
        plain["tiers"] = {"pretrain": {"grayscale": "[1, 254]", "slideshow": "[0, 1]"}}
        plain["captioning"] = {"captioner": "openai", "settings": {"endpoint": server.url, "model": "tiny"}}
        with Progress(Console(quiet=True)) as progress:
            run(films, parse_recipe(plain, source="e2e"), [], Options(("score",), engine="inline"), progress)
    table = films.clips.read(["clip_id"], optional=["slideshow", "slideshow_detail"]).to_pylist()
    yes = [row["clip_id"] for row in table if row["slideshow"] == 1]
    no = [row["clip_id"] for row in table if row["slideshow"] == 0]
    # Clips that were rejected before have no frames that a model could be asked about.
    (unsure,) = [row["clip_id"] for row in table if row["slideshow"] is None and row["slideshow_detail"]]
    assert len(yes) == 2
    assert len(no) >= 3
    page = watched.page
    with studio(films.path) as served:
        ready(page, served.url)
        marks = {yes[0]: "bad", yes[1]: "good", no[0]: "good", no[1]: "good", no[2]: "bad", unsure: "good"}
        for clip, mark in marks.items():
            assert served.ask("/api/mark", {"clip": clip, "mark": mark}).status == 200
        page.reload()
        ready(page, served.url)
        # Three of five agree: a yes that is bad and two noes that are good. The sixth has no answer to compare.
        told = page.get_by_role("list", name="answers and marks")
        expect(told).to_contain_text("slideshow: 60 % of 5 answers agree with the marks (95 % interval 23 % to 88 %)")
        # The page may draw the list anew at any moment, so nothing waits for this one to be at rest.
        told.evaluate("list => list.scrollIntoView()")
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / "answers-and-marks.png")
        for clip, which, answer in ((yes[0], "kept", "yes"), (no[0], "kept", "no"), (unsure, "undecided", "not sure")):
            page.locator("#which").select_option(which)
            page.locator(f"#listed [data-clip='{clip}'] .open-clip").click()
            row = page.locator("dialog tr", has=page.get_by_role("rowheader", name="slideshow"))
            expect(row.locator("td")).to_have_text(answer)
            page.screenshot(path=SHOTS / f"answer-{answer.replace(' ', '-')}.png")
            page.keyboard.press("Escape")
        assert not watched.faults


def test_marks_survive_a_lost_connection_a_reload_and_another_studio(
    watched: Watched, served: Studio, films: Workspace
) -> None:
    page = watched.page
    ready(page, served.url)
    page.locator("#which").select_option("kept")
    expect(page.locator("#listed [data-clip]").nth(3)).to_be_visible()
    first, second, third, fourth = page.locator("#listed [data-clip]").evaluate_all(
        "cards => cards.slice(0, 4).map((card) => card.dataset.clip)"
    )

    def click(clip: str) -> None:
        page.locator(f"#listed [data-marks='{clip}'] button.good").click()

    def on_disk() -> set[str]:
        return {clip for marks in Marks(films, "a reader").by_rater().values() for clip in marks}

    click(first)
    expect(page.locator("#marked")).to_contain_text("1 good, 0 bad")  # The page counts a mark before the server has it.
    wait_for(on_disk, "the first mark to be on the disk", seconds=10)
    assert on_disk() == {first}
    page.context.route("**/api/mark", lambda route: route.abort())
    click(second)
    click(third)
    expect(page.locator("#unsent")).to_contain_text("2 marks are not saved yet")
    expect(page.locator("#marked")).to_contain_text("3 good, 0 bad")
    assert on_disk() == {first}
    context = page.context
    page.close()  # The page is gone, as after a crash.
    page = context.new_page()
    ready(page, served.url)
    expect(page.locator("#unsent")).to_contain_text("2 marks are not saved yet")
    with studio(films.path) as other:
        assert other.ask("/api/mark", {"clip": fourth, "mark": "bad"}).status == 200
    context.unroute("**/api/mark")
    expect(page.locator("#unsent")).to_be_hidden()
    expect(page.locator("#marked")).to_contain_text("3 good, 1 bad")
    assert on_disk() == {first, second, third, fourth}


def test_votes_of_a_blind_comparison_survive_a_reload(watched: Watched, tmp_path: Path) -> None:
    pairs = [{"left": "a.mp4", "right": "b.mp4", "prompts": ["one"]}]
    for name in ("first", "second"):
        (tmp_path / f"{name}.html").write_text(_html(pairs, name))
    page = watched.page
    page.goto((tmp_path / "first.html").as_uri())
    page.locator("input[name='0:diversity'][value=tie]").check()
    page.locator("input[name=judge]").fill("Ada")
    expect(page.locator("#kept")).to_contain_text("kept in this browser")
    page.reload()
    expect(page.locator("input[name='0:diversity'][value=tie]")).to_be_checked()
    expect(page.locator("input[name=judge]")).to_have_value("Ada")
    page.goto((tmp_path / "second.html").as_uri())
    assert page.locator("input:checked").count() == 0


def test_another_tier_and_back_to_the_start(watched: Watched, served: Studio) -> None:
    page = watched.page
    ready(page, served.url)
    before = totals(page)
    page.get_by_label("finetune").check()
    still(page)
    assert totals(page)["kept"] < before["kept"]
    expect(page.locator("#gate-width")).to_have_class(re.compile("off"))
    page.get_by_label("pretrain").check()
    still(page)
    drag(page, "flow", "low", 0.6)
    assert totals(page) != before
    page.get_by_role("button", name="Back to the recipe").click()
    page.wait_for_timeout(500)
    assert totals(page) == before


# ── strangers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_hostile_words_are_text_in_the_studio(watched: Watched, tmp_path: Path) -> None:
    page = watched.page
    workspace = hostile(tmp_path / "workspace")
    with studio(workspace.path) as running:
        ready(page, running.url)
        page.locator(f"#listed [data-clip='{clip_id('1')}'] .open-clip").first.click()
        expect(page.locator("dialog .caption")).to_contain_text("<script>alert(1)</script>")
        expect(page.locator("dialog .frames li")).to_have_count(5)
        assert page.locator("dialog img[src=x], dialog script").count() == 0
        assert page.locator("#filter select option").count() > 2
        page.wait_for_timeout(500)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 1440
    assert [fault for fault in watched.faults if "404" not in fault] == []  # The video of the clip does not exist.
    assert all(url.startswith((running.url, "data:")) for url in watched.requests)


def test_hostile_words_are_text_in_the_report(watched: Watched, tmp_path: Path) -> None:
    page = watched.page
    target = tmp_path / "report.html"
    target.write_bytes(write_report(hostile(tmp_path / "workspace"), recipe()))
    page.goto(target.as_uri())
    assert page.locator("script, img[src=x]").count() == 0
    assert page.locator("text=<script>alert(1)</script>").count() > 5
    assert watched.faults == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 1440


class Elsewhere(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, *_: Any) -> None:
        pass


def test_a_page_elsewhere_gets_nothing(watched: Watched, served: Studio) -> None:
    """On another port of this machine, and under another name of it: both are others to a browser."""
    page = watched.page
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ask = """async (url) => {
      const tried = {};
      for (const [name, path, how] of [
        ["read", "api/state", {}], ["blind", "api/state", {mode: "no-cors"}],
        ["json", "api/mark", {method: "POST", headers: {"content-type": "application/json"}, body: "{}"}],
        ["form", "api/mark", {method: "POST", mode: "no-cors", body: "{}"}],
      ]) tried[name] = await fetch(url + path, how).then((a) => a.type === "opaque" ? "opaque" : a.text(), () => "refused");
      tried.frame = await new Promise((done) => {
        const frame = document.createElement("iframe");
        frame.src = url;
        frame.onload = () => { try { done(String(frame.contentDocument && "seen")); } catch { done("hidden"); } };
        document.body.append(frame);
      });
      tried.picture = await new Promise((done) => {
        const picture = new Image();
        picture.onload = () => done("seen");
        picture.onerror = () => done("refused");
        picture.src = url + "clips/x/0.jpg";
      });
      return tried;
    }"""
    try:
        for name in ("127.0.0.1", "localhost"):
            page.goto(f"http://{name}:{server.server_port}/")
            answers: list[int] = []
            listen: Callable[..., None] = lambda response, answers=answers: answers.append(response.status)  # noqa: E731
            page.on("response", listen)
            tried = page.evaluate(ask, served.url)
            page.remove_listener("response", listen)
            assert tried["read"] == tried["json"] == "refused"
            assert tried["frame"] != "seen"
            assert tried["picture"] == "refused"
            assert 403 in answers
    finally:
        server.shutdown()
    assert served.ask("/api/marks", {}).data["marks"] == {}


# ── the report ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def report(made: Workspace, tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("report") / "report.html"
    target.write_bytes(write_report(made, made.recipe(None)))
    return target.as_uri()


def test_the_report_opens_from_a_file_and_asks_for_nothing(watched: Watched, report: str) -> None:
    page = watched.page
    page.goto(report)
    assert [url for url in watched.requests if not url.startswith("data:")] == [report]
    assert watched.faults == []
    assert page.locator(".frames img").count() >= 10
    broken = "[...document.images].filter((picture) => !picture.complete || !picture.naturalWidth).length"
    assert page.evaluate(broken) == 0
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the report")).to_be_focused()


def test_the_report_prints(watched: Watched, report: str) -> None:
    page = watched.page
    page.goto(report)
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert len(page.pdf(format="A4")) > 20_000


# ── looks, and for whom ──────────────────────────────────────────────────────────────────────────────────────────────


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_studio_and_report_are_for_everybody(
    browser: Browser, served: Studio, report: str, width: int, scheme: Any
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    SHOTS.mkdir(parents=True, exist_ok=True)
    try:
        page.goto(report)
        page.screenshot(path=SHOTS / f"report-{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert serious(page) == []
        ready(page, served.url)
        page.locator("#strip button.good").first.click()
        expect(page.locator("#agreement table")).to_be_visible()
        page.wait_for_timeout(500)
        page.screenshot(path=SHOTS / f"studio-{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert serious(page) == []
        page.locator("#listed .open-clip").first.click()
        page.wait_for_timeout(500)
        page.screenshot(path=SHOTS / f"clip-{width}-{scheme}.png")
        assert serious(page) == []
    finally:
        context.close()
