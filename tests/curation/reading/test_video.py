"""Reading video, against the corpus' own truth, whole decodes by PyAV, and the pictures that were encoded."""

from __future__ import annotations

import http.server
import itertools
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.curation.errors import VideoError
from longtake.curation.reading.decoding import DecodeCount, DecodedFrame, decode
from longtake.curation.reading.opening import displayed_size, open_video
from longtake.curation.reading.video import VideoInfo, missing_tail, probe
from longtake.manifests.folder import local_path
from tests.corpus import CASES, SMALL, Corpus, Encoding, film, pan, planes

REAL = Path(__file__).parents[4] / "shared" / "corpus" / "videos"
READABLE = [name for name, case in CASES.items() if not case.truth.error]
# The other containers and codecs have three seconds.
LITTLE = [name for name in READABLE if CASES[name].truth.duration == 3]
KINDS = {
    "empty": "empty",
    "garbage": "not_video",
    "text": "not_video",
    "no_index": "truncated",
    "impossible_size": "unsupported",
    "sound_only": "no_video",
    "sound_with_cover": "no_video",
}


def info_of(path: Path | str) -> VideoInfo:
    with open_video(str(path)) as video:
        return probe(video)


def kind_of(uri: Path | str) -> str:
    with pytest.raises(VideoError) as caught:
        info_of(uri)
    assert str(caught.value)
    return caught.value.kind


def read(path: Path | str, *, all_frames: bool = False) -> tuple[VideoInfo, list[DecodedFrame], DecodeCount]:
    """All that `decode` gives; the frames stay in memory: for small files."""
    with open_video(str(path)) as video:
        info, count = probe(video), DecodeCount()
        return info, list(decode(video, info, count, all_frames=all_frames)), count


def whole_decode(path: Path) -> list[tuple[float, av.VideoFrame]]:
    """Every frame, and its time since the first, by PyAV alone."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        frames = [frame for frame in container.decode(stream) if isinstance(frame, av.VideoFrame)]
    start = min(frame.time for frame in frames if frame.time is not None)
    return [(frame.time - start, frame) for frame in frames if frame.time is not None]


def same_picture(a: av.VideoFrame, b: av.VideoFrame) -> bool:
    return a.format.name == b.format.name and np.array_equal(a.to_ndarray(), b.to_ndarray())


def small_pan(count: int = 48, size: tuple[int, int] = SMALL) -> Any:
    return pan("table", (2, 0), (600, 60), size, count)


def real(name: str) -> Path:
    path = REAL / name
    if not path.exists():
        pytest.skip("no ../shared/corpus")
    return path


# ---------------------------------------------------------------------------------------------------------------------
# Probing


@pytest.mark.parametrize("name", READABLE)
def test_probe(corpus: Corpus, name: str) -> None:
    truth, info = CASES[name].truth, info_of(corpus[name])
    assert (info.width, info.height) == (truth.width, truth.height)
    assert (info.coded_width, info.coded_height) == truth.encoded
    assert info.rotation == -truth.rotation % 360
    assert info.fps == pytest.approx(truth.fps, rel=2e-3)
    assert info.duration == pytest.approx(truth.duration, abs=1.01 / truth.fps)
    assert info.codec == truth.codec
    assert info.size == corpus[name].stat().st_size
    assert info.has_audio == (name == "film_with_cover")


def test_probing_decodes_nothing_and_decoding_starts_at_the_beginning(corpus: Corpus) -> None:
    with open_video(str(corpus["quicktime"])) as video:
        info = [probe(video) for _ in range(2)]
        assert info[0] == info[1]
        times = [decoded.time for decoded in decode(video, info[0], DecodeCount(), all_frames=True)]
    assert times == pytest.approx([i / 24 for i in range(72)], abs=1e-3)


@pytest.mark.parametrize(
    ("size", "rotation", "aspect", "shown"),
    [
        ((1920, 1080), 0, None, (1920, 1080)),
        ((1920, 1080), 90, Fraction(1), (1080, 1920)),
        ((1920, 1080), 180, Fraction(0), (1920, 1080)),
        ((1440, 1080), 0, Fraction(4, 3), (1920, 1080)),
        ((720, 576), 270, Fraction(64, 45), (576, 1024)),  # The picture is stretched as it lies, then turned.
        ((720, 480), 0, Fraction(8, 9), (640, 480)),
    ],
)
def test_displayed_size(size: tuple[int, int], rotation: int, aspect: Fraction | None, shown: tuple[int, int]) -> None:
    assert displayed_size(*size, rotation, aspect) == shown


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("codec/bbb_0_30_vp8_720p.webm", (1280, 720, 24, 30, "vp8")),
        ("codec/media_av1_5994.mp4", (1920, 1080, 59.94, 1, "av1")),
        ("codec/media_hevc_1080p_10s.mp4", (1920, 1080, 30, 10, "hevc")),
        ("codec/media_mpeg2_ts.ts", (1920, 1080, 24, 2.5, "mpeg2video")),
        ("codec/media_vvc.mp4", (320, 180, 24, 5, "vvc")),
        ("codec/mdn_chroma_theora.ogv", (320, 192, 59.94, 24.44, "theora")),
        ("codec/libopenshot_msmpeg4.avi", (640, 360, 30, 16.53, "msmpeg4v2")),
        ("rot/media_720p_rot270.mp4", (720, 1280, 29.97, 4.97, "h264")),
        ("hdr/media_hlg10.mp4", (1920, 1080, 29.99, 0.3, "hevc")),
        ("vfr/torchcodec_var_fps.mp4", (128, 128, 20.089, 14.97, "h264")),
    ],
)
def test_probe_of_real_files(name: str, expected: tuple[int, int, float, float, str]) -> None:
    """The numbers of the corpus' table, measured by decoding everything."""
    info = info_of(real(name))
    assert (info.width, info.height, info.codec) == (*expected[:2], expected[4])
    assert info.fps == pytest.approx(expected[2], rel=1e-3)
    assert info.duration == pytest.approx(expected[3], abs=0.06)


