"""Film in whose middle something does not decode: the takes before and after are clips, and none of them shows what is spoilt."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
from av.video.frame import PictureType

from longtake.curation.errors import VideoError
from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.damage import Damage, Damages, is_overwritten
from longtake.curation.reading.decoding import DecodeCount
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.judge import VideoScan
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.recipe import Recipe, load_recipe, parse_recipe
from tests.curation.reading.test_cutting import make, numbers, steady

RATE, FRAMES, GOP = 20, 240, 40
TRIM = 3  # Frames. So many are left out on each side of a cut.
HIT = 130  # A frame between the keyframes 120 and 160.
SETTINGS = EncodeSettings(fps=None, frames=None, preset="ultrafast")


def recipe() -> Recipe:
    data = load_recipe("embedded").model_dump()
    data["splitting"] |= {"min_seconds": 1, "window_seconds": 30, "detector": "none"}
    data["scan"] |= {"max_corrupt": 0.1}
    data["tiers"] = {"any": {"fps": ">= 0"}}
    data["filters"] = {name: data["filters"][name] for name in ("fps", "duration")}
    return parse_recipe(data, source="a test")


def exported(scan: VideoScan, path: Path, numbers: Callable[[Path], list[int]]) -> list[list[int]]:
    """What the pictures of each clip of a film show once it is exported; no clip is an error."""
    assert {clip.error for clip in scan.clips} == {None}
    found, clip_path = [], path.with_name("clip.mp4")
    for clip in scan.clips:
        cut_clip(str(path), clip.span.start, clip.span.end, clip_path, SETTINGS)
        found.append(numbers(clip_path))
    return found


def film(path: Path, reordered: int, hit: int) -> int:
    """Film whose packet number `hit`, in the order of the file, is overwritten. The number of the next keyframe."""
    codec = "mpeg4" if path.suffix == ".avi" else "libx264"
    options = {"bf": str(reordered)} | ({} if path.suffix == ".avi" else {"open-gop": "0"})
    make(path, steady(RATE, FRAMES), codec=codec, rate=RATE, gop=GOP, base=Fraction(1, RATE), options=options)
    data = bytearray(path.read_bytes())
    with open_video(str(path)) as video:
        packets = [packet for packet in video.container.demux(video.stream) if packet.size]
    with av.open(str(path)) as container:
        keys = [number for number, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    packet = packets[hit]
    start = packet.pos
    assert start is not None
    if path.suffix == ".ts":
        end = packets[hit + 1].pos
        assert end is not None
        del data[
            start : start + 188 if end - start <= 188 else end - 188
        ]  # The packets of a broadcast that were not received.
    else:
        start = data.index(bytes(packet), start)
        data[start : start + packet.size] = b"\x7f" * packet.size
    path.write_bytes(data)
    return next(number for number in keys if number > hit)


@pytest.mark.parametrize("hit", [HIT, HIT + 1, HIT + 2])
@pytest.mark.parametrize(
    ("name", "reordered"), [("f.mp4", 0), ("f.mp4", 3), ("f.mkv", 3), ("f.ts", 0), ("f.avi", 0), ("f.avi", 2)]
)
def test_damage_in_the_middle_costs_no_take_beside_it(tmp_path: Path, name: str, reordered: int, hit: int) -> None:
    path = tmp_path / name
    key = film(path, reordered, hit)
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    before, after = exported(scan, path, numbers)
    assert before == list(range(len(before)))
    assert hit - 15 < len(before) <= hit
    assert after == list(range(key + TRIM, FRAMES))


def test_a_clip_of_a_list_behind_damage_is_corrupt_up_to_the_next_keyframe(tmp_path: Path) -> None:
    """No packet of it is damaged, but its pictures are spoilt."""
    path = tmp_path / "film.mp4"
    key = film(path, 0, HIT) / RATE
    spans = [Span(4.0, 6.0), Span(HIT / RATE + 0.2, key - 0.2), Span(key, key + 2)]
    for asked in (spans, spans[1:2]):
        scan = scan_video(str(path), recipe(), lambda span, sample: None, spans=asked)
        kinds = {clip.span: clip.error.kind if clip.error else None for clip in scan.clips}
        assert kinds == {span: "corrupt" if span == spans[1] else None for span in asked}
    cut_clip(str(path), spans[2].start, spans[2].end, tmp_path / "clip.mp4", SETTINGS)
    assert numbers(tmp_path / "clip.mp4") == list(range(round(key * RATE), round(key * RATE) + 40))
    with pytest.raises(VideoError, match="does not decode") as caught:
        cut_clip(str(path), spans[1].start, spans[1].end, tmp_path / "none.mp4", SETTINGS)
    assert caught.value.kind == "corrupt"


@pytest.mark.parametrize("place", ["middle", "end"])
def test_zeros_in_a_stream_do_not_end_it(tmp_path: Path, place: str) -> None:
    """As on a disk with a fault, and where a recorder had taken more room than it needed. The demuxer gives up after 64 kB, so
    that all that came behind was left out, and the film was `truncated`."""
    path = tmp_path / "film.ts"
    # ffmpeg does not look at all of such a film before the first packet is read.
    options = {"preset": "ultrafast", "qp": "0", "bf": "0"}
    make(path, steady(RATE, FRAMES), rate=RATE, gop=GOP, base=Fraction(1, RATE), options=options)
    data = path.read_bytes()
    with open_video(str(path)) as video:
        packets = [packet.pos or 0 for packet in video.container.demux(video.stream) if packet.size]
    hole = packets[HIT] if place == "middle" else len(data)
    path.write_bytes(data[:hole] + bytes(200_000) + data[hole + 2 * 188 :])
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert [clip.error for clip in scan.clips] == [None] * (2 if place == "middle" else 1)
    assert scan.info.duration == pytest.approx(FRAMES / RATE)
    shown = []
    for clip in scan.clips:
        cut_clip(str(path), clip.span.start, clip.span.end, tmp_path / "clip.mp4", SETTINGS)
        shown.append(numbers(tmp_path / "clip.mp4"))
    if place == "end":
        assert shown == [list(range(FRAMES))]
    else:
        before, after = shown
        assert before == list(range(len(before)))
        assert HIT - 10 < len(before) <= HIT
        assert after == list(range(160 + TRIM, FRAMES))


def segment(path: Path, first: int) -> bytes:
    """Two seconds of a film, as a stream is sent: counters begin anew with each segment, times do not."""
    make(
        path,
        steady(RATE, 2 * RATE, 1 + first / RATE),
        codec="libx264",
        rate=RATE,
        gop=GOP,
        base=Fraction(1, RATE),
        options={"bf": "2"},
    )
    return path.read_bytes()


def test_segments_of_a_stream_put_one_behind_another_are_one_take(tmp_path: Path) -> None:
    path = tmp_path / "film.ts"
    path.write_bytes(b"".join(segment(tmp_path / f"{k}.ts", 2 * RATE * k) for k in range(4)))
    with av.open(str(path)) as container:
        assert any(packet.is_corrupt for packet in container.demux(video=0)), "the counters leap"
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert [(clip.span.start, clip.error) for clip in scan.clips] == [(0.0, None)]
    assert scan.clips[0].span.end == pytest.approx(8.0, abs=0.01)


@pytest.mark.parametrize("other", ["mpeg2video", "libx265"])
def test_a_stream_that_goes_on_in_another_codec_is_damaged_from_there(tmp_path: Path, other: str) -> None:
    """The decoder shows nothing of it, and finds next to no errors in it: half of the film was left out in silence."""
    parts = []
    for codec in ("libx264", other):
        part = tmp_path / f"{codec}.ts"
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {"bf": "2"}
        make(part, steady(RATE, FRAMES // 2), codec=codec, rate=25, gop=GOP, base=Fraction(1, RATE), options=options)
        parts.append(part.read_bytes())
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(parts))
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert [clip.error for clip in scan.clips] == [None]
    half = FRAMES / 2 / RATE
    assert scan.clips[0].span.end == pytest.approx(half, abs=(TRIM + 4) / RATE)
    assert scan.count.damaged_seconds(scan.info.duration) == pytest.approx(half, abs=6 / RATE)
    path.write_bytes(parts[0] * 2)
    assert not scan_video(str(path), recipe(), lambda span, sample: None).count.damages


@pytest.mark.parametrize("share", [0.52, 0.63, 0.77, 0.86, 0.95])
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_stream_that_breaks_off_in_a_picture_to_which_no_other_refers(
    tmp_path: Path, codec: str, share: float
) -> None:
    """The scan passes over such pictures, but for the last one, since a transport stream does not tell how long it is."""
    path = tmp_path / "film.ts"
    options = {"bf": "2", "b_strategy": "0"}
    make(path, steady(RATE, FRAMES), codec=codec, rate=25, gop=GOP, base=Fraction(1, RATE), options=options)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    (clip,) = scan_video(str(path), recipe(), lambda span, sample: None).clips
    assert clip.error is None
    cut_clip(str(path), clip.span.start, clip.span.end, tmp_path / "clip.mp4", SETTINGS)


def shown(number: int, kind: PictureType) -> tuple[float, av.VideoFrame]:
    frame = av.VideoFrame(16, 16, "yuv420p")
    frame.pict_type = kind
    return float(number), frame


@pytest.mark.parametrize(("key", "spoilt"), [(True, True), (False, False)])
def test_a_film_begins_with_damage(key: bool, spoilt: bool) -> None:
    """A recording may begin where no keyframe is, and is shown from where it can be. Not so if there is one that is damaged."""
    damages = Damages()
    damages.coming(0, key=key)
    damages.met(0)
    damages.coming(1, key=False)
    damages.shown(*shown(1, PictureType.P))
    assert damages.spoils(1) == spoilt


def test_what_a_damaged_frame_spoils() -> None:
    """In the order of the file: 0 I, 4 P, 2 B, 1 B, 3 B, 8 I."""
    damages = Damages()
    for time in (0, 4, 2, 1, 3):
        damages.coming(time, key=time == 0)
    damages.shown(*shown(0, PictureType.I))
    damage = damages.met(4)
    assert damage.start == 1, "what is decoded after it may refer to it, though it is shown before"
    damages.shown(*shown(4, PictureType.P))
    assert damage.end == math.inf
    damages.coming(8, key=True)
    damages.shown(*shown(8, PictureType.P))
    assert damages.open, "a P frame leans on others, whatever it is called"


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("hit", [HIT, HIT + 1, HIT + 2])
def test_blocks_that_a_download_lacks_are_seen(tmp_path: Path, codec: str, hit: int) -> None:
    """The decoder shows the rest of the picture grey, and says nothing; of a picture that a scan passes over it knows nothing."""
    path = tmp_path / "film.mp4"
    make(path, steady(RATE, FRAMES), codec=codec, rate=RATE, gop=GOP, base=Fraction(1, RATE), options={"bf": "2"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][hit]
    assert packet.pos is not None
    data[packet.pos + packet.size - 12 : packet.pos + packet.size - 4] = bytes(8)
    path.write_bytes(data)
    scan = scan_video(str(path), recipe(), lambda span, sample: None)
    assert scan.count.damaged >= 1
    assert [clip.error for clip in scan.clips] == [None, None]
    before, after = (clip.span for clip in scan.clips)
    assert hit - 15 < before.end * RATE <= hit < after.start * RATE
    for span in before, after:
        cut_clip(str(path), span.start, span.end, tmp_path / "clip.mp4", SETTINGS)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\x41ab\0\0\0cd", True),
        (b"\x41ab\0\0\0\0\0\0cd", True),
        (b"\x41ab\0\0\3cd", False),
        (b"\x41abcd\0\0\0\0", False),  # Padding.
        (b"\x41abcd" + bytes(100), True),
        (b"\x41ab\0\0\0\1\x0a", False),  # The end of a stream, as ffmpeg puts it into MP4.
        (b"\x06ab\0\0\0cd", False),  # Messages, which some cameras do not escape.
    ],
)
def test_zeros_where_none_can_be(content: bytes, found: bool) -> None:
    packet = b"\0\0\0\2\x09\xf0" + len(content).to_bytes(4, "big") + content
    assert is_overwritten(memoryview(packet), "h264", 4) == found
    assert not is_overwritten(memoryview(packet), "h264", 0)
    assert not is_overwritten(memoryview(packet), "vp9", 0)


def test_more_zeros_than_an_arithmetic_coder_writes() -> None:
    assert is_overwritten(memoryview(b"ab" + bytes(500) + b"c"), "vp9", 0)
    assert is_overwritten(memoryview(b"ab" + bytes(500)), "vp8", 0)
    assert not is_overwritten(memoryview(b"ab" + bytes(100) + b"c"), "vp9", 0)
    block = b"\x95\x07\x11" + bytes(77)
    assert not is_overwritten(memoryview(block * 1800), "dvvideo", 0)
    assert is_overwritten(memoryview(block * 900 + bytes(400) + block * 895), "dvvideo", 0)
    assert not is_overwritten(memoryview(b"ab" + bytes(500) + b"c"), "mjpeg", 0)


@pytest.mark.parametrize(("limit", "clips"), [(0.01, 1), (0.0, 0)])
def test_the_end_of_a_short_recording_that_broke_off_does_not_condemn_it(
    tmp_path: Path, limit: float, clips: int
) -> None:
    path = tmp_path / "film.mp4"
    how = {"movflags": "frag_keyframe+empty_moov"}
    make(path, steady(RATE, 60), rate=RATE, gop=15, base=Fraction(1, RATE), container_options=how, options={"bf": "0"})
    path.write_bytes(path.read_bytes()[: int(0.9 * path.stat().st_size)])
    data = recipe().model_dump()
    data["scan"] |= {"max_corrupt": limit}
    strict = parse_recipe(data, source="a test")
    if not clips:
        with pytest.raises(VideoError, match=r"1 of .* packets are damaged") as caught:
            scan_video(str(path), strict, lambda span, sample: None)
        assert caught.value.kind == "corrupt"
        return
    (clip,) = scan_video(str(path), strict, lambda span, sample: None).clips
    assert clip.error is None
    assert clip.span.end > 2


def test_a_film_without_further_keyframes_is_whole_once_it_is_refreshed(tmp_path: Path) -> None:
    """Streams of calls and games refresh the picture in stripes. The first point that is called a keyframe only begins that."""
    path = tmp_path / "film.mp4"
    refreshed = {"x264-params": "intra-refresh=1", "bf": "0"}
    make(path, steady(RATE, FRAMES), codec="libx264", rate=RATE, gop=GOP, base=Fraction(1, RATE), options=refreshed)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    with av.open(str(path)) as container:
        assert sum(frame.key_frame for frame in container.decode(video=0)) == 1
    hit = next(packet for packet in packets[50:] if not packet.is_keyframe)
    data = bytearray(path.read_bytes())
    assert hit.pos is not None
    data[hit.pos : hit.pos + hit.size] = b"\x7f" * hit.size
    path.write_bytes(data)
    points = [number for number, packet in enumerate(packets) if packet.is_keyframe and number > 50]
    before, after = scan_video(str(path), recipe(), lambda span, sample: None).clips
    assert (before.error, after.error) == (None, None)
    assert after.span.start == pytest.approx((points[1] + TRIM) / RATE)
    cut_clip(str(path), after.span.start, after.span.end, tmp_path / "clip.mp4", SETTINGS)
    assert numbers(tmp_path / "clip.mp4") == list(range(points[1] + TRIM, FRAMES))


@pytest.mark.parametrize("name", ["film.avi", "film.mp4"])
def test_a_film_whose_first_keyframe_is_damaged_begins_with_the_second(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    codec = "mpeg4" if path.suffix == ".avi" else "libx264"
    make(path, steady(RATE, FRAMES), codec=codec, rate=RATE, gop=GOP, base=Fraction(1, RATE), options={"bf": "0"})
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data, start = bytearray(path.read_bytes()), packets[0].pos
    assert start is not None
    at = data.index(bytes(packets[0]), start)
    data[at : at + packets[0].size] = b"\x7f" * packets[0].size
    path.write_bytes(data)
    patient = recipe().model_copy(update={"scan": recipe().scan.model_copy(update={"max_corrupt": 0.3})})
    (clip,) = scan_video(str(path), patient, lambda span, sample: None).clips
    second = next(number for number, packet in enumerate(packets) if number and packet.is_keyframe)
    assert clip.error is None
    assert second <= clip.span.start * RATE + 1e-6 <= second + TRIM + 1e-6
    cut_clip(str(path), clip.span.start, clip.span.end, tmp_path / "clip.mp4", SETTINGS)
    found = numbers(tmp_path / "clip.mp4")
    assert found == list(range(found[0], FRAMES))


def test_damage_before_a_seek_is_none_behind_it(tmp_path: Path) -> None:
    """A list is read in places: the keyframe that ends the damage lies between two of them, and is never read."""
    path = tmp_path / "film.mp4"
    make(path, steady(RATE, 800), rate=RATE, gop=100, base=Fraction(1, RATE), options={"bf": "0", "sc_threshold": "0"})
    with av.open(str(path)) as container:
        hit = [packet for packet in container.demux(video=0) if packet.size][HIT]
    data = bytearray(path.read_bytes())
    assert hit.pos is not None
    data[hit.pos : hit.pos + hit.size] = b"\x7f" * hit.size
    path.write_bytes(data)
    spans = [Span(5.1, 6.1), Span(6.2, 7.2), Span(30.0, 32.0)]
    clips = scan_video(str(path), recipe(), lambda span, sample: None, spans=spans).clips
    assert [clip.error.kind if clip.error else None for clip in clips] == [None, "corrupt", None]


def test_seconds_that_were_read_twice_are_damaged_once() -> None:
    count = DecodeCount()
    # A packet without a time may come before all others.
    for damage in (
        Damage(-math.inf, 0.0),
        Damage(2.0, 5.0),
        Damage(9.0),
        Damage(2.0, 4.0),
        Damage(4.5, 6.0),
        Damage(7.0, 7.0),
    ):
        count.spoil(damage)
    assert count.damaged_seconds(10.0) == pytest.approx(4.0 + 1.0)
