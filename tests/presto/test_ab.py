"""The page of a blind comparison, and what its votes say."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from longtake.presto.ab import agreement, at_rate, count_votes, interval, write_page
from longtake.presto.cli import app
from longtake.presto.errors import PrestoError
from longtake.presto.video import read_video, video_shape, write_video

runner = CliRunner()


def samples(
    folder: Path,
    prompts: list[list[str]],
    seeds: list[int] | None = None,
    size: tuple[int, int] = (64, 96),
    fps: float = 8,
    grey: int = 40,
) -> Path:
    """Grey videos of 16 frames. seeds: of each; None: none is told."""
    folder.mkdir(parents=True)
    for i, texts in enumerate(prompts):
        write_video(folder / f"{i:04d}.mp4", np.full((16, *size, 3), grey, np.uint8), fps)
        about: dict[str, Any] = {"prompts": texts} | ({"seed": seeds[i]} if seeds else {})
        (folder / f"{i:04d}.json").write_text(json.dumps(about))
    return folder


class Tags(HTMLParser):
    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [name for name, _ in attrs]))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_markup_in_a_prompt_makes_no_element(tmp_path: Path) -> None:
    nasty = "</li><img src=x onerror='x'>\"<script>y</script> &lt;b&gt; {{ 7 * 7 }} \u202e"
    pages = []
    for name, prompt in (("hostile", nasty), ("harmless", "a prompt")):
        both = [samples(tmp_path / name / model, [[prompt] * 5]) for model in ("ours", "theirs")]
        pages.append(Tags(write_page(both[0], both[1], tmp_path / name / "page").page))
    assert pages[0].found == pages[1].found
    assert pages[0].text.count(nasty) == 5


def test_each_seed_is_a_pair_and_what_has_no_partner_is_said(tmp_path: Path) -> None:
    one, two, three = ["a", "b"], ["c", "d"], ["e", "f"]
    ours = samples(tmp_path / "ours", [one, one, two, three], [1, 2, 1, 1], grey=40)
    theirs = samples(tmp_path / "theirs", [two, one, one, one], [7, 2, 1, 3], grey=200)
    made = write_page(ours, theirs, tmp_path / "page")
    assert made.pairs == 3
    assert {(path.parent.name, path.name) for path in made.alone} == {("ours", "0003.mp4"), ("theirs", "0003.mp4")}
    key = json.loads(made.key.read_text())
    assert sorted(pair["prompts"] for pair in key["pairs"].values()) == [one, one, two]
    assert len(list((made.page.parent / "videos").iterdir())) == 6
    told = runner.invoke(app, ["ab", str(ours), str(theirs), "-o", str(tmp_path / "again")]).output
    assert "3 pairs" in told
    assert str(ours / "0003.mp4") in told


def test_nothing_of_an_older_page_is_mixed_in(tmp_path: Path) -> None:
    both = [samples(tmp_path / name, [["a", "b"]]) for name in ("ours", "theirs")]
    made = write_page(both[0], both[1], tmp_path / "page")
    assert made.key == tmp_path / "page.key.json"
    assert sorted(path.name for path in made.page.parent.iterdir()) == ["index.html", "videos"]
    text = made.page.read_text()
    assert all(word not in text for word in ("ours", "theirs", "first", "second"))
    with pytest.raises(PrestoError, match="page is not empty"):
        write_page(both[0], both[1], tmp_path / "page")
    (tmp_path / "other.key.json").write_text("{}")
    with pytest.raises(PrestoError, match=r"other\.key\.json is the key of another page"):
        write_page(both[0], both[1], tmp_path / "other")
    with pytest.raises(PrestoError, match="no prompts are in both"):
        write_page(both[0], samples(tmp_path / "else", [["x", "y"]]), tmp_path / "page2")


def test_sides_are_of_one_size_and_rate(tmp_path: Path) -> None:
    ours = samples(tmp_path / "ours", [["a", "b"]], size=(128, 160), fps=16, grey=40)
    theirs = samples(tmp_path / "theirs", [["a", "b"]], size=(64, 96), fps=8, grey=200)
    made = write_page(ours, theirs, tmp_path / "page")
    key = json.loads(made.key.read_text())["pairs"]["0"]
    left, right = (tmp_path / "page" / name for name in _sources(made.page))
    assert video_shape(left) == video_shape(right) == (64, 96, 8.0)
    greys = {side: read_video(path)[0].mean() for side, path in (("left", left), ("right", right))}
    assert abs(greys[next(s for s in greys if key[s] == "first")] - 40) < 5
    assert abs(greys[next(s for s in greys if key[s] == "second")] - 200) < 5
    frames = np.arange(30, dtype=np.uint8)[:, None, None, None]
    assert at_rate(frames, 30, 15).ravel().tolist() == list(range(0, 30, 2))
    assert at_rate(frames[:4], 4, 8).ravel().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def _sources(page: Path) -> list[str]:
    return [part.split('"')[0] for part in page.read_text().split('<video src="')[1:]]


def votes(path: Path, page: str, judge: str, **given: str) -> Path:
    choices = {name.replace("_", ":"): choice for name, choice in given.items()}
    path.write_text(json.dumps({"page": page, "judge": judge, "votes": choices}))
    return path


def a_key(path: Path, page: str = "p1", pairs: int = 4) -> Path:
    sides = {str(i): {"left": "first", "right": "second", "prompts": []} for i in range(pairs)}
    path.write_text(json.dumps({"page": page, "first": "a", "second": "b", "pairs": sides}))
    return path


def test_votes_of_another_page_are_refused(tmp_path: Path) -> None:
    key = a_key(tmp_path / "page.key.json")
    with pytest.raises(PrestoError, match=r"old\.json holds votes of page p0, and .* is the key of page p1"):
        count_votes(key, [votes(tmp_path / "old.json", "p0", "a", **{"0_diversity": "left"})])
    (tmp_path / "older.json").write_text(json.dumps({"0:diversity": "left", "judge": "a"}))
    with pytest.raises(PrestoError, match="votes of page None"):
        count_votes(key, [tmp_path / "older.json"])
    fine = votes(tmp_path / "a.json", "p1", "a", **{"0_diversity": "left"})
    with pytest.raises(PrestoError, match="both of the judge 'a'"):
        count_votes(key, [fine, fine])
    for name, choice in (("99_diversity", "left"), ("0_beauty", "left"), ("0_diversity", "both")):
        with pytest.raises(PrestoError, match="is no vote of this page"):
            count_votes(key, [votes(tmp_path / "c.json", "p1", "c", **{name: choice})])
    (tmp_path / "none.json").write_text('{"pairs": {}}')
    with pytest.raises(PrestoError, match="no key of a blind comparison"):
        count_votes(tmp_path / "none.json", [fine])


def test_win_lose_tie_with_intervals_and_agreement(tmp_path: Path) -> None:
    key = a_key(tmp_path / "page.key.json")
    a = votes(tmp_path / "a.json", "p1", "a", **{f"{i}_diversity": "left" for i in range(4)}, **{"0_coherence": "tie"})
    b = votes(tmp_path / "b.json", "p1", "b", **{"0_diversity": "right", "1_diversity": "left", "2_diversity": "tie"})
    found = count_votes(key, [a, b])
    diversity, coherence, adherence = (found[c] for c in ("diversity", "coherence", "adherence"))
    assert diversity.counts == {"win": 5, "lose": 1, "tie": 1}
    assert diversity.shares == {"win": (0.5 + 1 + 0.5 + 1) / 4, "lose": 0.125, "tie": 0.125}
    assert (diversity.pairs, diversity.together) == (4, pytest.approx(1 / 3))
    assert (coherence.counts["tie"], coherence.together, coherence.alpha) == (1, None, None)
    assert adherence.pairs == 0
    told = runner.invoke(app, ["tally", str(key), str(a), str(b)]).output
    low, high = interval(0.75, 4)
    assert f"5 (75%, {low:.0%}–{high:.0%})" in told
    assert "33%" in told


def test_intervals_and_agreement_of_known_cases() -> None:
    """Wilson's of 8 in 10 (Brown, Cai and DasGupta 2001: 0.490 to 0.943), and Krippendorff's own example B (0.692)."""
    assert interval(0.8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert interval(1.0, 20)[0] > 0.8
    assert interval(0.0, 0) == (0.0, 1.0)
    ben, gerry = "aabbdcccedda", "babbbccceddd"
    together, alpha = agreement([list(pair) for pair in zip(ben, gerry, strict=True)])
    assert (together, alpha) == (pytest.approx(9 / 12), pytest.approx(0.692, abs=5e-4))
    assert agreement([["win", "win"], ["win", "win"], ["lose"]]) == (1.0, None)
    assert agreement([["win"]]) == (None, None)