# ---------------------------------------------------------------------------------------------------------------------
# What cannot be read


@pytest.mark.parametrize("name", KINDS)
def test_bad_files(corpus: Corpus, name: str) -> None:
    assert kind_of(corpus[name]) == KINDS[name]


def test_a_file_that_was_cut_short(corpus: Corpus) -> None:
    for name, cut in {"cut_off": True, "quicktime": False, "vp9": False, "transport_stream": False}.items():
        with open_video(str(corpus[name])) as video:
            assert missing_tail(video) is cut, name


def test_a_stream_without_a_decoder() -> None:
    assert kind_of(real("edge/media_dovi_av1_nodec.mp4")) == "unsupported"


def test_no_file(tmp_path: Path) -> None:
    (tmp_path / "another.mp4").touch()
    assert kind_of(tmp_path / "nothing.mp4") == "missing"
    assert kind_of(f"file://{tmp_path}/nothing.mp4") == "missing"
    assert kind_of(tmp_path / ("long" * 100)) == "not_a_file"
    assert kind_of("nul\0.mp4") == "not_a_file"


def test_no_folder(tmp_path: Path) -> None:
    """As a mount leaves it that is away: nothing in it, or not even itself."""
    assert kind_of(tmp_path / "nothing.mp4") == "away"
    assert kind_of(tmp_path / "mount" / "film.mp4") == "away"
    (tmp_path / "link.mp4").symlink_to(tmp_path / "mount" / "film.mp4")
    assert kind_of(tmp_path / "link.mp4") == "away"


