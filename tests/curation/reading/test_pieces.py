"""A long film that is read in pieces: the same clips, samples and counts as in one go, wherever its seams fall."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longtake.curation import ahead
from longtake.curation.ahead import ReadAhead
from longtake.curation.reading import seams as module
from longtake.curation.reading.judge import Judge, VideoScan
from longtake.curation.reading.opening import open_video
from longtake.curation.reading.pieces import scan_piece, scan_whole
from longtake.curation.reading.samples import store_sample
from longtake.curation.reading.sampling import Span
from longtake.curation.reading.scan_video import scan_video
from longtake.curation.reading.seams import Piece, PieceScan, SeamError, find_seams, join, take_seconds
from longtake.curation.reading.video import probe
from longtake.curation.recipe import Recipe, load_recipe, parse_recipe
from longtake.manifests.frames import StoredFrames
from tests.corpus import Encoding, film, pan
from tests.curation.reading.test_sizes import sized
from tests.curation.test_ahead import Requests, small_buffer

SIZE, FPS = (160, 96), 20
WINDOW = 1.25
BOARDS = ("table", "street", "wide")
Kept = list[tuple[Span, StoredFrames]]


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 s at most, as half an hour would be too dear."""
    monkeypatch.setattr(module, "PIECE_SECONDS", 16.0)
    monkeypatch.setattr(module, "HANDOVER_SECONDS", 2.0)
    monkeypatch.setattr(module, "TAKE_SECONDS", 3.0)


def recipe(**splitting: Any) -> Recipe:
    data = load_recipe("embedded").model_dump()
    data["splitting"] |= {"min_seconds": WINDOW, "window_seconds": WINDOW, **splitting}
    data["tiers"] = {"any": {"fps": ">= 0"}}
    data["filters"] = {
        name: data["filters"][name] for name in ("fps", "width", "duration", "frozen", "grayscale", "shot_confidence")
    }
    return parse_recipe(data, source="a test")


