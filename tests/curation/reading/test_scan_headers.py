"""Scans of films whose header says too little or the wrong thing: rate, length and beginning are those of the pictures."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from longtake.curation.errors import VideoError
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.reading.video import probe
from longtake.curation.recipe import parse_recipe
from tests.corpus import SMALL, Corpus, Encoding, add_video, feed, pan
from tests.curation.reading.scans import NO_CUTS, recipe, scanned, value


def test_a_header_that_lies_about_the_rate_is_corrected(tmp_path: Path) -> None:
    path = tmp_path / "lie.mkv"
    how = Encoding(size=SMALL, fps=48, ticks=(2,))  # The header says 48 frames a second, and the film shows 24.
    with av.open(str(path), "w") as out:
        feed(out, add_video(out, how), pan("table", (2, 0), (600, 60), SMALL, 96), how)
    with open_video(str(path)) as video:
        assert probe(video).fps == 48
    scan = scanned(path, recipe(splitting=NO_CUTS), all_scores=True).scan
    assert scan.info.fps == pytest.approx(24, rel=1e-2)
    assert value(scan.clips[0], "fps") == pytest.approx(24, rel=1e-2)
    assert scan.info.duration == pytest.approx(4, abs=0.05)


def test_origin_of_files_that_do_not_start_at_zero(corpus: Corpus) -> None:
    """Times are of the picture; the file's own clock is kept beside them, for whoever cuts it."""
    lax = recipe(splitting=NO_CUTS)
    with av.open(str(corpus["transport_stream"])) as container:
        first = next(container.decode(video=0))
        assert first.time
    scan = scanned(corpus["transport_stream"], lax, all_scores=True).scan
    assert scan.info.origin == pytest.approx(first.time, abs=1e-6)
    assert scan.clips[0].span.start == 0
    assert scan.info.duration == pytest.approx(3, abs=1e-3)


def as_a_browser_records(path: Path, frames: int) -> None:
    """Thirty pictures a second, more or less, in WebM that knows of no rate, no length and no index."""
    noise = np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8)
    with av.open(str(path), "w", format="webm", options={"live": "1"}) as container:
        stream: Any = container.add_stream("libvpx", rate=30, options={"deadline": "realtime", "cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 160, 96, "yuv420p", 60
        stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, number, 1), format="rgb24")
            frame.pts, frame.time_base = round(number * 1000 / 30) + number * 7 % 11, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    at = data.index(b"\x23\xe3\x83\x84")  # The default duration of a frame becomes a void of the same length.
    data[at : at + 8] = b"\xec\x86" + bytes(6)
    path.write_bytes(data)


