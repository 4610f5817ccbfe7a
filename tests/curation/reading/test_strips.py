"""Strips: every clip whose pictures the scan saw has one, whatever rejected it; a film that was not decoded is read for one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from longtake.curation.errors import VideoError
from longtake.curation.reading.sampling import Span, centres
from longtake.curation.reading.strips import PIXELS, Glimpses, strip_of_pictures, strip_of_source
from longtake.curation.recipe import load_recipe
from longtake.curation.stages.scan import scan_row
from longtake.filters.base import Image
from longtake.filters.gates import Gate
from longtake.manifests.frames import StoredStrip, read_frames, read_strips
from longtake.manifests.ids import video_id
from tests.corpus import SMALL, Encoding, Picture, film, plain

RATE, SECONDS = 24, 12.0
HOW = Encoding(size=SMALL, gop=RATE)  # The container has a keyframe each second.


def brighter(frames: int = int(RATE * SECONDS), size: tuple[int, int] = SMALL) -> Iterator[Picture]:
    """A film whose grey level tells the time: 40 and 14 a second, with a pattern."""
    for number in range(frames):
        picture = plain(size, 50 + round(12 * number / RATE))
        picture[: size[1] : 8, : size[0] : 8] += 10
        yield picture


def grey(seconds: float) -> float:
    """What it shows then, 0 to 255."""
    return (50 + 12 * seconds - 16) * 255 / 219


def pictures_of(strip: StoredStrip) -> list[Image]:
    whole = cv2.imdecode(np.frombuffer(strip.jpeg, np.uint8), cv2.IMREAD_COLOR)
    return [np.asarray(part) for part in np.split(np.asarray(whole), len(strip.times), axis=1)]


def assert_shows(strip: StoredStrip, span: Span, off: float = 0.1) -> None:
    """off: seconds that a picture may be away from the centre of its segment."""
    assert strip.times == pytest.approx(centres(span, 5), abs=off)
    for picture, moment in zip(pictures_of(strip), strip.times, strict=True):
        assert picture.shape[0] * picture.shape[1] == pytest.approx(PIXELS, rel=0.02)
        assert picture.mean() == pytest.approx(grey(moment), abs=3)


def scanned(tmp_path: Path, tier: dict[str, Gate], spans: list[dict[str, Any]] | None = None, **changes: Any) -> Any:
    """A row of videos, and the strips and samples that lie beside it."""
    path = tmp_path / "film.mp4"
    film(path, brighter(), HOW)
    recipe = load_recipe("embedded").model_dump(mode="json")
    plain_tier = {name: str(gate) for name, gate in tier.items()}
    recipe |= {"tiers": {"pretrain": plain_tier, "finetune": plain_tier}}
    recipe["splitting"] |= {"detector": "none", "dissolves": False, "min_seconds": 10, "window_seconds": 10} | changes
    row = {"video_id": video_id(str(path)), "uri": str(path), "licence": None, "spans": spans}
    made = scan_row(row, str(tmp_path / "workspace"), recipe, False)
    clips = [clip["clip_id"] for clip in made["clips"]]
    place = str(tmp_path / "workspace"), made["video_id"], clips
    if not any((tmp_path / "workspace").rglob("*.parquet")):
        return made["clips"], {}, {}
    return made["clips"], read_strips(*place), read_frames(*place)


@pytest.mark.parametrize(
    ("tier", "frames", "seconds"),
    [
        ({"fps": Gate(low=1)}, True, 10),  # The clip is kept so far.
        ({"psnr": Gate(low=90)}, False, 10),  # The clip is rejected in the pass.
        ({"grayscale": Gate(low=250)}, False, SECONDS),  # The clip is rejected by the keyframes of its container.
    ],
)
def test_a_clip_has_a_strip_whatever_rejects_it(
    tmp_path: Path, tier: dict[str, Gate], frames: bool, seconds: float
) -> None:
    (clip,), strips, samples = scanned(tmp_path, tier)
    assert clip["has_strip"] is True
    assert (clip["has_frames"], len(samples)) == (frames, int(frames))
    assert_shows(strips[clip["clip_id"]], Span(0, seconds), 0.1 if seconds == 10 else 0.6)


def test_a_shot_that_is_too_short_for_a_clip_has_a_strip(tmp_path: Path) -> None:
    (clip,), strips, samples = scanned(tmp_path, {"fps": Gate(low=1)}, min_seconds=14, window_seconds=14)
    assert (clip["error_kind"], clip["has_strip"], samples) == ("too_short", True, {})
    assert_shows(strips[clip["clip_id"]], Span(0, SECONDS), 0.3)


def test_a_clip_of_a_list_has_a_strip(tmp_path: Path) -> None:
    span = {"start": 1.5, "end": 11.5, "caption": None, "sub_captions": None, "captions": None}
    (clip,), strips, samples = scanned(tmp_path, {"psnr": Gate(low=90)}, [span])
    assert (clip["has_strip"], samples) == (True, {})
    assert_shows(strips[clip["clip_id"]], Span(1.5, 11.5))


def test_what_metadata_reject_is_not_decoded(tmp_path: Path) -> None:
    (clip,), strips, samples = scanned(tmp_path, {"width": Gate(low=1280)})
    assert (clip["has_strip"], strips, samples) == (False, {}, {})


# ── out of a source ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("source") / "film.mp4"
    film(path, brighter(), HOW)
    return str(path)


@pytest.mark.parametrize("span", [Span(0, SECONDS), Span(6.5, 9.5), Span(0, 2)])
def test_a_source_is_read_at_the_moments_of_a_clip(source: str, span: Span) -> None:
    assert_shows(strip_of_source(source, span, 5, 30), span)


def test_a_source_is_read_no_longer_than_it_may(source: str) -> None:
    began = time.process_time()
    strip = strip_of_source(source, Span(0, SECONDS), 5, 0.0)
    assert 1 <= len(strip.times) <= 5  # The container's keyframes come first.
    assert time.process_time() - began < 5
    for picture, moment in zip(pictures_of(strip), strip.times, strict=True):
        assert picture.mean() == pytest.approx(grey(moment), abs=3)


def test_a_clip_behind_the_end_of_its_source_and_one_of_no_length(source: str) -> None:
    assert strip_of_source(source, Span(20, 30), 5, 30).times == pytest.approx([SECONDS], abs=0.2)
    assert strip_of_source(source, Span(0, 0), 5, 30).times == pytest.approx([0], abs=0.1)


def test_a_source_that_is_no_film(tmp_path: Path) -> None:
    junk = tmp_path / "junk.mp4"
    junk.write_bytes(b"no film at all" * 100)
    with pytest.raises(VideoError, match="no container"):
        strip_of_source(str(junk), Span(0, 1), 5, 5)


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("height", "width"), [(540, 960), (960, 540), (40, 960), (960, 40), (3, 5)])
def test_pictures_of_any_shape_have_one_size(height: int, width: int) -> None:
    strip = strip_of_pictures(np.full((5, height, width, 3), 90, np.uint8), range(5))
    first, *others = pictures_of(strip)
    assert all(other.shape == first.shape for other in others)
    assert first.shape[0] * first.shape[1] == pytest.approx(PIXELS, rel=0.05)
    assert first.mean() == pytest.approx(90, abs=2)


def test_glimpses_are_the_nearest_frames_each_once() -> None:
    glimpses = Glimpses(Span(0, 10), 5)  # The glimpses are wanted at 1, 3, 5, 7 and 9 s.
    for moment in (0.0, 0.9, 2.0, 5.4, 5.1, 9.9):
        glimpses.push(moment, np.full((20, 40, 3), round(20 * moment), np.uint8))
    strip = glimpses.strip()
    assert strip is not None
    assert strip.times == [0.9, 2.0, 5.1, 5.4, 9.9]
    assert [round(picture.mean()) for picture in pictures_of(strip)] == pytest.approx([18, 40, 102, 108, 198], abs=1)
    assert Glimpses(Span(0, 10), 5).strip() is None