@dataclass(frozen=True)
class Film:
    """shots: seconds of each; soft: dissolves instead of cuts; gop: frames between keyframes."""

    shots: tuple[float, ...]
    soft: bool = False
    gop: int = 20
    open_gop: bool = False
    name: str = "film.mp4"

    def pictures(self) -> Iterator[Any]:
        parts = [
            list(
                pan(
                    BOARDS[i % 3],
                    (2 + 2 * (i % 2), 0),
                    (46 * i % 400, 34 * i % 400),
                    SIZE,
                    max(2, round(FPS * seconds)),
                )
            )
            for i, seconds in enumerate(self.shots)
        ]
        for i, part in enumerate(parts):
            after = parts[i + 1] if self.soft and i + 1 < len(parts) else None
            overlap = min(8, len(part) // 2, len(after) // 2 if after else 0)
            if after is None or not overlap:
                yield from part
                continue
            yield from part[:-overlap]
            for k in range(overlap):
                share = (k + 1) / (overlap + 1)
                mixed = (1 - share) * part[len(part) - overlap + k] + share * after[0]
                yield mixed.astype(np.uint8)

    def made(self, folder: Path) -> Path:
        options = {"preset": "ultrafast", "crf": "30", "bf": "3", "b_strategy": "0", "sc_threshold": "0"}
        options |= {"x264-params": "open-gop=1"} if self.open_gop else {}
        path = folder / self.name
        film(path, self.pictures(), Encoding(SIZE, FPS, options=tuple(options.items()), gop=self.gop))
        return path


def in_one_go(path: Path, by: Recipe) -> tuple[VideoScan, Kept]:
    kept: Kept = []
    return scan_whole(str(path), by, keep_in(kept), all_scores=True), kept


def keep_in(kept: Kept) -> Any:
    return lambda span, sample: kept.append((span, store_sample("", sample, 90)))


def seams_of(path: Path, by: Recipe) -> tuple[float, ...]:
    with open_video(str(path)) as video:
        return find_seams(str(path), probe(video), by.splitting)


def in_pieces(path: Path, by: Recipe, order: int = 0) -> tuple[VideoScan, Kept]:
    """Each piece by itself, in any order, by way of what is stored of it."""
    seams = seams_of(path, by)
    pieces = [Piece(seams, number, take_seconds(by.splitting)) for number in range(len(seams) + 1)]
    random.Random(order).shuffle(pieces)
    kept: dict[int, Kept] = {}
    found: list[PieceScan] = []
    for piece in pieces:
        one = scan_piece(str(path), by, keep_in(kept.setdefault(piece.number, [])), piece, all_scores=True)
        assert isinstance(one, PieceScan)
        found.append(PieceScan.loaded(one.dumped()))
    found.sort(key=lambda one: one.number)
    scan = join(found, Judge(by, True), apart=True)
    wanted = {clip.span for clip in scan.clips if clip.has_frames}
    return scan, [one for number in sorted(kept) for one in kept[number] if one[0] in wanted]


def told(scan: VideoScan) -> str:
    """All that is known of a film, as text: nan is equal to nan."""
    count = replace(scan.count, rate=scan.count.rate.fps)  # type: ignore[arg-type]
    return repr(replace(scan, count=count))


def require_equal(path: Path, by: Recipe, order: int = 0) -> VideoScan:
    """The scan of a film, which is the same in pieces."""
    whole, frames = in_one_go(path, by)
    apart, frames_apart = in_pieces(path, by, order)
    assert told(apart) == told(whole)
    # The frames of a clip are found by its id. In one go a piece may give a clip before its neighbour has given its last one.
    assert by_span(frames_apart) == by_span(frames)
    return whole


def by_span(kept: Kept) -> Kept:
    """What was kept, in the order of the clips."""
    return sorted(kept, key=lambda one: one[0].start)


def test_a_take_over_a_seam_gives_windows_anew(tmp_path: Path) -> None:
    scan = require_equal(Film((24.0,)).made(tmp_path), recipe())
    (seam,) = seams_of(tmp_path / "film.mp4", recipe())
    anew = seam + 2 + 3.75  # The handover takes 2 s, and a take may go on for 3.75 s behind it.
    assert scan.pieces == 2
    assert scan.cuts == []
    starts = [clip.span.start for clip in scan.clips]
    assert anew in starts
    assert all(round(b - a, 6) == WINDOW for a, b in pairwise(starts) if b != anew)
    assert scan.left_out == pytest.approx(24.0 - sum(clip.span.seconds for clip in scan.clips))


def test_a_shot_over_a_seam_is_one_shot(tmp_path: Path) -> None:
    """As in a pass that knows no seams: the cuts are the same, and so are the clips, to the frame."""
    path = Film((5.0, 5.0, 5.0, 6.0, 4.0)).made(tmp_path)
    scan = require_equal(path, recipe())
    plain = scan_video(str(path), recipe(), lambda span, sample: None, all_scores=True)
    assert scan.pieces == 2
    assert scan.cuts == pytest.approx(plain.cuts, abs=2 / FPS)
    spans, others = ([(clip.span.start, clip.span.end) for clip in one.clips] for one in (scan, plain))
    assert np.array(spans) == pytest.approx(np.array(others), abs=2 / FPS)
    assert (scan.count.frames, scan.count.packets) == (plain.count.frames, plain.count.packets)
    assert scan.info == plain.info


def test_a_film_without_a_clip_has_its_longest_shot(tmp_path: Path) -> None:
    scan = require_equal(Film((0.4,) * 50 + (1.1,) + (0.4,) * 10).made(tmp_path), recipe())
    (clip,) = scan.clips
    assert clip.error is not None
    assert clip.error.kind == "too_short"
    assert 0.4 < clip.span.seconds < 1.1


def test_a_picture_changes_its_size_in_a_later_piece(tmp_path: Path) -> None:
    parts = [((320, 180), 10.0), ((640, 360), 9.0), ((320, 180), 13.0), ((180, 320), 2.0), ((640, 360), 14.0)]
    scan = require_equal(sized(tmp_path / "film", "webm", parts), recipe())
    assert scan.pieces > 1
    assert scan.cuts == pytest.approx([10.0, 19.0, 32.0, 34.0])
    widths = {clip.span.start: clip.scores["width"].score.value for clip in scan.clips}
    for start, width in widths.items():
        assert width == (640 if 10 <= start < 19 or start >= 34 else 180 if 32 <= start < 34 else 320)


def test_what_cannot_be_entered_has_no_seams(tmp_path: Path) -> None:
    path = Film((24.0,), name="film.ts").made(tmp_path)
    assert seams_of(path, recipe()) == ()
    assert in_one_go(path, recipe())[0].pieces == 1


def test_a_film_that_changes_between_pieces_is_noticed(tmp_path: Path) -> None:
    by, path = recipe(), Film((24.0,)).made(tmp_path)
    seams = seams_of(path, by)
    first = scan_piece(str(path), by, keep_in([]), Piece(seams, 0, take_seconds(by.splitting)), all_scores=True)
    Film((24.0,), soft=True, gop=20).made(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    changed = Film((10.0, 14.0)).made(other)
    second = scan_piece(str(changed), by, keep_in([]), Piece(seams, 1, take_seconds(by.splitting)), all_scores=True)
    assert isinstance(first, PieceScan)
    assert isinstance(second, PieceScan)
    with pytest.raises(SeamError):
        join([first, second], Judge(by, True), apart=True)


@pytest.mark.parametrize(
    ("offset", "open_gop"), [(-2.0, False), (-0.15, True), (0.15, False), (1.95, True), (2.4, False), (11.9, False)]
)
def test_damage_near_a_seam(tmp_path: Path, offset: float, open_gop: bool) -> None:
    """What is damaged lies so many seconds behind the seam: before the handover, across it, behind it, where the take ends."""
    path = Film((7.0, 17.0), open_gop=open_gop, gop=40).made(tmp_path)
    (seam,) = seams_of(path, recipe())
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
    hit = min(packets, key=lambda packet: abs(float(packet.pts * packet.time_base) - seam - offset))
    assert hit.pos is not None
    data[hit.pos : hit.pos + hit.size] = bytes(hit.size)
    path.write_bytes(data)
    scan = require_equal(path, recipe())
    assert scan.pieces == 2
    assert scan.count.damaged == 1
    assert [clip.error for clip in scan.clips] == [None] * len(scan.clips)
    (damage,) = scan.count.damages
    assert not any(damage.touches(clip.span.start, clip.span.end) for clip in scan.clips)
    assert sum(clip.span.seconds for clip in scan.clips) > 24 - 2 - 6 * WINDOW


FILMS = st.builds(
    Film,
    st.lists(st.sampled_from([0.4, 0.9, 1.3, 2.0, 2.6, 4.1, 7.3, 12.0, 21.0]), min_size=1, max_size=14)
    .map(tuple)
    .filter(lambda shots: 20 < sum(shots) < 60),
    st.booleans(),
    st.sampled_from([5, 18, 25]),
    st.booleans(),
    st.sampled_from(["film.mp4", "film.mkv"]),
)


@pytest.mark.slow  # A film of half a minute is made and read twice for each example.
@settings(max_examples=6)
@given(FILMS, st.sampled_from(["windows", "trim", "faster"]), st.integers(0, 5))
@example(Film((40.0,)), "windows", 1)  # One take crosses all seams.
@example(Film((9.0, 2.0, 9.5, 30.0), soft=True, gop=33, open_gop=True, name="film.mkv"), "faster", 2)
@example(Film((0.4,) * 90), "windows", 3)  # The film has no clip at all.
@example(Film((4.1, 21.0, 7.3), gop=5), "windows", 0)  # The last piece has a clip before the second has its last one.
@example(Film((7.3, 21.0), gop=18), "windows", 0)  # A slow change begins just before the handover.
def test_pieces_equal_one_go(some: Film, longer: str, order: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert require_equal(some.made(Path(folder)), recipe(longer=longer), order).pieces > 1


def test_a_piece_of_a_remote_film_fetches_its_own_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 1.3 times what it reads, beside the container's index and what opening takes."""
    path = Film((9.0, 6.0, 8.0, 5.0, 6.0, 9.0, 5.0)).made(tmp_path)
    by, size = recipe(), path.stat().st_size
    seams = seams_of(path, by)
    monkeypatch.setattr(ahead, "LEAST", 1024)  # The film has 20 KB a second, a hundredth of a real one.
    monkeypatch.setattr(ahead, "MOST", 16_384)
    monkeypatch.setattr(av, "open", small_buffer(av.open))
    with av.open(str(path)) as container:
        packets = [(p.pts * float(p.time_base), p.size) for p in container.demux(video=0) if p.pts is not None]
    index = size - sum(size for _, size in packets)
    for number in range(len(seams) + 1):
        requests = Requests(path.read_bytes())
        opened = ReadAhead(requests)  # type: ignore[arg-type]
        monkeypatch.setattr("longtake.curation.reading.opening.open_source", lambda source, opened=opened: opened)
        piece = Piece(seams, number, take_seconds(by.splitting))
        found = scan_piece("s3://films/long.mp4", by, keep_in([]), piece, all_scores=True)
        assert isinstance(found, PieceScan)
        own = sum(size for time, size in packets if piece.start <= time <= found.time)
        assert sum(requests.fetched) <= 1.3 * own + index + 16_384
