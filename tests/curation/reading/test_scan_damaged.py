"""Scans of files that are damaged, hostile or no video: each ends as an error of a known kind, in the sandbox with a limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import av
import pytest

from longtake.curation.errors import RowError, VideoError
from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.judge import VideoScan
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.sandbox import Limits, Sandbox
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.recipe import load_recipe, parse_recipe
from tests.corpus import CASES, SMALL, Corpus, Encoding, film, pan

REAL = Path(__file__).parents[4] / "shared" / "corpus" / "videos"
KINDS = {  # Kinds of error of the corpus' files that are no video.
    "empty": "empty",
    "garbage": "not_video",
    "text": "not_video",
    "no_index": "truncated",
    "cut_off": "truncated",
    "one_frame": "too_short",
    "enormous": "too_large",
    "impossible_size": "unsupported",
    "sound_only": "no_video",
    "sound_with_cover": "no_video",
}


def scan_in_child(path: str) -> tuple[VideoScan, int]:
    """All scores of one file; runs in the sandbox."""
    kept: list[Span] = []
    scan = scan_video(path, load_recipe("embedded"), lambda span, sample: kept.append(span), all_scores=True)
    return scan, len(kept)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    box = Sandbox()
    yield box
    box.close()


def outcome(sandbox: Sandbox, path: Path, seconds: float = 120) -> str | VideoScan:
    try:
        scan, _ = sandbox.run(scan_in_child, (str(path),), Limits(seconds, 3072))
    except RowError as error:
        assert str(error)  # noqa: PT017
        return error.kind
    assert isinstance(scan, VideoScan)
    return scan


@pytest.mark.parametrize("name", KINDS)
def test_broken_files_end_as_an_error(sandbox: Sandbox, corpus: Corpus, name: str) -> None:
    assert outcome(sandbox, corpus[name]) == KINDS[name]


def test_every_broken_case_is_looked_at() -> None:
    assert set(KINDS) == {name for name, case in CASES.items() if case.truth.error}


def test_a_bomb_ends_at_the_memory_limit(sandbox: Sandbox, corpus: Corpus) -> None:
    """Merely opening it takes 768 MB."""
    with pytest.raises(VideoError) as caught:
        sandbox.run(scan_in_child, (str(corpus["enormous"]),), Limits(120, 400))
    assert caught.value.kind in ("memory", "too_large")  # Either limit may be seen first.
    assert isinstance(outcome(sandbox, corpus["quicktime"]), VideoScan)


REAL_KINDS = {
    "edge/dj_audio_only_mp4.mp4": {"no_video"},
    "edge/hls_encrypted_ts.ts": {"not_video"},
    "edge/media_dovi_av1_nodec.mp4": {"unsupported"},
    "edge/media_ts_0x0.ts": {"unsupported", "no_video"},
    "derived/bitflip400_sam2_cups.mp4": {"corrupt"},
    "derived/garbage64k.mp4": {"not_video"},
    "derived/kvs_c.h265": {"unsupported"},
    "derived/kvs_java.h264": {"unsupported", "corrupt", "not_video"},
    "derived/trunc60_bbb_vp8.webm": {"truncated"},
    "derived/trunc60_sam2_dog.mp4": {"truncated"},
    "derived/zero_bytes.mp4": {"empty"},
}


@pytest.mark.parametrize("name", REAL_KINDS)
def test_real_files_that_are_damaged(sandbox: Sandbox, name: str) -> None:
    if not (REAL / name).exists():
        pytest.skip("no ../shared/corpus")
    assert outcome(sandbox, REAL / name) in REAL_KINDS[name]


def test_a_decode_bomb_ends_at_the_time_limit(sandbox: Sandbox) -> None:
    """1 MB, and six minutes of 4K in AV1."""
    path = REAL / "edge" / "media_long_4k_av1.mp4"
    if not path.exists():
        pytest.skip("no ../shared/corpus")
    assert outcome(sandbox, path, seconds=3) == "timeout"


READ = {  # Width, height, seconds, packets.
    "edge/decord_corrupted.mp4": (1280, 720, 5.0, 50),  # It is damaged from 2.8 s on.
    "derived/trunc60_mpeg2.ts": (1920, 1080, 1.46, 35),  # A stream that broke off holds what came before.
    "edge/decord_rot0.mov": (568, 320, 0.1, 3),
    "edge/decord_rot90.mov": (320, 568, 0.1, 3),
    "edge/decord_rot180.mov": (568, 320, 0.1, 3),
    "edge/psd_delayed_start.mp4": (480, 320, 0.96, 24),
    "edge/vide_ogv_partial.ogv": (320, 240, 10, 249),
    "edge/vide_ogv_sendpacket.ogv": (800, 450, 10, 238),
    "edge/kvs_equal_timecode.mkv": (1280, 674, 9.96, 239),  # Two recordings are joined, and each starts its clock anew.
    "edge/kvs_noninc_timecode.mkv": (960, 720, 11.95, 358),
}


@pytest.mark.parametrize("name", READ)
def test_real_files_that_only_look_bad(sandbox: Sandbox, name: str) -> None:
    if not (REAL / name).exists():
        pytest.skip("no ../shared/corpus")
    scan = outcome(sandbox, REAL / name)
    assert isinstance(scan, VideoScan)
    width, height, seconds, packets = READ[name]
    assert (scan.info.width, scan.info.height) == (width, height)
    assert scan.info.duration == pytest.approx(seconds, abs=0.1)
    assert scan.count.packets == packets
    assert len(scan.clips) >= 1
    assert all(0 <= clip.span.start < clip.span.end <= seconds + 0.1 for clip in scan.clips)


def test_a_stream_of_one_picture_is_no_clip(sandbox: Sandbox) -> None:
    path = REAL / "edge" / "media_ts_no_frames.ts"
    if not path.exists():
        pytest.skip("no ../shared/corpus")
    scan = outcome(sandbox, path)
    if isinstance(scan, VideoScan):
        assert scan.count.frames <= 1
        assert all(clip.error for clip in scan.clips)
    else:
        assert scan in ("corrupt", "too_short", "truncated")


@pytest.mark.parametrize("listed", [False, True])
def test_where_something_does_not_decode_no_clip_is(tmp_path: Path, listed: bool) -> None:
    """A clip of a list is an error of its own there, so that nothing more is paid for it; the film's other clips go on."""
    path = tmp_path / "damaged.mp4"
    film(path, pan("table", (2, 0), (100, 60), SMALL, 96), Encoding(size=SMALL, gop=12))
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for packet in packets[32:35]:  # From 1.33 s to the keyframe at 1.5 s.
        assert packet.pos is not None
        data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    how = parse_recipe(
        {
            "name": "damaged",
            "splitting": {"detector": "none", "min_seconds": 1, "window_seconds": 1},
            "scan": {"max_corrupt": 0.1},
            "filters": {"width": {}},
            "tiers": {"all": {"width": ">= 1"}},
        },
        source="test",
    )
    spans = [Span(float(k), float(k + 1)) for k in range(4)] if listed else []
    clips = scan_video(str(path), how, lambda span, sample: None, spans=spans).clips
    if listed:
        assert [clip.error.kind if clip.error else None for clip in clips] == [None, "corrupt", None, None]
        assert [clip.has_frames for clip in clips] == [True, False, True, True]
    else:
        assert [(clip.span.start, clip.span.end, clip.error) for clip in clips] == [
            (0.0, 1.0, None),
            (1.625, 2.625, None),
            (2.625, 3.625, None),
        ]
    settings = EncodeSettings(fps=None, frames=None, preset="ultrafast")
    for clip in clips:
        with pytest.raises(VideoError) if clip.error else nullcontext() as caught:
            cut_clip(str(path), clip.span.start, clip.span.end, tmp_path / "clip.mp4", settings)
        assert caught is None or caught.value.kind == "corrupt"


