"""Scans of films whose clips a list gives: the clips of the list are sought, and no more is read than they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from longtake.curation.reading import listed
from longtake.curation.reading.listed import ListedPass
from longtake.curation.reading.opening import OpenVideo
from longtake.curation.reading.samples import load_sample
from longtake.curation.reading.sampling import Span, centres
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.reading.seeking import seek
from longtake.curation.recipe import parse_recipe
from tests.corpus import SMALL, Corpus, Encoding, film, pan
from tests.curation.reading.scans import failing, scanned, shown, value


def test_given_spans(corpus: Corpus) -> None:
    """Overlapping, unsorted, twice; each with the frames of its own five segments."""
    spans = [Span(4, 12), Span(0, 16), Span(1, 7.5), Span(4, 12), Span(2.5, 9.25)]
    result = scanned(corpus["pan_right"], all_scores=True, spans=spans)
    assert sorted((c.span.start, c.span.end) for c in result.scan.clips) == sorted((s.start, s.end) for s in spans)
    assert [c.span.end for c in result.scan.clips] == sorted(s.end for s in spans)
    assert result.scan.cuts == []
    for span, stored in result.kept:
        for i, (time, later) in enumerate(zip(stored.times, stored.partner_times, strict=True)):
            assert time == pytest.approx(span.start + span.seconds * (i + 0.5) / 5, abs=1.01 / 24)
            assert span.start <= time < later < span.end
    for clip in result.scan.clips:
        assert clip.error is None
        assert value(clip, "duration") == pytest.approx(clip.span.seconds)


def test_nothing_is_decoded_behind_the_last_span(corpus: Corpus) -> None:
    result = scanned(corpus["pan_right"], all_scores=True, spans=[Span(1, 4)])
    assert result.scan.decoded_seconds == pytest.approx(4, abs=2.1 / 24)
    assert result.scan.count.frames < 60
    assert result.scan.info.duration == pytest.approx(16)


def test_spans_beyond_the_end(corpus: Corpus) -> None:
    result = scanned(corpus["pan_right"], all_scores=True, spans=[Span(20, 36), Span(0, 15.5), Span(0, 400)])
    clips = {(c.span.start, c.span.end): c for c in result.scan.clips}
    assert len(clips) == 3
    assert clips[0, 15.5].error is None
    beyond, longer = clips[20, 36].error, clips[0, 400].error
    assert beyond is not None
    assert beyond.kind == "missing"
    assert "before this clip" in str(beyond)
    assert longer is not None  # Most moments of this span do not exist.
    assert [span for span, _ in result.kept] == [Span(0, 15.5)]


def test_spans_that_the_metadata_gates_reject_are_rows_all_the_same(corpus: Corpus) -> None:
    result = scanned(corpus["pan_right"], spans=[Span(0, 3), Span(5, 6)])
    assert result.scan.count.frames == 0
    assert [failing(c) for c in result.scan.clips] == [{"duration"}, {"duration"}]


class Counted:
    """A file that counts the bytes that are read from it."""

    def __init__(self, path: Path) -> None:
        self.file, self.bytes = path.open("rb"), 0

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.bytes += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_a_clip_of_a_list_is_sought_and_no_more_read_than_its_own(
    numbered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[Counted] = []

    def opened(source: Any) -> Any:
        files.append(Counted(Path(source.uri)))
        return files[-1]

    monkeypatch.setattr("longtake.curation.reading.opening.open_source", opened)
    monkeypatch.setattr(Counted, "__enter__", lambda self: self, raising=False)
    monkeypatch.setattr(Counted, "__exit__", lambda self, *_: self.file.close(), raising=False)
    spans = [Span(260, 275), Span(100, 102), Span(265, 280)]
    result = scanned(numbered, all_scores=True, spans=spans)
    assert [clip.span for clip in result.scan.clips] == sorted(spans, key=lambda span: span.end)
    assert not [clip.error for clip in result.scan.clips if clip.error]
    for span, stored in result.kept:
        sample = load_sample(stored)
        for time, picture in zip(sample.times, sample.keyframes, strict=True):
            assert shown(picture) == round(time * 10)
        for time, picture in zip(sample.partner_times, sample.partners, strict=True):
            assert shown(picture) == round(time * 10)
        assert np.abs(sample.times - np.array(centres(span, 5))).max() <= 0.15
        assert (sample.partner_times > sample.times).all()
    # The packets are those of the spans, and of some groups of pictures beside them.
    assert result.scan.count.packets < 10 * (20 + 2) + 3 * 4 * 20
    with av.open(str(numbered)) as container:
        packets = sorted((p.pts * float(p.time_base), p.size) for p in container.demux(video=0) if p.pts is not None)
    own = sum(size for time, size in packets if 98 <= time < 104 or 258 <= time < 282)
    index = numbered.stat().st_size - sum(size for _, size in packets)
    assert files[0].bytes < own + 3 * index + 20 * 32_768


def test_a_clip_of_nearly_an_hour_holds_ten_frames(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    settle = ListedPass._settle

    def counted(self: ListedPass, *arguments: Any) -> None:
        settle(self, *arguments)
        kept.append(sum(len(listed.frames) for listed in self.listed))

    monkeypatch.setattr(ListedPass, "_settle", counted)
    result = scanned(numbered, all_scores=True, spans=[Span(0, 290), Span(50, 65), Span(200, 215)])
    assert not [clip.error for clip in result.scan.clips if clip.error]
    assert max(kept) <= 30
    assert result.scan.count.packets < 2000
    (longest,) = [load_sample(stored) for span, stored in result.kept if span.end == 290]
    assert [shown(picture) for picture in longest.keyframes] == [round(time * 10) for time in longest.times]


@pytest.mark.parametrize("b_frames", [2, 8, 16])
def test_the_rate_of_a_film_whose_clips_end_early_is_its_own(tmp_path: Path, b_frames: int) -> None:
    path = tmp_path / "b.mp4"
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "x264-params": f"bframes={b_frames}:b-adapt=0:threads=1"}
        stream: Any = container.add_stream("libx264", rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(24 * 12):
            image = np.full((96, 160, 3), number % 200, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    result = scanned(path, all_scores=True, spans=[Span(0, 2)])
    assert result.scan.info.fps == pytest.approx(24.0)


def test_clips_of_a_list_far_behind_the_only_keyframe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seek leads to the beginning of the film: what lies between is decoded, and not sought again and again."""
    path = tmp_path / "one_keyframe.mp4"
    film(path, pan("table", (1, 0), (100, 60), SMALL, 24 * 34), Encoding(size=SMALL, gop=10_000))
    sought: list[float] = []

    def counted(video: OpenVideo, seconds: float) -> bool:
        sought.append(seconds)
        assert len(sought) < 10
        return seek(video, seconds)

    monkeypatch.setattr(listed, "seek", counted)
    how = parse_recipe({"name": "far", "filters": {"width": {}}, "tiers": {"all": {"width": ">= 1"}}}, source="test")
    spans = [Span(0.0, 2.0), Span(20.0, 22.0), Span(31.0, 33.0)]
    clips = scan_video(str(path), how, lambda span, sample: None, spans=spans).clips
    assert [(clip.span, clip.error, clip.has_frames) for clip in clips] == [(span, None, True) for span in spans]
    assert sought
