"""Recordings that broke off and files that were cut off: what can be read is read, and else the words are right."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from longtake.curation.errors import VideoError
from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.reading.video import probe
from longtake.curation.recipe import Recipe, load_recipe, parse_recipe
from longtake.curation.stages.scan import scan_row
from tests.curation.reading.test_cutting import make, numbers, steady


def recipe(window: float = 2, least: float | None = None) -> Recipe:
    data = load_recipe("embedded").model_dump()
    data["splitting"] |= {"min_seconds": least or window, "window_seconds": window, "detector": "none"}
    data["tiers"] = {"any": {"fps": ">= 0"}}
    data["filters"] = {name: data["filters"][name] for name in ("fps", "duration")}
    return parse_recipe(data, source="a test")


def film(path: Path, frames: int = 50, gop: int = 10, reordered: int = 0, **container_options: str) -> bytes:
    """Film at 20 frames a second; its bytes."""
    codec = "mpeg4" if path.suffix == ".avi" else "libx264"
    how: dict[str, Any] = {
        "codec": codec,
        "rate": 20,
        "gop": gop,
        "base": Fraction(1, 20),
        "options": {"bf": str(reordered)},
    }
    make(path, steady(20, frames), **how, container_options=container_options)
    return path.read_bytes()


def of_file(path: Path) -> str:
    """What the scan knows of the end that a film lacks."""
    with open_video(str(path)) as video:
        return probe(video).cut_off


def without_numbers(data: bytes) -> bytes:
    """An AVI file whose header was never filled in: how many frames there are, and how long its lists."""
    made = bytearray(data)
    made[4:8] = bytes(4)
    for name, back in ((b"avih", 24), (b"strh", 40), (b"movi", -4)):
        at = made.index(name) + back
        made[at : at + 4] = bytes(4)
    return bytes(made)


def into_a_pipe(data: bytes) -> bytes:
    """An AVI file whose header names more frames than any file can have, as ffmpeg writes it into a pipe."""
    at = data.index(b"strh") + 40
    return data[:at] + struct.pack("<I", 1 << 30) + data[at + 4 :]


@pytest.mark.parametrize("header", [bytes, without_numbers, into_a_pipe])
def test_an_avi_without_its_index_is_read(tmp_path: Path, header: Callable[[bytes], bytes]) -> None:
    """The index of an AVI file is written at the end. Without it, such films were told to be a single frame."""
    path = tmp_path / "film.avi"
    data = film(path)
    path.write_bytes(header(data[: data.rindex(b"idx1")]))
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert scan.info.fps == pytest.approx(20)
    assert scan.info.duration == pytest.approx(2.5)
    (clip,) = scan.clips
    assert (clip.span.start, clip.span.end, clip.error) == (0.0, pytest.approx(2.0), None)
    cut_clip(str(path), 1.0, 2.0, tmp_path / "clip.mp4", EncodeSettings(fps=None, frames=None, preset="ultrafast"))
    assert numbers(tmp_path / "clip.mp4") == list(range(20, 40))


def test_an_avi_that_was_cut_off_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    data = film(path, frames=250)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match=r"the frames end at \d\.\d s of 12\.5 s") as caught:
        scan_video(str(path), recipe(), lambda span, sample: None)
    assert caught.value.kind == "truncated"


FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof+skip_trailer"}


@pytest.mark.parametrize(("left", "clips"), [(0.9, 2), (0.02, 1)])
def test_a_fragmented_film_that_was_cut_off_gives_what_it_has(tmp_path: Path, left: float, clips: int) -> None:
    """Of two fragments of 10 s, so much is left of the second one's frames. No header promises them, so the film is read."""
    path = tmp_path / "film.mp4"
    data = film(path, 400, gop=200, **FRAGMENTED)
    assert of_file(path) == ""
    start = data.rindex(b"mdat")
    end = start + round(left * (len(data) - start))
    path.write_bytes(data[:end])
    scan = scan_video(str(path), recipe(window=8), lambda span, sample: None)
    found = [(clip.span.start, clip.span.end, clip.error) for clip in scan.clips]
    assert found == [(0, 8, None), (8, 16, None)][:clips]
    assert 10 < scan.info.duration < 10 + 10 * left + 3
    assert scan.info.cut_off == f"the file ends at byte {end} of {len(data)}"


@pytest.mark.parametrize("share", [0.71, 0.8, 0.93])
@pytest.mark.parametrize(("name", "reordered"), [("film.mp4", 0), ("film.mp4", 3), ("film.ts", 0)])
def test_a_clip_up_to_a_broken_end_is_exported(tmp_path: Path, name: str, reordered: int, share: float) -> None:
    """The frame in which a recording broke off cost the whole clip."""
    path = tmp_path / name
    options = {"movflags": "frag_keyframe+empty_moov"} if path.suffix == ".mp4" else {}
    data = film(path, 200, 40, reordered, **options)
    path.write_bytes(data[: int(share * len(data))])
    (clip,) = scan_video(str(path), recipe(30, 2), lambda span, sample: None).clips
    assert (clip.span.start, clip.error) == (0.0, None)
    cut_clip(
        str(path),
        clip.span.start,
        clip.span.end,
        tmp_path / "clip.mp4",
        EncodeSettings(fps=None, frames=None, preset="ultrafast"),
    )
    found = numbers(tmp_path / "clip.mp4")
    assert found == list(range(len(found)))
    assert len(found) > 200 * share - 50