@pytest.mark.parametrize("listed", [False, True])
def test_a_recording_that_begins_within_a_group_of_pictures(tmp_path: Path, listed: bool) -> None:
    """Its first packets do not decode: clips begin where it can be shown, so that an export finds all of them."""
    whole, path = tmp_path / "whole.ts", tmp_path / "film.ts"
    film(whole, pan("table", (2, 0), (100, 60), SMALL, 96), Encoding(size=SMALL, gop=24))
    with av.open(str(whole)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    position = packets[12].pos
    assert position is not None
    path.write_bytes(whole.read_bytes()[position // 188 * 188 :])
    asked = {"name": "x", "splitting": {"detector": "none", "min_seconds": 1, "window_seconds": 1}}
    how = parse_recipe(asked | {"filters": {"width": {}}, "tiers": {"all": {"width": ">= 1"}}}, source="test")
    spans = [Span(0.0, 1.0), Span(1.0, 2.0)] if listed else []
    clips = scan_video(str(path), how, lambda span, sample: None, spans=spans).clips
    if listed:
        assert [clip.error.kind if clip.error else None for clip in clips] == ["missing", None]
    else:
        assert [clip.error for clip in clips] == [None] * len(clips)
        assert clips[0].span.start > 0.3
    for clip in clips:
        if clip.error is None:
            settings = EncodeSettings(fps=30, frames=None, preset="ultrafast")
            cut_clip(str(path), clip.span.start, clip.span.end, tmp_path / "clip.mp4", settings)
