"""Stored frames: what goes in comes out, only what is asked for is read, and nothing half-written stays."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.manifests.frames import (
    FRAMES_SCHEMA,
    StoredFrames,
    StoredStrip,
    frames_name,
    frames_writer,
    read_frames,
    read_strips,
)
from longtake.manifests.ids import video_id
from longtake.manifests.store import StoreError

VIDEO = video_id("a film.mp4")


def frames(clip: str, size: int = 100, marks: bytes | None = b"mask") -> StoredFrames:
    """Five pictures and their partners, of `size` bytes each and all different."""
    pictures = [f"{clip}-{i}".encode().ljust(size, b".") for i in range(10)]
    times = [0.1 + 3 * i for i in range(5)]
    return StoredFrames(clip, pictures[:5], pictures[5:], times, [time + 0.5 for time in times], marks)


def write(workspace: Path | str, clips: list[StoredFrames]) -> None:
    with frames_writer(str(workspace), VIDEO) as writer:
        for clip in clips:
            writer.write(clip)


def bytes_read() -> int:
    """By this process so far, from whatever there is to read."""
    return int(Path("/proc/self/io").read_text().split()[1])


stored = st.builds(
    StoredFrames,
    clip_id=st.text("0123456789abcdef", min_size=1, max_size=32),
    keyframes=st.lists(st.binary(max_size=50), max_size=6),
    partners=st.lists(st.binary(max_size=50), max_size=6),
    times=st.lists(st.floats(allow_nan=False), max_size=6),
    partner_times=st.lists(st.floats(allow_nan=False), max_size=6),
    marks=st.none() | st.binary(max_size=50),
)


@settings(deadline=None)  # Each example writes files.
@given(st.lists(stored, min_size=1, max_size=5, unique_by=lambda frames: frames.clip_id), st.data())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, clips: list[StoredFrames], data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("workspace")
    write(folder, clips)
    wanted = data.draw(st.lists(st.sampled_from(clips), unique_by=lambda frames: frames.clip_id))
    found = read_frames(str(folder), VIDEO, [clip.clip_id for clip in wanted] + ["of another video"])
    assert found == {clip.clip_id: clip for clip in wanted}


def test_a_strip_stands_beside_a_sample_or_alone(tmp_path: Path) -> None:
    strip = StoredStrip(b"a jpeg", [1.5, 4.5])
    with frames_writer(str(tmp_path), VIDEO) as writer:
        writer.write(frames("a"), b"of a")
        writer.write_strip("b", strip)
        writer.write(frames("c"))
    assert read_strips(str(tmp_path), VIDEO, ["a", "b", "c", "d"]) == {
        "a": StoredStrip(b"of a", frames("a").times),
        "b": strip,
    }
    assert read_strips(str(tmp_path), VIDEO, ["b"]) == {"b": strip}
    # A strip is no sample: nothing can be measured on it.
    assert read_frames(str(tmp_path), VIDEO, ["a", "b", "c", "d"]) == {"a": frames("a"), "c": frames("c")}


def test_the_file_of_an_older_version_has_samples_and_no_strips(tmp_path: Path) -> None:
    old = pa.schema([field for field in FRAMES_SCHEMA if field.name != "strip"])
    path = tmp_path / frames_name(VIDEO)
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([{name: getattr(frames("a"), name) for name in old.names}], old), path)
    assert read_frames(str(tmp_path), VIDEO, ["a"]) == {"a": frames("a")}
    assert read_strips(str(tmp_path), VIDEO, ["a"]) == {}


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="no /proc/self/io here")
def test_a_strip_is_read_without_the_sample(tmp_path: Path) -> None:
    with frames_writer(str(tmp_path), VIDEO) as writer:
        for i in range(4):
            writer.write(frames(f"clip{i}", size=200_000), b"strip")
    before = bytes_read()
    assert read_strips(str(tmp_path), VIDEO, ["clip2"])["clip2"].jpeg == b"strip"
    assert bytes_read() - before < 500_000


def test_on_an_object_store() -> None:
    workspace = "memory://frames-test"
    write(workspace, [frames("a"), frames("b")])
    assert read_frames(workspace, VIDEO, ["b"]) == {"b": frames("b")}
    fs = fsspec.filesystem("memory")
    assert fs.find("/frames-test") == [f"/frames-test/{frames_name(VIDEO)}"]
    with pytest.raises(RuntimeError), frames_writer(workspace, "0" * 32) as writer:  # noqa: PT012
        writer.write(frames("c"))
        raise RuntimeError
    assert fs.find("/frames-test") == [f"/frames-test/{frames_name(VIDEO)}"]


def test_one_row_group_per_clip(tmp_path: Path) -> None:
    write(tmp_path, [frames("a"), frames("b"), frames("c")])
    parquet = pq.ParquetFile(tmp_path / frames_name(VIDEO))
    assert [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)] == [1, 1, 1]


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="no /proc/self/io here")
def test_only_the_frames_of_the_clips_named_are_read(tmp_path: Path) -> None:
    clips = [frames(f"clip{i}", size=200_000) for i in range(12)]  # Each clip has 2 MB.
    write(tmp_path, clips)
    before = bytes_read()
    assert read_frames(str(tmp_path), VIDEO, ["clip7"]) == {"clip7": clips[7]}
    assert bytes_read() - before < 4_000_000


def test_nothing_appears_before_it_is_whole_and_nothing_stays_after_a_failure(tmp_path: Path) -> None:
    path = tmp_path / frames_name(VIDEO)
    failing = pytest.raises(RuntimeError, match="the scan failed")
    with failing, frames_writer(str(tmp_path), VIDEO) as writer:
        writer.write(frames("a"))
        assert not path.exists()
        raise RuntimeError("the scan failed")
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_video_without_samples_leaves_no_file(tmp_path: Path) -> None:
    write(tmp_path, [])
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_failed_second_scan_leaves_the_first_one(tmp_path: Path) -> None:
    write(tmp_path, [frames("a")])
    with pytest.raises(RuntimeError), frames_writer(str(tmp_path), VIDEO) as writer:  # noqa: PT012
        writer.write(frames("b"))
        raise RuntimeError
    assert read_frames(str(tmp_path), VIDEO, ["a", "b"]) == {"a": frames("a")}
    write(tmp_path, [frames("b")])
    assert read_frames(str(tmp_path), VIDEO, ["a", "b"]) == {"b": frames("b")}
    assert len([file for file in tmp_path.rglob("*") if file.is_file()]) == 1


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_frames(str(tmp_path), VIDEO, ["a"])


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_damaged_file(tmp_path: Path, share: float) -> None:
    write(tmp_path, [frames("a")])
    path = tmp_path / frames_name(VIDEO)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(pa.ArrowInvalid):
        read_frames(str(tmp_path), VIDEO, ["a"])


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "frames").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match=f"cannot write .*{VIDEO}"):
        write(tmp_path, [frames("a")])