def test_what_does_not_decode_near_the_end_costs_only_the_end(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    data = bytearray(film(path, 200, 250))
    with open_video(str(path)) as video:
        entry = video.stream.index_entries[190]
        data[entry.pos : entry.pos + 4] = b"\x7f\xff\xff\xff"  # A length far beyond the end of the packet.
    path.write_bytes(data)
    scan = scan_video(str(path), recipe(30, 2), lambda span, sample: None)
    assert scan.info.duration == pytest.approx(10)
    (clip,) = scan.clips
    assert (clip.error, clip.span.end) == (None, pytest.approx(9.45))
    cut_clip(
        str(path), 0, clip.span.end, tmp_path / "clip.mp4", EncodeSettings(fps=None, frames=None, preset="ultrafast")
    )
    assert numbers(tmp_path / "clip.mp4") == list(range(round(20 * clip.span.end)))


def test_a_fragment_without_its_frames(tmp_path: Path) -> None:
    """The file ends within the box that tells of them, which ffmpeg passes over in silence."""
    path = tmp_path / "film.mp4"
    data = film(path, **FRAGMENTED)
    start = data.rindex(b"moof") - 4
    path.write_bytes(data[: start + 30])
    stop = start + int.from_bytes(data[start : start + 4], "big")
    assert of_file(path) == f"the file ends at byte {start + 30} of {stop}"
    assert [clip.error for clip in scan_video(str(path), recipe(), lambda span, sample: None).clips] == [None]


@pytest.mark.parametrize("name", ["film.mkv", "film.avi", "front.mp4"])
def test_a_film_without_its_last_byte(tmp_path: Path, name: str) -> None:
    """It is known. Only the film whose index stands in front is an error for so little."""
    path = tmp_path / name
    data = film(path, **({"movflags": "faststart"} if name == "front.mp4" else {}))
    assert of_file(path) == ""
    path.write_bytes(data[:-1])
    assert of_file(path) == f"the file ends at byte {len(data) - 1} of {len(data)}"


def test_the_row_of_a_film_that_was_cut_off(tmp_path: Path) -> None:
    path, by = tmp_path / "film.avi", recipe().model_dump(mode="json")
    data = film(path)
    given = {"video_id": "a", "uri": str(path), "licence": None, "spans": []}
    assert scan_row(given, str(tmp_path / "ws"), by, all_scores=True)["cut_off"] is None
    path.write_bytes(data[:-100])
    row = scan_row(given, str(tmp_path / "ws"), by, all_scores=True)
    assert (row["status"], row["cut_off"]) == ("ok", f"the file ends at byte {len(data) - 100} of {len(data)}")


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("share", [0.1, 0.9, 1.0, 1.5])
def test_a_film_whose_index_is_lost_was_cut_off(tmp_path: Path, suffix: str, share: float) -> None:
    """share: what is left of all that comes before the index, and in the last case a part of the index."""
    path = tmp_path / f"film{suffix}"
    data = film(path)
    index = data.rindex(b"moov") - 4
    end = index + 100 if share > 1 else round(share * index)
    path.write_bytes(data[:end])
    words = f"ends at byte {end} of {len(data)}$" if share > 1 else rf"ends at byte {end}.*its index \(moov\)"
    with pytest.raises(VideoError, match=words) as caught, open_video(str(path)):
        pass
    assert caught.value.kind == "truncated"


def test_an_avi_that_was_written_into_a_pipe_is_whole(tmp_path: Path) -> None:
    """Its header was said to name four gigabytes."""
    path = tmp_path / "film.avi"

    class Pipe:
        def write(self, data: bytes) -> int:
            return file.write(data)

    with open(path, "wb") as file, av.open(Pipe(), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(50):
            grey = np.full((96, 160, 3), 5 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    assert path.read_bytes().startswith(b"RIFF\xff\xff\xff\xffAVI ")
    assert of_file(path) == ""


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_a_film_of_which_only_a_part_of_the_header_is_left(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film{suffix}"
    data = film(path)
    path.write_bytes(data[:100])
    with pytest.raises(VideoError, match=f"the file ends at byte 100 of {len(data)}") as caught, open_video(str(path)):
        pass
    assert caught.value.kind == "truncated"


@pytest.mark.parametrize(
    "data",
    [
        b"no film at all",
        b"RIFF\0\0\0\1WEBP" + bytes(90),
        b"\x1a\x45\xdf\xa3",
        struct.pack(">I4s", 1000, b"text") + bytes(90),
    ],
)
def test_what_is_no_film_was_not_cut_off(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "film").write_bytes(data)
    with pytest.raises(VideoError) as caught, open_video(str(tmp_path / "film")):
        pass
    assert caught.value.kind == "not_video"
