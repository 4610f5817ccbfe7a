"""Interlaced film: a fast pan, woven of fields in both orders, must give whole pictures, in the scan as in the export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from longtake.curation.errors import VideoError
from longtake.curation.reading.decoding import DecodeCount, decode
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.progressive import whole_pictures
from longtake.curation.reading.video import probe

SIZE = (480, 272)
Grey = npt.NDArray[np.uint8]


def board() -> Grey:
    noise = np.random.default_rng(3).integers(0, 255, (SIZE[1], SIZE[0] + 1200), np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 4).astype(float)
    return np.clip((soft - soft.mean()) * 6 + 128, 0, 255).astype(np.uint8)


def field_pictures(count: int) -> Iterator[Grey]:
    """One picture per field, 8 px apart."""
    wide = board()
    for n in range(count):
        yield wide[:, 8 * n : 8 * n + SIZE[0]]


def film(path: Path, top_first: bool, fields: Sequence[Grey] | None = None) -> Path:
    """Pairs of `fields` woven into 25 frames a second, marked as they are."""
    fields = fields or list(field_pictures(48))
    mark = av.filter.Graph()
    source = mark.add_buffer(width=SIZE[0], height=SIZE[1], format=av.VideoFormat("yuv420p"), time_base=Fraction(1, 25))
    mark.link_nodes(source, mark.add("setfield", "tff" if top_first else "bff"), mark.add("buffersink")).configure()
    with av.open(str(path), "w") as container:
        options = {"crf": "4", "preset": "veryfast", "flags": "+ildct+ilme", "bf": "3", "b_strategy": "0"}
        stream: Any = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for n in range(len(fields) // 2):
            first, second = fields[2 * n], fields[2 * n + 1]
            planes = np.full((SIZE[1] // 2 * 3, SIZE[0]), 128, np.uint8)
            planes[: SIZE[1]] = first if top_first else second
            planes[1 : SIZE[1] : 2] = (second if top_first else first)[1::2]
            frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            mark.push(frame)
            container.mux(stream.encode(mark.pull()))
        container.mux(stream.encode(None))
    return path


def luma(frame: av.VideoFrame) -> npt.NDArray[np.float64]:
    return frame.to_ndarray()[: frame.height].astype(float)


def comb(picture: npt.NDArray[Any]) -> float:
    """How much lines differ from the mean of those above and below, in grey levels."""
    p = picture.astype(float)
    return float(np.abs(p[1:-1] - (p[:-2] + p[2:]) / 2).mean())


def read(path: Path, all_frames: bool) -> dict[float, npt.NDArray[np.float64]]:
    with open_video(str(path)) as video:
        frames = decode(video, probe(video), DecodeCount(), all_frames=all_frames)
        return {round(d.time, 3): luma(d.frame) for d in frames}


@pytest.mark.parametrize("top_first", [True, False])
def test_fields_become_whole_pictures_of_the_field_that_comes_first(tmp_path: Path, top_first: bool) -> None:
    path = film(tmp_path / "film.mp4", top_first)
    drawn = list(field_pictures(48))
    raw = [luma(f) for f in av.open(str(path)).decode(video=0)]
    assert comb(raw[5]) > 20
    every = read(path, all_frames=True)
    assert list(every) == [round(n / 25, 3) for n in range(24)]
    for n, picture in enumerate(every.values()):
        assert comb(picture) < 3
        assert np.abs(picture - drawn[2 * n]).mean() < 4 < np.abs(picture - drawn[2 * n + 1]).mean()


def test_the_scan_sees_what_the_export_shows(tmp_path: Path) -> None:
    """Though it passes over the frames that no other refers to."""
    path = film(tmp_path / "film.mp4", True)
    every, some = read(path, all_frames=True), read(path, all_frames=False)
    assert len(some) < len(every)
    for time, picture in some.items():
        assert comb(picture) < 3
        assert np.abs(picture - every[time]).mean() < 2, time


def test_what_stands_still_keeps_all_of_its_lines(tmp_path: Path) -> None:
    # The lines have two greys, and nothing moves.
    fine = np.tile(np.array([[60], [200]], np.uint8), (SIZE[1] // 2, SIZE[0]))
    still = list(read(film(tmp_path / "film.mp4", True, [fine] * 24), all_frames=True).values())
    assert np.abs(still[6] - fine).mean() < 3


def test_progressive_frames_pass_untouched(tmp_path: Path) -> None:
    frame = av.VideoFrame.from_ndarray(np.full((96, 64), 90, np.uint8), "yuv420p")
    assert next(whole_pictures(iter([(0.0, frame)])))[1] is frame


@pytest.mark.parametrize(
    ("pixel", "matrix", "full"), [("uyvy422", 1, 1), ("uyvy422", 5, 1), ("yuyv422", 1, 2), ("nv12", 9, 1)]
)
def test_packed_pictures_keep_their_matrix_and_range(pixel: str, matrix: int, full: int) -> None:
    """What makes frames whole takes planes only. A saturated red stays the same numbers on the way there."""
    mark = av.filter.Graph()
    source = mark.add_buffer(width=320, height=192, format=av.VideoFormat(pixel), time_base=Fraction(1, 25))
    mark.link_nodes(source, mark.add("setfield", "tff"), mark.add("buffersink")).configure()
    frames = []
    for n in range(4):
        frame = av.VideoFrame(320, 192, pixel)
        if pixel == "nv12":
            frame.planes[0].update(bytes([81]) * frame.planes[0].buffer_size)
            frame.planes[1].update(bytes([90, 240]) * (frame.planes[1].buffer_size // 2))
        else:
            of = bytes([90, 81, 240, 81]) if pixel == "uyvy422" else bytes([81, 90, 81, 240])
            frame.planes[0].update(of * (frame.planes[0].buffer_size // 4))
        frame.pts, frame.time_base = n, Fraction(1, 25)
        mark.push(frame)
        marked: Any = mark.pull()
        marked.colorspace, marked.color_range = matrix, full
        frames.append((n / 25, marked))
    for _, picture in whole_pictures(iter(frames)):
        assert (picture.colorspace, picture.color_range) == (matrix, full)
        planes = [np.frombuffer(p, np.uint8).reshape(p.height, -1)[:, : p.width] for p in picture.planes]
        assert [round(float(plane.mean())) for plane in planes] == [81, 90, 240]


@pytest.mark.parametrize(("lines", "fields"), [(288, True), (576, False)])
def test_hevc_in_fields_is_refused(tmp_path: Path, lines: int, fields: bool) -> None:
    """They were taken for interlaced frames of half the height. Whole frames may be marked in the same way."""
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx265", rate=50, options={"x265-params": "log-level=error:interlace=tff"})
        stream.width, stream.height, stream.pix_fmt = 64, lines, "yuv420p"
        stream.codec_context.thread_count = 1
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((lines, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    with open_video(str(path)) as video:
        frames = decode(video, probe(video), DecodeCount(), all_frames=True)
        if fields:
            with pytest.raises(VideoError, match="weave") as caught:
                list(frames)
            assert caught.value.kind == "unsupported"
        else:
            assert len(list(frames)) == 8
