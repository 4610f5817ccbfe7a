"""Borders of known size around a moving picture: how exactly they are cut away, and where nothing may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from longtake.curation.reading.box import Box, as_coded, as_upright, window
from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.judge import ClipScan
from longtake.curation.reading.orientation import Orientation
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.recipe import Recipe, load_recipe, parse_recipe
from longtake.filters.base import Sample
from longtake.filters.registry import build
from tests.corpus import HD, X264, Encoding, Picture, Size, bars, film, pan, planes, turned, view, words

FPS = 12
COUNT = 3 * FPS
FULL_HD: Size = (1920, 1080)


def recipe(**changes: Any) -> Recipe:
    """What looks at borders, and cuts them away."""
    data: dict[str, Any] = {
        "name": "crop",
        "crop": "borders",
        "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2.5},
        "filters": {"width": {}, "height": {}, "grayscale": {}, "artifacts": {"backend": "borders"}, "flow": {}},
        "tiers": {"pretrain": {"width": ">= 1"}},
    }
    return parse_recipe({**data, **changes}, source="a test")


@dataclass
class Seen:
    clip: ClipScan
    sample: Sample

    @property
    def sides(self) -> tuple[int, int, int, int]:
        """Above, to the right, below, to the left: px that are cut away of an HD picture."""
        box = self.clip.crop
        assert box is not None, self.clip.not_cropped
        return box.y, HD[0] - box.x - box.width, HD[1] - box.y - box.height, box.x


def scan(path: Path, by: Recipe | None = None) -> list[Seen]:
    kept: list[Sample] = []
    found = scan_video(str(path), by or recipe(), lambda _, sample: kept.append(sample), all_scores=True)
    return [Seen(clip, sample) for clip, sample in zip(found.clips, kept, strict=True)]


def encoded(path: Path, pictures: Iterable[Picture], size: Size = HD, **how: Any) -> Path:
    film(path, pictures, Encoding(size, FPS, options=(*X264.items(), ("crf", "20")), **how))
    return path


def moving(size: Size = HD, count: int = COUNT) -> Iterable[Picture]:
    return pan("street" if size[1] <= 720 else "tower", (16, 4) if size[1] <= 720 else (4, 16), size=size, count=count)


def soft(pictures: Iterable[Picture]) -> Iterator[Picture]:
    for picture in pictures:
        luma = planes(picture)[0]
        luma[:] = cv2.GaussianBlur(luma, (0, 0), 1.5)
        yield picture


def noisy(pictures: Iterable[Picture]) -> Iterator[Picture]:
    random = np.random.default_rng(0)
    for picture in pictures:
        luma = planes(picture)[0]
        luma[:] = np.clip(luma + random.normal(0, 2.5, luma.shape), 0, 255)
        yield picture


def dim(pictures: Iterable[Picture]) -> Iterator[Picture]:
    """A dark scene: all but black above, and nowhere bright."""
    for picture in pictures:
        luma = planes(picture)[0].astype(np.float32) - 16
        ramp = np.linspace(0.02, 0.3, len(luma), dtype=np.float32)[:, None]
        planes(picture)[0][:] = np.clip(16 + luma * ramp, 16, 235)
        yield picture


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_sides_are_turned_as_pictures_are(turns: int, mirrored: bool) -> None:
    shown = Orientation(90 * turns, mirrored)
    coded = np.zeros((40, 60), np.uint8)
    coded[3:-7, 11:-5] = 1
    sides = (3 / 40, 5 / 60, 7 / 40, 11 / 60)
    upright = as_upright(sides, shown)
    picture = shown.upright(coded)
    rows, columns = window(upright, picture.shape[1], picture.shape[0])
    inside = np.zeros_like(picture)
    inside[rows, columns] = 1
    assert np.array_equal(inside, picture)
    assert as_coded(upright, shown) == pytest.approx(sides)


def test_a_box_is_even_and_lies_within_the_borders() -> None:
    assert Box.within((131, 3, 0, 1), 1920, 1080) == Box(2, 132, 1914, 948)
    assert Box.of_row(Box(2, 132, 1914, 948).columns()) == Box(2, 132, 1914, 948)
    assert Box.of_row({"crop_width": None}) is None


@pytest.mark.parametrize(
    ("border", "more"),
    [
        ((92, 0, 92, 0), None),
        ((61, 0, 67, 0), None),
        ((0, 121, 0, 120), None),
        ((50, 70, 50, 70), None),
        ((92, 0, 92, 0), soft),
        ((92, 0, 92, 0), noisy),
    ],
)
def test_the_border_is_cut_away_to_two_pixels(tmp_path: Path, border: tuple[int, ...], more: Any) -> None:
    top, right, bottom, left = border
    pictures: Iterable[Picture] = bars(top, bottom, left, right).over(moving())
    (seen,) = scan(encoded(tmp_path / "film.mp4", more(pictures) if more else pictures))
    assert np.abs(np.array(seen.sides) - border).max() <= 2
    height, width = seen.sample.keyframes.shape[1:3]
    assert seen.clip.crop is not None
    assert width / height == pytest.approx(seen.clip.crop.width / seen.clip.crop.height, rel=0.01)
    assert max(seen.clip.scores["artifacts"].score.detail) <= 0.02
    assert seen.clip.scores["width"].score.value == seen.clip.crop.width
    assert seen.clip.scores["height"].score.value == seen.clip.crop.height


@pytest.mark.slow  # Full HD is the size at which two px are less than one of the analysis size.
def test_full_hd_is_cut_as_exactly(tmp_path: Path) -> None:
    framed = bars(131, 131, size=FULL_HD).over(moving(FULL_HD))
    (seen,) = scan(encoded(tmp_path / "film.mp4", framed, FULL_HD))
    assert seen.clip.crop == Box(0, 132, 1920, 816)


def test_a_turned_film_is_cut_as_it_is_shown(tmp_path: Path) -> None:
    framed = turned(bars(80, 96).over(moving()))
    (seen,) = scan(encoded(tmp_path / "film.mp4", framed, HD[::-1], rotation=90))
    assert seen.sides == (80, 0, 96, 0)
    assert seen.sample.motion is not None
    assert (
        seen.sample.motion.first.shape[2] < seen.sample.motion.first.shape[1]
    )  # The pictures of its motion are not turned.


def test_scores_are_those_of_the_film_without_its_borders(tmp_path: Path) -> None:
    inner = (1280, 536)
    whole = list(moving())
    (cut,) = scan(encoded(tmp_path / "framed.mp4", bars(92, 92).over(p.copy() for p in whole)))

    def part(picture: Picture) -> Picture:
        return view(picture, 0, 92, inner)

    (plain,) = scan(encoded(tmp_path / "plain.mp4", map(part, whole), inner), recipe(crop=None))
    for name in ("grayscale", "flow", "width", "height"):
        assert cut.clip.scores[name].score.value == pytest.approx(plain.clip.scores[name].score.value, rel=0.03)
    apart = np.abs(cut.sample.keyframes.astype(int) - plain.sample.keyframes)
    assert apart.mean() < 3


def test_a_dark_scene_loses_nothing(tmp_path: Path) -> None:
    (seen,) = scan(encoded(tmp_path / "film.mp4", bars(92, 92).over(dim(moving()))))
    if seen.clip.crop is not None:
        assert seen.sides[0] <= 94
        assert seen.sides[2] <= 94
    (plain,) = scan(encoded(tmp_path / "plain.mp4", dim(moving())))
    assert plain.clip.crop is None


def test_a_scene_that_goes_through_black_has_the_same_border(tmp_path: Path) -> None:
    def fading() -> Iterator[Picture]:
        for number, picture in enumerate(pan("street", (16, 0), size=HD, count=60)):
            luma = planes(picture)[0]
            share = abs(number - 30) / 30
            luma[:] = 16 + (luma.astype(np.float32) - 16) * min(1.0, 1.5 * share)
            yield picture

    seen = scan(encoded(tmp_path / "film.mp4", bars(92, 92).over(fading())))
    assert [one.sides for one in seen] == [(92, 0, 92, 0)] * len(seen)


def split_screen() -> Iterator[Picture]:
    """A moving picture between two still ones, as sharp as itself, with a black line beside each."""
    left, right = (next(iter(pan(name, (0, 0), size=HD, count=1))) for name in ("table", "wide"))
    for picture in moving():
        for side, other in ((slice(0, 280), left), (slice(1000, 1280), right)):
            planes(picture)[0][:, side] = planes(other)[0][:, side]
        for line in (0, 279, 1000):
            planes(picture)[0][:, line : line + 2] = 16
        yield picture


def test_the_parts_of_a_split_screen_are_no_borders(tmp_path: Path) -> None:
    (plain,) = scan(encoded(tmp_path / "plain.mp4", split_screen()))
    assert plain.clip.crop is None
    assert not plain.clip.not_cropped
    (barred,) = scan(encoded(tmp_path / "barred.mp4", bars(61, 67).over(split_screen())))
    assert np.abs(np.array(barred.sides) - (61, 0, 67, 0)).max() <= 2


@pytest.mark.parametrize("still", [False, True], ids=["moving", "still"])
def test_a_blurred_frame_on_all_sides_is_cut_away(tmp_path: Path, still: bool) -> None:
    def framed() -> Iterator[Picture]:
        for picture in pan("street", (0, 0) if still else (16, 4), size=HD, count=COUNT):
            luma = planes(picture)[0]
            inner = luma[50:-50, 70:-70].copy()
            large = cv2.resize(inner[150:-150, 280:-280], HD, interpolation=cv2.INTER_LINEAR)
            luma[:] = cv2.GaussianBlur(large, (0, 0), 24)
            luma[50:-50, 70:-70] = inner
            yield picture

    (seen,) = scan(encoded(tmp_path / "film.mp4", framed()))
    assert np.abs(np.array(seen.sides) - (50, 70, 50, 70)).max() <= 2


def test_bars_that_are_lighter_than_the_night_end_where_they_end(tmp_path: Path) -> None:
    """The noise of a bar is lighter than a sky without any light, which is as dark as a bar otherwise."""

    def night() -> Iterator[Picture]:
        random = np.random.default_rng(0)
        for picture in moving():
            luma, *chroma = planes(picture)
            luma[:400] = 16
            for plane in chroma:
                plane[:] = 128
            for rows in (slice(0, 88), slice(628, 720)):
                luma[rows] = np.clip(22 + random.normal(0, 2.2, luma[rows].shape), 0, 255)
            yield picture

    (seen,) = scan(encoded(tmp_path / "film.mp4", night()))
    assert np.abs(np.array(seen.sides) - (88, 0, 92, 0)).max() <= 2


@pytest.mark.parametrize("then", [(0, 0), (120, 120)])
def test_a_border_that_changes_is_left(tmp_path: Path, then: tuple[int, int]) -> None:
    def changing() -> Iterator[Picture]:
        first, second = bars(60, 60), bars(*then)
        for number, picture in enumerate(moving()):
            yield next((first if number < 15 else second).over([picture]))

    (seen,) = scan(encoded(tmp_path / "film.mp4", changing()))
    assert seen.clip.crop is None
    assert then == (0, 0) or "not the same" in seen.clip.not_cropped


def test_too_little_left_is_rejected_as_before(tmp_path: Path) -> None:
    path = encoded(tmp_path / "film.mp4", bars(160, 160).over(moving()))
    (seen,) = scan(path)
    assert seen.clip.crop is None
    assert "56% of its picture would be left" in seen.clip.not_cropped
    (before,) = scan(path, recipe(crop=None))
    assert seen.clip.scores["artifacts"].score.detail == before.clip.scores["artifacts"].score.detail
    assert before.clip.scores["artifacts"].score.detail[0] == pytest.approx(320 / 720, abs=0.01)


def test_a_size_that_no_tier_takes_is_not_cut(tmp_path: Path) -> None:
    path = encoded(tmp_path / "film.mp4", bars(92, 92).over(moving()))
    tiers = {"pretrain": {"height": ">= 720"}, "finetune": {"height": ">= 1080"}}
    (seen,) = scan(path, recipe(tiers=tiers))
    assert seen.clip.crop is None
    assert "1280×536 px" in seen.clip.not_cropped
    (taken,) = scan(path, recipe(tiers={**tiers, "small": {"height": ">= 480"}}))
    assert taken.sides == (92, 0, 92, 0)


def test_the_protocols_say_that_borders_are_cut_away() -> None:
    on, off, plain = recipe(), recipe(crop=None), load_recipe("embedded")
    assert on.clip_protocol != off.clip_protocol
    assert {name for name, f in on.built.items() if f.protocol == off.built[name].protocol} == set()
    assert "crop.4/mean" in on.built["grayscale"].protocol
    assert "crop" not in plain.clip_protocol + "".join(f.protocol for f in plain.built.values())
    lower = parse_recipe({**on.model_dump(), "filters": {**on.filters, "artifacts": {}}}, "a test").built["artifacts"]
    assert lower.lower_bound is not None
    assert "crop.4" in lower.lower_bound.protocol


LINES = ("I never said he would come", "but you must tell me now", "Where were you that night", "at home with my son")


def titled() -> Iterator[Picture]:
    """Four lines of subtitles, one after the other, over the lower edge of a picture."""
    over = [words([(text, 650)], scale=1.6) for text in LINES]
    for number, picture in enumerate(moving()):
        yield next(over[number * len(over) // COUNT].over([picture]))


@pytest.mark.slow  # The network that finds text takes 0.1 s for each of ten pictures.
def test_subtitles_at_an_edge_are_cut_away(tmp_path: Path) -> None:
    path = encoded(tmp_path / "film.mp4", titled())
    text = {"artifacts": {"backend": "rapidocr"}, "width": {}}
    (seen,) = scan(path, recipe(filters=text))
    assert seen.clip.crop is not None
    assert seen.clip.crop.width == 1280
    assert 560 <= seen.clip.crop.height <= 606  # The letters begin at 606.
    (plain,) = scan(path, recipe(filters=text, crop=None))
    measure = build("artifacts", {"backend": "rapidocr"})
    (cut,), (whole,) = measure.measure([seen.sample]), measure.measure([plain.sample])
    assert whole.value > 0.02  # type: ignore[union-attr]
    assert cut.value <= 0.02  # type: ignore[union-attr]


# Export ---------------------------------------------------------------------------------------------------------------


def frames(path: Path) -> list[Picture]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]


@pytest.mark.parametrize("rotation", [0, 90])
def test_exported_frames_are_the_crop_of_the_sources(tmp_path: Path, rotation: int) -> None:
    size = (320, 240)
    pictures = list(pan("street", (4, 2), size=size, count=24))
    coded = turned(p.copy() for p in pictures) if rotation else pictures
    path = encoded(tmp_path / "film.mp4", coded, size[::-1] if rotation else size, rotation=rotation)
    how = EncodeSettings(fps=None, frames=None, preset="ultrafast", crf=0)
    box = Box(20, 34, 288, 172)
    whole = cut_clip(str(path), 0.0, 2.0, tmp_path / "whole.mp4", how)
    part = cut_clip(str(path), 0.0, 2.0, tmp_path / "part.mp4", how, crop=box)
    assert (whole.width, whole.height, part.width, part.height) == (320, 240, 288, 172)
    for full, cut in zip(frames(tmp_path / "whole.mp4"), frames(tmp_path / "part.mp4"), strict=True):
        assert np.array_equal(view(full, box.x, box.y, (box.width, box.height)), cut)


def test_what_is_kept_is_made_smaller_after_it_is_cut(tmp_path: Path) -> None:
    path = encoded(tmp_path / "film.mp4", bars(92, 92).over(moving(count=12)))
    how = EncodeSettings(fps=None, frames=None, preset="ultrafast", crf=10, max_height=268)
    made = cut_clip(str(path), 0.0, 1.0, tmp_path / "part.mp4", how, crop=Box(0, 92, 1280, 536))
    assert (made.width, made.height) == (640, 268)
    for picture in frames(tmp_path / "part.mp4"):
        luma = planes(picture)[0]
        assert luma[0].mean() > 40  # No row of the border is in it.
        assert luma[-1].mean() > 40