@pytest.mark.parametrize("listed", [False, True])
def test_the_ticks_of_a_clock_are_no_rate(tmp_path: Path, listed: bool) -> None:
    as_a_browser_records(tmp_path / "film.webm", 1200)
    asked = {"name": "x", "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2}}
    how = parse_recipe(asked | {"filters": {"fps": {}}, "tiers": {"all": {"fps": "[24, 60]"}}}, source="test")
    spans = [Span(0.0, 2.0), Span(30.0, 32.0)] if listed else []
    scan = scan_video(str(tmp_path / "film.webm"), how, lambda span, sample: None, spans=spans)
    assert scan.info.fps == pytest.approx(30, rel=0.01)
    assert all(clip.has_frames for clip in scan.clips)
    assert len(scan.clips) == (2 if listed else 20)
    assert [clip.scores["fps"].score.value for clip in scan.clips] == pytest.approx([30] * len(scan.clips), rel=0.01)


def test_a_matroska_that_is_all_there_is_as_long_as_its_pictures_whatever_its_header_says(tmp_path: Path) -> None:
    """Tools that cut without writing the header anew, and subtitles that go on behind the film. One that lacks its end is
    found out."""
    path = tmp_path / "film.mkv"
    noise = np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 160, 96, "yuv420p", 12
        for number in range(24 * 6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(noise, number, 1), format="rgb24")))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    at = data.index(bytes.fromhex("448988")) + 3
    assert struct.unpack_from(">d", data, at)[0] == pytest.approx(6000, abs=50)
    struct.pack_into(">d", data, at, 3.6e6)
    asked = {"name": "x", "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2}}
    how = parse_recipe(asked | {"filters": {"width": {}}, "tiers": {"all": {"width": ">= 1"}}}, source="test")
    path.write_bytes(data)
    scan = scan_video(str(path), how, lambda span, sample: None)
    assert (scan.info.duration, len(scan.clips)) == (pytest.approx(6, abs=0.1), 2)
    for kept in (len(data) - 1, len(data) // 2):
        path.write_bytes(data[:kept])
        with pytest.raises(VideoError) as raised:
            scan_video(str(path), how, lambda span, sample: None)
        assert raised.value.kind == "truncated"


@pytest.mark.parametrize("listed", [False, True])
def test_a_film_whose_last_frame_stands_for_long_is_all_there(tmp_path: Path, listed: bool) -> None:
    """Recordings of a screen end so. By its header such a film was cut off, and its average rate was too low for a tier."""
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"bf": "2", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 160, 96, "yuv420p", 25
        noise = np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8)
        packets = []
        for number in range(150):
            packets += stream.encode(av.VideoFrame.from_ndarray(np.roll(noise, number, 1), format="rgb24"))
        packets += stream.encode(None)
        packets[-1].duration = round(30 / packets[-1].time_base)
        for packet in packets:
            container.mux(packet)
    asked = {"name": "x", "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2}}
    how = parse_recipe(asked | {"filters": {"fps": {}}, "tiers": {"all": {"fps": "[24, 60]"}}}, source="test")
    spans = [Span(0.0, 2.0), Span(2.0, math.inf)] if listed else []
    scan = scan_video(str(path), how, lambda span, sample: None, spans=spans)
    assert scan.info.fps == pytest.approx(25)
    ends = sorted(clip.span.end for clip in scan.clips if clip.has_frames)
    assert ends == pytest.approx([2.0, 6.0] if listed else [2.0, 4.0, 6.0], abs=0.01)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    with pytest.raises(VideoError) as raised:
        scan_video(str(path), how, lambda span, sample: None, spans=spans)
    assert raised.value.kind == "truncated"


@pytest.mark.parametrize("late", [0, 3])
@pytest.mark.parametrize("suffix", [".mkv", ".flv", ".asf", ".mp4"])
def test_sound_that_goes_on_is_no_sign_of_a_film_cut_short(tmp_path: Path, suffix: str, late: int) -> None:
    """Some headers tell of the longest stream only. The same file, really cut short, is found out."""
    path = tmp_path / f"film{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4" if suffix != ".flv" else "flv", rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 160, 96, "yuv420p", 12
        sound: Any = container.add_stream("aac", rate=44100, layout="mono")
        for number in range(24 * 12):
            if number < 24 * 6:
                frame = av.VideoFrame.from_ndarray(np.roll(noise, number, 1), format="rgb24")
                frame.pts, frame.time_base = number + 24 * late, Fraction(1, 24)
                container.mux(stream.encode(frame))
            samples = np.zeros((1, 44100 // 24), np.float32)
            heard = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = 44100, number * samples.size, Fraction(1, 44100)
            container.mux(sound.encode(heard))
        container.mux(stream.encode(None))
        container.mux(sound.encode(None))
    asked = {"name": "x", "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2}}
    how = parse_recipe(asked | {"filters": {"width": {}}, "tiers": {"all": {"width": ">= 1"}}}, source="test")
    scan = scan_video(str(path), how, lambda span, sample: None)
    assert not any(clip.error for clip in scan.clips)
    assert scan.info.duration == pytest.approx(6, abs=0.1)
    if suffix == ".asf" and late:
        return  # The demuxer then guesses the length from the size of the file, and is wrong.
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError):
        scan_video(str(path), how, lambda span, sample: None)
