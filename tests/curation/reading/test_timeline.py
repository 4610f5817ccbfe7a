"""When frames are shown, in files that lie about it. Each frame carries its number; a clip must show the right ones."""

from __future__ import annotations

import io
import itertools
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.curation.errors import VideoError
from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.decoding import DecodeCount, decode
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.mp4 import odd_edits
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.reading.timeline import Rate
from longtake.curation.reading.video import VideoInfo, probe
from longtake.curation.recipe import parse_recipe
from longtake.filters.base import Sample
from tests.curation.reading.test_cutting import SIZE, make, number_of, numbers, picture, steady
from tests.curation.reading.test_orientation import trees

REORDERED = {"preset": "veryfast", "bf": "3", "crf": "16", "sc_threshold": "0"}
TWENTY = EncodeSettings(fps=25, frames=20, preset="ultrafast")
SCAN = {"all_frames": False}
ALL = {"all_frames": True}


def film(path: Path) -> Path:
    return make(path, steady(25, 75), gop=25, rate=25, base=Fraction(1, 25), options=REORDERED)


def shown(path: Path, all_frames: bool) -> tuple[VideoInfo, DecodeCount, dict[float, int]]:
    """Time → number of the frame that is shown then."""
    with open_video(str(path)) as video:
        info, count = probe(video), DecodeCount()
        frames = decode(video, info, count, all_frames=all_frames)
        return info, count, {round(d.time, 3): number_of(d.frame.to_ndarray(format="rgb24")) for d in frames}


@pytest.mark.parametrize("how", [SCAN, ALL], ids=["scan", "export"])
def test_reordered_frames_of_an_avi_are_shown_in_order(tmp_path: Path, how: dict[str, bool]) -> None:
    """AVI has decoding times only."""
    path = film(tmp_path / "film.avi")
    info, count, frames = shown(path, **how)
    assert frames == {round(i / 25, 3): i for i in range(75)}
    assert (count.corrupt, count.restarts) == (0, 0)
    assert info.fps == pytest.approx(25)
    assert count.fps == pytest.approx(25)


def test_a_second_picture_of_the_same_moment_is_none_of_the_rate(tmp_path: Path) -> None:
    """Some muxers and recorders write frames that last for no time."""
    how: Any = {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {"qscale": "2"}}
    source = make(tmp_path / "film.mp4", steady(25, 60), rate=25, base=Fraction(1, 25), **how)
    with av.open(str(source)) as there, av.open(str(tmp_path / "film.mkv"), "w") as container:
        copy: Any = container.add_stream_from_template(there.streams.video[0])
        for number, packet in enumerate(packet for packet in there.demux(video=0) if packet.size):
            packet.pts = packet.dts = number - number // 10  # Each tenth is shown at the time of the one before.
            packet.time_base, packet.stream = Fraction(1, 25), copy
            container.mux(packet)
    _, count, frames = shown(tmp_path / "film.mkv", **ALL)
    assert list(frames) == pytest.approx([k / 25 for k in range(55)], abs=1e-3)
    assert count.fps == pytest.approx(25, rel=1e-3)


def small_frames(path: Path, count: int) -> Path:
    options = {"preset": "veryfast", "bf": "3", "crf": "40", "sc_threshold": "0"}
    return make(path, steady(50, count), gop=50, rate=50, base=Fraction(1, 50), options=options)


@pytest.mark.parametrize("how", [SCAN, ALL], ids=["scan", "export"])
def test_frames_of_a_program_stream_share_times(tmp_path: Path, how: dict[str, bool]) -> None:
    """H.264 in small frames, several of which begin in one packet of the stream: the first has a time, the others none. A frame
    that lies in two of these packets gets the time of the next one from ffmpeg, and then only one of them is shown."""
    path = small_frames(tmp_path / "film.mpg", 150)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    given = [packet.pts for packet in packets if packet.pts is not None]
    assert sum(packet.pts is packet.dts is None for packet in packets) > 100
    _, count, frames = shown(path, **how)
    apart = [round(time * 50) - number for time, number in frames.items()]
    twice = len(given) - len(set(given))
    assert (len(frames), count.corrupt, count.restarts) == (150 - twice, 0, 0)
    assert sum(map(abs, apart)) == twice <= 4
    assert count.fps == pytest.approx(50, rel=0.01)