def test_folders_pipes_and_sockets(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.mp4"))
        for name in ("", "pipe.mp4", "socket.mp4"):
            assert kind_of(tmp_path / name) == "not_a_file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path, corpus: Corpus) -> None:
    path = Path(shutil.copy(corpus["quicktime"], tmp_path / "secret.mov"))
    path.chmod(0)
    assert kind_of(path) == "unreadable"


# ---------------------------------------------------------------------------------------------------------------------
# Remote files


@pytest.fixture
def server(corpus: Corpus) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    handler = partial(Quiet, directory=str(corpus["quicktime"].parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_over_http(server: str, corpus: Corpus) -> None:
    pytest.importorskip("aiohttp")
    found = info_of(f"{server}/quicktime.mov")
    assert found.store_tags[0].startswith("Last-Modified: ")
    assert replace(found, store_tags=()) == info_of(corpus["quicktime"])
    assert kind_of(f"{server}/nothing.mov") == "missing"
    assert kind_of(f"{server}/text.mp4") == "not_video"


def test_a_host_that_does_not_answer() -> None:
    pytest.importorskip("aiohttp")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # The port is taken, and no process listens on it.
        assert kind_of(f"http://127.0.0.1:{closed.getsockname()[1]}/film.mp4") == "unreachable"
    assert kind_of("nosuchscheme://bucket/film.mp4") == "unreachable"


def test_from_an_object_store(corpus: Corpus) -> None:
    fsspec.filesystem("memory").pipe("/test-video/film.mov", corpus["quicktime"].read_bytes())
    assert info_of("memory://test-video/film.mov") == info_of(corpus["quicktime"])
    assert kind_of("memory://test-video/other.mov") == "missing"
    assert kind_of("memory://test-away/other.mov") == "away"
    _, remote, _ = read("memory://test-video/film.mov")
    _, local, _ = read(corpus["quicktime"])
    assert [decoded.time for decoded in remote] == [decoded.time for decoded in local]


# ---------------------------------------------------------------------------------------------------------------------
# Names and contents that would open something else

NAMES = [
    "concat:a.mov|b.mov", "http:film.mov", "file:film.mov", "pipe:0", "data:,film.mov", "-i", "frame%03d.mov", "%d.mov",
    "it's \"quoted\".mov", "two\nlines.mov", " blanks .mov", "影片 ünï.mov", "[0].mov", "a#b?c=d&e.mov", "*.mov", "~",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_name(tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    shutil.copy(corpus["quicktime"], tmp_path / name)
    expected = info_of(corpus["quicktime"])
    assert info_of(tmp_path / name) == expected
    monkeypatch.chdir(tmp_path)
    assert info_of(name) == expected
    # The folder must list something: an empty folder would count as a mount that is away.
    (tmp_path / "another.mov").touch()
    (tmp_path / name).unlink()
    assert kind_of(name) == "missing"


@pytest.mark.parametrize("name", ["film.m3u8", "film.mp4", "film.ts"])
def test_a_playlist_opens_nothing(tmp_path: Path, corpus: Corpus, name: str) -> None:
    shutil.copy(corpus["transport_stream"], tmp_path / "part.ts")
    shutil.copy(corpus["quicktime"], tmp_path / "part.mov")
    segment = "#EXTINF:3.0,\npart.ts\n#EXT-X-ENDLIST\n"
    playlist = f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXT-X-MEDIA-SEQUENCE:0\n{segment}"
    script = "ffconcat version 1.0\nfile part.mov\n"
    for text in (playlist, script):
        (tmp_path / name).write_text(text)
        assert kind_of(tmp_path / name) == "not_video"
    # The script is good: it would work without the program's list of containers.
    with av.open(str(tmp_path / name)) as opened:
        assert opened.streams.video[0].width == SMALL[0]


def test_a_pattern_reads_no_other_pictures(tmp_path: Path) -> None:
    grey = {i: cv2.imencode(".jpg", np.full((64, 64 + 16 * i, 3), 50 * i, np.uint8))[1].tobytes() for i in range(3)}
    for i in (1, 2):
        (tmp_path / f"f{i}.jpg").write_bytes(grey[i])
    (tmp_path / "f%d.jpg").write_bytes(grey[0])
    info, frames, _ = read(tmp_path / "f%d.jpg")
    assert info.width == 64
    assert len(frames) <= 1


def test_local_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_path("film.mp4") == tmp_path / "film.mp4"
    assert local_path("concat:film.mp4") == tmp_path / "concat:film.mp4"
    assert local_path(f"file://{tmp_path}/film.mp4") == tmp_path / "film.mp4"
    assert local_path("s3://bucket/film.mp4") is None
    assert local_path("https://host/film.mp4") is None


@settings(deadline=None)
@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"\0\0\0\x18ftypmp42", b"\x1aE\xdf\xa3", b"RIFF....AVI LIST", b"#EXTM3U\n", b"G"]),
)
def test_any_bytes_are_a_video_or_an_error_with_a_kind(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, start: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.mp4"
    path.write_bytes(start + data)
    try:
        _, frames, _ = read(path)
        assert all(a.time < b.time for a, b in itertools.pairwise(frames))
    except VideoError as error:
        assert error.kind in ("empty", "not_video", "no_video", "truncated", "unsupported")  # noqa: PT017


# ---------------------------------------------------------------------------------------------------------------------
# Decoding


def assert_part_of_the_whole(path: Path) -> tuple[int, int]:
    """Times strictly rise, and each frame is, to the pixel, the frame of the whole decode at its time."""
    _, frames, count = read(path)
    whole = whole_decode(path)
    times = np.array([time for time, _ in whole])
    assert all(a.time < b.time for a, b in itertools.pairwise(frames))
    assert frames[0].time == 0
    for decoded in frames:
        at = int(np.argmin(np.abs(times - decoded.time)))
        assert times[at] == pytest.approx(decoded.time, abs=1e-6)
        assert same_picture(decoded.frame, whole[at][1]), decoded.time
    assert count.frames == len(frames)
    assert count.corrupt == 0
    return len(frames), len(whole)


@pytest.mark.parametrize("name", [name for name in LITTLE if name != "interlaced"])  # An interlaced film is made whole.
def test_reference_frames_are_exact(corpus: Corpus, name: str) -> None:
    some, every = assert_part_of_the_whole(corpus[name])
    assert every == round(3 * CASES[name].truth.fps)
    if CASES[name].truth.codec in ("h264", "hevc"):
        assert some <= 0.6 * every  # In these files, every other frame is one that no other refers to.


@pytest.mark.parametrize(
    "name",
    ["rot/media_720p.mp4", "codec/torchcodec_h265_10bit.mp4", "codec/torchcodec_av1_mkv.mkv", "hdr/media_hlg10.mp4"],
)
def test_reference_frames_of_real_files_are_exact(name: str) -> None:
    assert_part_of_the_whole(real(name))


@pytest.mark.parametrize("name", LITTLE)
def test_the_right_stream_with_the_right_pictures(corpus: Corpus, name: str) -> None:
    """Against the pictures that went into the encoder."""
    truth = CASES[name].truth
    board = "table" if name in ("film_with_cover", "two_films") else "street"
    drawn = list(pan(board, (2, 0), (600, 60), truth.encoded, 150 if name == "interlaced" else 72))
    _, frames, _ = read(corpus[name])
    for decoded in frames[::4]:
        at = round(decoded.time * truth.fps)
        at = 2 * at + 1 if name == "interlaced" else at  # The flags of the film say that the lower field came first.
        luma = decoded.frame.reformat(format="yuv420p").to_ndarray()[: truth.encoded[1]].astype(float)
        error = np.mean((luma - planes(drawn[at])[0]) ** 2)
        assert 10 * np.log10(255**2 / error) > 26, decoded.time


def test_further_streams_are_counted(corpus: Corpus) -> None:
    for name, count in (("two_films", 1), ("film_with_cover", 0), ("quicktime", 0)):
        with open_video(str(corpus[name])) as video:
            assert probe(video).streams_left_out == count


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_thumbnail_in_a_stream_of_its_own_is_not_the_film(tmp_path: Path, suffix: str) -> None:
    """It comes first, and is marked as the stream to be shown."""
    path = tmp_path / f"film{suffix}"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("mpeg4", rate=20) for _ in range(2)]
        for stream, side, disposition in zip(streams, (96, 64), (av.stream.Disposition.default, 0), strict=True):
            stream.width = stream.height = side
            stream.disposition = disposition
        for stream, count in zip(streams, (1, 20), strict=True):
            for number in range(count):
                picture = np.full((stream.height, stream.width, 3), 9 * number, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                out.mux(stream.encode(frame.reformat(format="yuv420p")))
            out.mux(stream.encode(None))
    info, frames, _ = read(path)
    assert (info.width, info.streams_left_out, len(frames)) == (64, 0, 20)


def test_all_frames_if_asked(corpus: Corpus) -> None:
    _, frames, count = read(corpus["quicktime"], all_frames=True)
    assert [decoded.time for decoded in frames] == pytest.approx([i / 24 for i in range(72)], abs=1e-3)
    assert (count.packets, count.frames, count.corrupt) == (72, 72, 0)
    assert count.fps == pytest.approx(24)
    assert (count.rate.first, count.rate.last) == pytest.approx((0, 71 / 24))


def test_what_nobody_wants_is_read_and_not_decoded(corpus: Corpus) -> None:
    """Its packets are counted all the same, so that length and rate are those of the whole film."""
    count = DecodeCount()
    with open_video(str(corpus["quicktime"])) as video:
        frames = list(decode(video, probe(video), count, all_frames=True, enough=lambda last: last >= 1))
    assert 0 < len(frames) < 26
    assert frames[-1].time < 1.1
    assert (count.packets, count.frames) == (72, len(frames))
    assert 48 <= count.passed_over <= 52  # Frames are not read in the order in which they are shown.
    assert (count.last, count.fps) == pytest.approx((71 / 24, 24))


def test_what_was_held_back_is_decoded_if_more_comes_than_was_told(corpus: Corpus) -> None:
    count = DecodeCount()
    with open_video(str(corpus["quicktime"])) as video:
        frames = list(decode(video, probe(video), count, all_frames=True, enough=lambda last: 1 <= last < 2))
    assert [decoded.time for decoded in frames] == pytest.approx([i / 24 for i in range(72)], abs=1e-3)
    assert (count.packets, count.frames, count.passed_over, count.corrupt) == (72, 72, 0, 0)


def test_variable_frame_rate(tmp_path: Path) -> None:
    path = tmp_path / "vfr.mp4"
    ticks = (2, 2, 2, 1, 1, 7)
    film(path, small_pan(60), Encoding(size=SMALL, fps=48, ticks=ticks))
    _, frames, count = read(path, all_frames=True)
    shown = list(itertools.accumulate(itertools.islice(itertools.cycle(ticks), 59), initial=0))
    assert [decoded.time for decoded in frames] == pytest.approx([tick / 48 for tick in shown], abs=1e-3)
    assert count.fps == pytest.approx(59 / (shown[-1] / 48), rel=1e-3)
    assert_part_of_the_whole(path)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_raw_stream_has_no_times_and_is_refused(tmp_path: Path, codec: str) -> None:
    """Its packets carry none, and no clip could be cut out of it: that must be said before anything is paid for."""
    path = tmp_path / f"raw.{codec}"
    options = {"h264": Encoding().options, "hevc": (("preset", "ultrafast"), ("x265-params", "log-level=none"))}
    film(
        path,
        small_pan(4),
        Encoding(size=SMALL, fps=24, codec={"h264": "libx264", "hevc": "libx265"}[codec], options=options[codec]),
    )
    with pytest.raises(VideoError, match="no timestamps") as error:
        read(path)
    assert error.value.kind == "unsupported"


@pytest.mark.parametrize(
    ("name", "start"), [("edge/psd_delayed_start.mp4", 1.075), ("codec/media_mpeg2_ts.ts", 1.4417)]
)
def test_times_count_from_the_first_frame(name: str, start: float) -> None:
    path = real(name)
    info, frames, count = read(path)
    assert info.origin == pytest.approx(start, abs=1e-3)
    assert frames[0].time == count.rate.first == 0
    assert_part_of_the_whole(path)


@pytest.mark.parametrize(("name", "count"), [("noninc", 358), ("equal", 239)])
def test_a_clock_that_starts_anew_goes_on_and_is_no_damage(name: str, count: int) -> None:
    """Two recordings in one file, each from 0 on: no frame is lost, and the second follows the first at once."""
    _, frames, met = read(real(f"edge/kvs_{name}_timecode.mkv"), all_frames=True)
    times = np.array([decoded.time for decoded in frames])
    assert len(times) == count
    assert np.diff(times) == pytest.approx(1 / met.fps, abs=2e-3)
    assert (met.corrupt, met.restarts) == (0, 1)


@pytest.mark.parametrize("of_a_moment", [2, 3])
def test_several_pictures_of_one_moment_are_no_damage(tmp_path: Path, of_a_moment: int) -> None:
    """ffmpeg decodes such a film whole, and it was `corrupt`."""
    whole, path = tmp_path / "whole.mkv", tmp_path / "doubled.mkv"
    with av.open(str(whole), "w") as out:
        stream: Any = out.add_stream("mpeg4", rate=24, options={"qscale": "2"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for number in range(60):
            picture = np.full((180, 320, 3), 20 + 3 * number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size:
                packet.pts = packet.dts = number // of_a_moment * 80
                packet.stream = copy
                out.mux(packet)
    _, frames, count = read(path, all_frames=True)
    assert [decoded.time for decoded in frames] == pytest.approx([0.08 * n for n in range(60 // of_a_moment)], abs=1e-3)
    assert (count.packets, count.corrupt) == (60, 0)


def test_damage_is_counted_and_decoding_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    film(path, small_pan(96), Encoding(size=SMALL, gop=12))
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for packet in packets[30:34]:
        assert packet.pos is not None
        data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    _, frames, count = read(path, all_frames=True)
    assert count.packets == 96
    assert count.corrupt >= 1
    assert frames[-1].time == pytest.approx(95 / 24, abs=1e-3)  # The last frame is at its place.
    assert len(frames) >= 80
