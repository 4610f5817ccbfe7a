"""The page of a blind comparison in a real browser: from samples, by votes, to the tally."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Page, expect

from longtake.presto.ab import CRITERIA, count_votes, write_page
from tests.e2e.conftest import SHOTS, Watched
from tests.presto.test_ab import samples

PROMPTS = [["a red car", "it turns"], ["rain falls", "the night comes"]]


def vote(page: Page, number: int, criterion: str, choice: str) -> None:
    page.locator(f"input[name='{number}:{criterion}'][value={choice}]").check()


def save(page: Page, path: Path) -> Path:
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save votes").click()
    waiting.value.save_as(path)
    return path


def test_a_judge_votes_and_the_tally_counts(watched: Watched, tmp_path: Path) -> None:
    """Two seeds of one prompt and one of another; the judge prefers the brighter model in two pairs of three."""
    prompts = [PROMPTS[0], PROMPTS[0], PROMPTS[1]]
    ours = samples(tmp_path / "ours", prompts, [1, 2, 1], size=(128, 192), fps=16, grey=200)
    theirs = samples(tmp_path / "theirs", prompts, [1, 2, 1], fps=8, grey=40)
    made = write_page(ours, theirs, tmp_path / "page")
    page = watched.page
    page.goto(made.page.as_uri())
    expect(page.locator("section")).to_have_count(3)
    videos = page.locator("video")
    for i in range(6):
        page.wait_for_function("i => document.querySelectorAll('video')[i].readyState >= 2", arg=i)
    shown = videos.evaluate_all("all => all.map(v => [v.videoWidth, v.videoHeight, v.currentSrc])")
    assert {(width, height) for width, height, _ in shown} == {(96, 64)}  # The size does not show whose a video is.
    assert not any(word in name for _, _, name in shown for word in ("ours", "theirs"))
    sides = json.loads(made.key.read_text())["pairs"]
    for number in range(3):
        bright = next(side for side in ("left", "right") if sides[str(number)][side] == "first")
        dark = {"left": "right", "right": "left"}[bright]
        vote(page, number, "diversity", bright if number else dark)
        vote(page, number, "coherence", "tie")
        vote(page, number, "adherence", bright)
    page.locator("input[name=judge]").fill("Ada")
    page.reload()  # The choice of a judge outlives it.
    expect(page.locator("input:checked")).to_have_count(3 * len(CRITERIA))
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / "blind.png", full_page=True)
    sent = save(page, tmp_path / "votes.json")
    found = count_votes(made.key, [sent])
    assert found["diversity"].counts == {"win": 2, "lose": 1, "tie": 0}
    assert found["coherence"].counts == {"win": 0, "lose": 0, "tie": 3}
    assert found["adherence"].counts == {"win": 3, "lose": 0, "tie": 0}
    assert not watched.faults
    assert all(url.startswith(("file:", "blob:")) for url in watched.requests)


def test_votes_that_are_missing_cannot_be_saved_and_pages_do_not_share_them(watched: Watched, tmp_path: Path) -> None:
    both = [samples(tmp_path / name, PROMPTS) for name in ("ours", "theirs")]
    one, other = (write_page(both[0], both[1], tmp_path / name) for name in ("one", "other"))
    page = watched.page
    page.goto(one.page.as_uri())
    for number in range(2):
        for criterion in CRITERIA:
            vote(page, number, criterion, "left")
    downloads: list[object] = []
    page.on("download", lambda download: downloads.append(download))
    page.get_by_role("button", name="Save votes").click()  # The judge has no name yet.
    assert page.locator("input[name=judge]").evaluate("field => field.matches(':invalid')")
    assert not downloads
    page.locator("input[name=judge]").fill("Ada")
    sent = json.loads(save(page, tmp_path / "votes.json").read_text())
    assert sent["page"] == json.loads(one.key.read_text())["page"] != json.loads(other.key.read_text())["page"]
    assert (sent["judge"], len(sent["votes"])) == ("Ada", 6)
    page.goto(other.page.as_uri())
    expect(page.locator("input:checked")).to_have_count(0)
