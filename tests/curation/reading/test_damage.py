"""Film in whose middle something does not decode: the takes before and after are clips, and none of them shows what is spoilt."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from longtake.curation.reading.cutting import cut_clip
from longtake.curation.reading.encoding import EncodeSettings
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.recipe import Recipe, load_recipe, parse_recipe
from tests.curation.reading.test_cutting import make, numbers, steady

RATE, FRAMES, GOP = 20, 240, 40
TRIM = 3  # Frames. So many are left out on each side of a cut.
HIT = 130  # A frame between the keyframes 120 and 160.
SETTINGS = EncodeSettings(fps=None, frames=None, preset="ultrafast")


def recipe(detector: str) -> Recipe:
    data = load_recipe("embedded").model_dump()
    data["splitting"] |= {"min_seconds": 1, "window_seconds": 30, "detector": detector}
    data["scan"] |= {"max_corrupt": 0.1}
    data["tiers"] = {"any": {"fps": ">= 0"}}
    data["filters"] = {name: data["filters"][name] for name in ("fps", "duration")}
    return parse_recipe(data, source="a test")


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
        del data[start : start + 188 if end - start <= 188 else end - 188]  # The packets of a broadcast that were not received.
    else:
        start = data.index(bytes(packet), start)
        data[start : start + packet.size] = b"\x7f" * packet.size
    path.write_bytes(data)
    return next(number for number in keys if number > hit)


@pytest.mark.parametrize("detector", ["none"])
@pytest.mark.parametrize("hit", [HIT, HIT + 1, HIT + 2])
@pytest.mark.parametrize(("name", "reordered"), [("f.mp4", 0), ("f.mp4", 3), ("f.mkv", 3), ("f.ts", 0), ("f.avi", 0), ("f.avi", 2)])
def test_damage_in_the_middle_costs_no_take_beside_it(
    tmp_path: Path, name: str, reordered: int, hit: int, detector: str
) -> None:
    path = tmp_path / name
    key = film(path, reordered, hit)
    scan = scan_video(str(path), recipe(detector), lambda span, sample: None)
    for clip in scan.clips:
        print(clip.span, clip.error)
    print(scan.cuts, scan.count.damages, scan.count.fault, scan.count.damaged)
    assert [clip.error for clip in scan.clips] == [None, None]
    shown = []
    for clip in scan.clips:
        cut_clip(str(path), clip.span.start, clip.span.end, tmp_path / "clip.mp4", SETTINGS)
        shown.append(numbers(tmp_path / "clip.mp4"))
    before, after = shown
    assert before == list(range(len(before)))
    assert hit - 15 < len(before) <= hit
    assert after == list(range(key + TRIM, FRAMES))