@pytest.mark.parametrize("start", [0.0, 3.5, 5.2])
def test_clips_of_such_a_program_stream(tmp_path: Path, start: float) -> None:
    """Also where ffmpeg gives a frame the time of one that is shown two frames later, as it does near 5.2 s."""
    path = small_frames(tmp_path / "film.mpg", 400)
    cut_clip(str(path), start, start + 0.8, tmp_path / "clip.mp4", TWENTY)
    apart = np.subtract(numbers(tmp_path / "clip.mp4"), round(start * 50) + 2 * np.arange(20))
    assert np.abs(apart).max() <= 2


@pytest.mark.parametrize("how", [SCAN, ALL], ids=["scan", "export"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mjpeg"])
def test_frames_of_an_avi_without_reordering_are_shown_from_its_beginning(
    tmp_path: Path, how: dict[str, bool], codec: str
) -> None:
    """ffmpeg's demuxer gives each of H.264 the time of the next one."""
    options = {"preset": "ultrafast", "crf": "16", "bf": "0"} if codec == "libx264" else {"qscale": "2"}
    pixel = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    base = Fraction(1, 25)
    path = make(tmp_path / "film.avi", steady(25, 50), codec=codec, pix_fmt=pixel, rate=25, base=base, options=options)
    _, count, frames = shown(path, **how)
    assert frames == {round(i / 25, 3): i for i in range(50)}
    assert count.corrupt == 0


@pytest.mark.parametrize("start", [0.0, 1.0, 1.4, 2.0])
def test_clips_of_such_an_avi(tmp_path: Path, start: float) -> None:
    path = film(tmp_path / "film.avi")
    cut_clip(str(path), start, start + 0.8, tmp_path / "clip.mp4", TWENTY)
    assert numbers(tmp_path / "clip.mp4") == list(range(round(start * 25), round(start * 25) + 20))


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video"])
@pytest.mark.parametrize("start", [0.0, 1.0, 1.6, 2.2])
def test_clips_of_an_avi_whose_keyframes_have_frames_before_them(tmp_path: Path, codec: str, start: float) -> None:
    """Behind a seek, a decoder leaves out the frames that are shown before the keyframe, since they refer to others."""
    options = {"bf": "2", "b_strategy": "0", "qscale": "2", "sc_threshold": "1000000000"}
    path = make(
        tmp_path / "film.avi", steady(25, 75), codec=codec, gop=13, rate=25, base=Fraction(1, 25), options=options
    )
    cut_clip(str(path), start, start + 0.8, tmp_path / "clip.mp4", TWENTY)
    assert numbers(tmp_path / "clip.mp4") == list(range(round(start * 25), round(start * 25) + 20))


def test_such_an_avi_whole_and_at_its_own_rate(tmp_path: Path) -> None:
    """Half of the places in its index are empty: 50 a second, of which 25 hold a frame."""
    path = make(tmp_path / "film.avi", steady(25, 75), rate=50, base=Fraction(1, 50), options=REORDERED)
    clip = cut_clip(str(path), 0.0, 3.0, tmp_path / "clip.mp4", replace(TWENTY, fps=None, frames=None))
    assert clip.fps == 25
    assert numbers(tmp_path / "clip.mp4") == list(range(75))


def by_decoding(whole: Path, path: Path) -> Path:
    """A copy whose packets are given, as times of presentation, those at which they are decoded: 25 a second."""
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for number, packet in enumerate(p for p in source.demux(stream) if p.size):
            packet.stream = copy
            packet.pts = packet.dts = round(number / 25 / stream.time_base)
            target.mux(packet)
    return path


DECODED = [".mp4", ".flv", ".mkv", ".ts", ".asf", ".mxf"]


@pytest.mark.parametrize("how", [SCAN, ALL], ids=["scan", "export"])
@pytest.mark.parametrize("suffix", DECODED)
def test_reordered_frames_whose_container_names_times_of_decoding_are_shown_in_order(
    tmp_path: Path, suffix: str, how: dict[str, bool]
) -> None:
    """ASF and ffmpeg's MXF hold no others; of MP4, FLV and Matroska it is the mistake of a muxer."""
    path = by_decoding(film(tmp_path / "film.mp4"), tmp_path / f"late{suffix}")
    _, count, frames = shown(path, **how)
    first = min(frames)
    assert frames == {round(first + i / 25, 3): i for i in range(75)}
    assert 0 <= first <= 2 / 25
    assert (count.corrupt, count.restarts) == (0, 0)


@pytest.mark.parametrize("start", [0.0, 1.0, 1.4, 2.0])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mxf"])
def test_clips_of_film_with_times_of_decoding(tmp_path: Path, suffix: str, start: float) -> None:
    path = by_decoding(film(tmp_path / "film.mp4"), tmp_path / f"late{suffix}")
    cut_clip(str(path), start, start + 0.8, tmp_path / "clip.mp4", TWENTY)
    assert numbers(tmp_path / "clip.mp4") == list(range(round(start * 25), round(start * 25) + 20))


@pytest.mark.parametrize("how", [SCAN, ALL], ids=["scan", "export"])
@pytest.mark.parametrize("still", [4, 18, 40])
def test_frames_that_are_reordered_later_than_others(tmp_path: Path, still: int, how: dict[str, bool]) -> None:
    """The encoder says that it may reorder, but has no reason to before the picture moves: `still` frames are intra-coded."""
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options=REORDERED)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(75):
            frame = av.VideoFrame.from_ndarray(picture(number, (320, 240)), format="rgb24")
            frame.pts = number
            if number <= still:
                frame.pict_type = av.video.frame.PictureType.I
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _, count, frames = shown(path, **how)
    assert {time: number for time, number in frames.items() if number != round(25 * time)} == {}
    assert len(frames) == 75 if how is ALL else len(frames) < 75
    assert count.corrupt == 0


@pytest.mark.parametrize("how", [SCAN, ALL], ids=["scan", "export"])
def test_an_empty_packet_shows_the_picture_before_once_more(tmp_path: Path, how: dict[str, bool]) -> None:
    """Theora's way to say that nothing changes; a film of slides has more of them than of others."""
    whole = make(
        tmp_path / "whole.mkv", steady(25, 50), codec="mjpeg", pix_fmt="yuvj420p", rate=25, options={"qscale": "2"}
    )
    path = tmp_path / "film.nut"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for number, packet in enumerate(p for p in source.demux(stream) if p.size):
            held = av.Packet(bytes(packet) if number % 12 == 0 else b"")
            held.stream, held.time_base, held.pts, held.dts = copy, packet.time_base, packet.pts, packet.dts
            target.mux(held)
    _, count, frames = shown(path, **how)
    assert frames == {round(i / 25, 3): i // 12 * 12 for i in range(50)}
    assert (count.corrupt, count.last) == (0, pytest.approx(49 / 25))
    cut_clip(str(path), 0.4, 1.2, tmp_path / "clip.mp4", TWENTY)
    assert numbers(tmp_path / "clip.mp4") == [i // 12 * 12 for i in range(10, 30)]


@pytest.mark.parametrize("how", [SCAN, ALL], ids=["scan", "export"])
@pytest.mark.parametrize("bf", ["0", "3"])
def test_packets_without_a_picture(tmp_path: Path, bf: str, how: dict[str, bool]) -> None:
    """Recorders that put each unit into a packet of its own. The decoder of H.264 calls a packet of a message an error, unless it
    skips frames: a scan kept clips that an export then refused, and counted such packets as frames."""
    whole, path = tmp_path / "whole.mp4", tmp_path / "film.mkv"
    make(whole, steady(25, 75), gop=25, rate=25, base=Fraction(1, 25), options=REORDERED | {"bf": bf})
    message = b"\6\5\x11" + bytes(range(1, 17)) + b"x\x80"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.is_keyframe:
                alone = av.Packet(len(message).to_bytes(4, "big") + message)
                alone.pts, alone.dts, alone.time_base, alone.stream = packet.pts, packet.dts, packet.time_base, stream
                target.mux(alone)
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    _, count, frames = shown(path, **how)
    assert (count.packets, count.corrupt, count.fps) == (75, 0, pytest.approx(25))
    assert all(number == round(25 * time) for time, number in frames.items())
    cut_clip(str(path), 0.8, 1.6, tmp_path / "clip.mp4", TWENTY)
    assert numbers(tmp_path / "clip.mp4") == list(range(20, 40))


def edited(whole: Path, path: Path, parts: list[tuple[float, float]], speeds: list[float] | None = None) -> Path:
    """An MP4 file with another edit list: parts of so many seconds, each from a moment of the film on, at a speed. In one that
    begins below 0, nothing is shown."""
    data = bytearray(whole.read_bytes())

    def number(at: int) -> int:
        return int.from_bytes(data[at : at + 4], "big")

    old, media = data.index(b"edts") - 4, data.index(b"mdhd") + 16
    ticks, delay = number(media), number(data.index(b"elst") + 16)  # By so many ticks reordered frames are shown later.
    entries = [
        struct.pack(">IiI", round(1000 * s), -1 if start < 0 else delay + round(ticks * start), round(speed * 65536))
        for (s, start), speed in zip(parts, speeds or [1] * len(parts), strict=True)
    ]
    body = struct.pack(">4sII", b"elst", 0, len(entries)) + b"".join(entries)
    box = struct.pack(">I4sI", len(body) + 12, b"edts", len(body) + 4) + body
    more = len(box) - number(old)
    data[old : old + number(old)] = box
    for name in (b"moov", b"trak"):
        at = data.index(name) - 4
        data[at : at + 4] = (number(at) + more).to_bytes(4, "big")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("how", [SCAN, ALL], ids=["scan", "export"])
@pytest.mark.parametrize("parts", [[(1, 0), (1, 1.6)], [(1, 1.6), (1, 0.4)], [(0.6, 0.4), (0.6, 0.4), (0.6, 2.2)]])
def test_the_parts_of_an_edit_list_follow_each_other(
    tmp_path: Path, how: dict[str, bool], parts: list[tuple[float, float]]
) -> None:
    """As editors on telephones write it. Each part begins with the packets since its keyframe, whose times go back. ffmpeg's
    demuxer shows a part behind the first a frame too early or too late."""
    path = edited(film(tmp_path / "whole.mp4"), tmp_path / "edited.mp4", parts)
    _, count, frames = shown(path, **how)
    truth = [round(25 * start) + i for seconds, start in parts for i in range(round(25 * seconds))]
    for time, number in frames.items():
        assert abs(number - truth[min(round(25 * time), len(truth) - 1)]) <= 1
    assert len(frames) > (0.9 if how is ALL else 0.3) * len(truth)
    assert max(frames) == pytest.approx(len(truth) / 25, abs=2.5 / 25)
    assert (count.restarts, count.damaged) == (0, 0)
    cut_clip(str(path), 0.4, 1.2, tmp_path / "clip.mp4", TWENTY)
    clip = numbers(tmp_path / "clip.mp4")
    assert all(clip[i] == frames.get(round(0.4 + i / 25, 3), clip[i]) for i in range(20))


@pytest.mark.parametrize(
    ("parts", "speeds", "read"),
    [
        ([(1, 0), (0.5, -1), (1, 1)], [1, 1, 1], False),
        ([(1, 0), (0.5, -1)], [1, 1], False),
        ([(1, 0), (1, 1), (1, 1.5)], [1, 0.5, 1], False),
        ([(1, 0), (0.5, 1), (1, 1)], [1, 0, 1], False),
        ([(0.5, -1), (1, 0), (1, 1.6)], [1, 1, 1], True),
        ([(0.5, -1), (2, 0)], [1, 0.5], True),
    ],
    ids=["a gap", "a gap at its end", "slower", "still", "a delay", "all of it slower"],
)
def test_an_edit_list_that_ffmpeg_does_not_follow(
    tmp_path: Path, parts: list[tuple[float, float]], speeds: list[float], read: bool
) -> None:
    """ffmpeg shows frames of another place in gaps, and goes on with too many of a part that is slower."""
    path = edited(film(tmp_path / "whole.mp4"), tmp_path / "edited.mp4", parts, speeds)
    with open_video(str(path)) as video:
        if read:
            assert probe(video).width == SIZE[0]
        else:
            with pytest.raises(VideoError, match="its edit list changes the speed of a part, or has a gap") as caught:
                probe(video)
            assert caught.value.kind == "unsupported"


@given(st.lists(trees, max_size=4).map(b"".join))
def test_any_boxes(data: bytes) -> None:
    assert all(isinstance(track, int) for track in odd_edits(io.BytesIO(data)))


@pytest.mark.parametrize("how", [SCAN, ALL], ids=["scan", "export"])
def test_what_an_edit_list_leaves_out_is_never_shown(tmp_path: Path, how: dict[str, bool]) -> None:
    """As phones write it: of three seconds in the file, the edit list shows two. The clip ends where an export finds its end."""
    data = bytearray(film(tmp_path / "whole.mp4").read_bytes())
    at = (
        data.index(b"elst") + 12
    )  # The version, the flags and the number of entries precede the length of the first entry.
    assert int.from_bytes(data[at : at + 4], "big") == 3000
    data[at : at + 4] = (2000).to_bytes(4, "big")
    (tmp_path / "edited.mp4").write_bytes(data)
    _, count, frames = shown(tmp_path / "edited.mp4", **how)
    assert count.last == pytest.approx(max(frames), abs=0.5 / 25) == pytest.approx(2 - 1 / 25, abs=1.5 / 25)
    assert count.fps == pytest.approx(25)


def joined(tmp_path: Path, suffix: str, second: float) -> Path:
    """Two recordings of 2 s in one file, the second one's clock `second` s before the end of the first one's."""
    parts = []
    for i in range(2):
        part = tmp_path / f"{i}{suffix}"
        times = [t + i * (2 - second) for t in steady(25, 50)]
        with av.open(str(part), "w", format={".ts": "mpegts", ".mpg": "mpeg"}[suffix]) as container:
            codec = "libx264" if suffix == ".ts" else "mpeg2video"
            options = REORDERED if suffix == ".ts" else {"bf": "2", "qscale": "2"}
            stream: Any = container.add_stream(codec, rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = 320, 180, "yuv420p", 25
            for number, time in enumerate(times):
                frame = av.VideoFrame.from_ndarray(picture(50 * i + number), "rgb24")
                frame.pts, frame.time_base = round(time * 90000), Fraction(1, 90000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        parts.append(part.read_bytes())
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("suffix", [".ts", ".mpg"])
@pytest.mark.parametrize("second", [2.0, 1.0, -20.0], ids=["anew", "earlier", "later"])
def test_a_clock_that_is_set_anew_goes_on(tmp_path: Path, suffix: str, second: float) -> None:
    path = joined(tmp_path, suffix, second)
    _, count, frames = shown(path, all_frames=True)
    assert list(frames.values()) == list(range(100))
    # MPEG-PS does not say when the last frame before a leap is shown: decoding times stand in, some frames off.
    assert list(frames) == pytest.approx([i / 25 for i in range(100)], abs=0.09 if suffix == ".mpg" else 2e-3)
    assert (count.corrupt, count.restarts) == (0, 1)
    assert count.fps == pytest.approx(25, rel=0.02 if suffix == ".mpg" else 1e-3)
    start = list(frames)[60]
    cut_clip(str(path), start, start + 0.8, tmp_path / "c.mp4", TWENTY, seek=False)
    assert numbers(tmp_path / "c.mp4") == list(range(60, 80))


def test_frames_before_the_first_time_are_left_out(tmp_path: Path) -> None:
    """A Matroska file that begins before its own zero: its demuxer gives no times there."""
    path = tmp_path / "film.mkv"
    source = film(tmp_path / "film.mp4")
    with av.open(str(source)) as a, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as b:
        stream: Any = b.add_stream_from_template(a.streams.video[0])
        for packet in a.demux(a.streams.video[0]):
            if packet.size and packet.pts is not None and packet.dts is not None and packet.time_base:
                early = round(Fraction(7, 10) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - early, packet.dts - early, stream
                b.mux(packet)
    _, count, frames = shown(path, all_frames=True)
    assert count.corrupt == 0
    first, at = next(iter(frames.items()))
    assert first == 0
    assert {time: number - at for time, number in frames.items()} == {round(i / 25, 3): i for i in range(len(frames))}


def test_a_pass_that_stops_early_knows_the_rate(tmp_path: Path) -> None:
    """The reference frames lie ahead of the frames between them, which have not come yet."""
    path = make(tmp_path / "film.mp4", steady(24, 120), gop=120, options=REORDERED | {"bf": "12", "b_strategy": "0"})
    with open_video(str(path)) as video:
        info, count = probe(video), DecodeCount()
        for decoded in decode(video, info, count):
            if decoded.time > 2:
                break
    assert count.packets < 100
    assert count.fps == pytest.approx(24, rel=1e-6)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(0, 8), st.data())
def test_the_rate_of_any_order_is_that_of_the_frames_so_far(gaps: list[int], depth: int, data: st.DataObject) -> None:
    """Each packet is decoded no later than it is shown, in an order that no reordering of `depth` frames leaves."""
    times = list(itertools.accumulate(gaps, initial=0))
    left, order = list(range(len(times))), []
    while left:
        order.append(left.pop(data.draw(st.integers(0, min(depth, len(left) - 1)))))
    # The decoding time of a packet is no later than any time that is still to be shown.
    rate = Rate()
    stop = data.draw(st.integers(1, len(order)))
    for k, number in enumerate(order[:stop]):
        rate.add(times[number], min(times[i] for i in order[k:]))
    if rate.count > 1:
        exact = times[: rate.count]
        assert rate.fps == pytest.approx((rate.count - 1) / (exact[-1] - exact[0]))
    rate.finish()
    assert rate.count == stop


@pytest.mark.parametrize("suffix", [".ts", ".mpg"])
def test_clips_of_a_list_are_not_sought_where_a_clock_starts_anew(tmp_path: Path, suffix: str) -> None:
    """One time is in several places there. What is scanned is what is exported."""
    options = {"preset": "ultrafast", "crf": "20"} if suffix == ".ts" else {"qscale": "3"}
    part = tmp_path / f"part{suffix}"
    codec = "libx264" if suffix == ".ts" else "mpeg2video"
    make(part, steady(25, 600), codec=codec, gop=25, rate=25, base=Fraction(1, 25), options=options)
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(part.read_bytes() * 2)
    seen: list[tuple[float, int]] = []

    def keep(span: Span, sample: Sample) -> None:
        pairs = zip(sample.times, sample.keyframes, strict=True)
        seen.extend((time, number_of(picture)) for time, picture in pairs)

    asked = {"name": "x", "filters": {"width": {}}, "tiers": {"all": {"width": ">= 1"}}}
    spans = [Span(0.0, 2.0), Span(16.0, 18.0)]
    scan = scan_video(str(path), parse_recipe(asked, source="test"), keep, spans=spans)
    assert scan.count.restarts == 1
    assert [number for _, number in seen] == pytest.approx([25 * time for time, _ in seen], abs=1.1)
    if suffix == ".ts":
        cut_clip(str(path), 16.0, 16.8, tmp_path / "clip.mp4", TWENTY, seek=False)
        assert numbers(tmp_path / "clip.mp4") == list(range(400, 420))


def test_a_matroska_that_begins_late_is_as_long_as_its_pictures(tmp_path: Path) -> None:
    path = make(tmp_path / "film.mkv", steady(25, 75, begin=3.0), rate=25, base=Fraction(1, 25))
    asked = {"name": "x", "filters": {"width": {}}, "tiers": {"all": {"width": ">= 1"}}}
    info = scan_video(str(path), parse_recipe(asked, source="test"), lambda span, sample: None, spans=[Span(0, 2)]).info
    assert info.duration == pytest.approx(3, abs=0.1)


def before_zero(whole: Path, path: Path, earlier: float) -> Path:
    """The film `whole`, whose first frames are shown up to `earlier` seconds before zero."""
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                packet.pts -= round(earlier / packet.time_base)
                packet.dts -= round(earlier / packet.time_base)
                packet.stream = stream
                target.mux(packet)
    return path


@pytest.mark.parametrize("how", [SCAN, ALL], ids=["scan", "all"])
@pytest.mark.parametrize("earlier", [0.04, 0.72, 2.48])
def test_frames_of_matroska_before_zero(tmp_path: Path, how: dict[str, bool], earlier: float) -> None:
    """ffmpeg's demuxer gives packets before zero no time: such a film lost its first frames, and began later."""
    path = before_zero(film(tmp_path / "whole.mp4"), tmp_path / "film.mkv", earlier)
    info, count, numbers = shown(path, **how)
    assert numbers == shown(tmp_path / "whole.mp4", **how)[2]
    assert (numbers[0.0], max(numbers)) == (0, pytest.approx(2.96, abs=0.1))
    assert (count.damaged, info.duration, info.origin) == (0, pytest.approx(3), pytest.approx(-earlier))


@pytest.mark.parametrize("start", [0.0, 0.4, 1.4, 2.2])
def test_clips_of_such_matroska(tmp_path: Path, start: float) -> None:
    path = before_zero(film(tmp_path / "whole.mp4"), tmp_path / "film.mkv", 0.72)
    cut_clip(str(path), start, start + 0.8, tmp_path / "clip.mp4", TWENTY)
    assert numbers(tmp_path / "clip.mp4") == list(range(round(start * 25), round(start * 25) + 20))


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".asf", ".mp4"])
@pytest.mark.parametrize("late", [0.4, 6.0, 20.0])
def test_film_whose_sound_begins_long_before_its_pictures(tmp_path: Path, suffix: str, late: float) -> None:
    """ffmpeg looks at the first five seconds of a file. In Matroska the film then began with its sound, and frames came out in
    another order or were lost; in a transport stream it had no size."""
    path = tmp_path / f"film{suffix}"
    with av.open(str(film(tmp_path / "whole.mp4"))) as source, av.open(str(path), "w") as target:
        pictures = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("mp2", rate=32000, layout="mono")
        for begin in range(0, 32000 * 24, 1152):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 32000, begin, Fraction(1, 32000)
            target.mux(sound.encode(frame))
        for packet in source.demux(video=0):
            if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                packet.pts += round(late / packet.time_base)
                packet.dts += round(late / packet.time_base)
                packet.stream = pictures
                target.mux(packet)
    info, count, seen = shown(path, all_frames=True)
    assert list(seen.values()) == list(range(75))
    begin = min(seen)
    assert [time - begin for time in seen] == pytest.approx([n / 25 for n in range(75)], abs=0.002)
    assert (info.width, info.height, count.damaged) == (*SIZE, 0)
    asked = {"name": "x", "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2}}
    how = parse_recipe(asked | {"filters": {"fps": {}}, "tiers": {"all": {"fps": "[24, 60]"}}}, source="test")
    scan = scan_video(str(path), how, lambda span, sample: None)
    assert [(clip.span.end - begin, clip.error) for clip in scan.clips] == [(pytest.approx(2, abs=0.01), None)]
    if suffix != ".asf":
        # Its demuxer does not tell when the film begins.
        assert begin == 0
    for start in (0.0, 1.2, 2.0):
        cut_clip(str(path), begin + start, begin + start + 0.8, tmp_path / "clip.mp4", TWENTY)
        assert numbers(tmp_path / "clip.mp4") == list(range(round(start * 25), round(start * 25) + 20))


def test_a_recording_that_begins_long_before_its_first_keyframe(tmp_path: Path) -> None:
    """ffmpeg looks at five megabytes, in which there is none at the rates of broadcasts: such a film had no size."""
    whole, path, pictures = tmp_path / "whole.ts", tmp_path / "film.ts", np.random.default_rng(0)
    with av.open(str(whole), "w") as target:
        stream = target.add_stream("libx264", rate=25, options={"preset": "ultrafast", "qp": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 640, 360, "yuv420p", 40
        for _ in range(50):
            noise = pictures.integers(0, 256, (540, 640), np.uint8)
            target.mux(stream.encode(av.VideoFrame.from_ndarray(noise, "yuv420p")))
        target.mux(stream.encode(None))
    data = whole.read_bytes()
    begin = len(data) // 188 // 10 * 188  # About five frames.
    path.write_bytes(data[: 3 * 188] + data[begin:])
    with open_video(str(path)) as video:
        info, count = probe(video), DecodeCount()
        assert (info.width, info.height, len(list(decode(video, info, count)))) == (640, 360, 10)
        assert len(data) * 35 / 50 > 6e6, "so much of it comes before the keyframe"
