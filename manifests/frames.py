"""Stored samples and strips: one Parquet file per video, one row group per clip, so that a clip's frames are read alone.

A strip is one small JPEG with a clip's keyframes side by side. Every clip whose pictures the scan saw has one; a sample have only
those that some tier may keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from longtake.manifests.folder import in_words
from longtake.manifests.parts import hint
from longtake.manifests.ranges import Fetched, fetch_columns
from longtake.manifests.store import StoreError, open_folder

FRAMES_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("keyframes", pa.list_(pa.binary())),
        pa.field("partners", pa.list_(pa.binary())),
        pa.field("times", pa.list_(pa.float64())),
        pa.field("partner_times", pa.list_(pa.float64())),
        pa.field("marks", pa.binary()),
        pa.field("strip", pa.binary()),
    ]
)


_SAMPLE = tuple(name for name in FRAMES_SCHEMA.names if name != "strip")


@dataclass(frozen=True, slots=True)
class StoredFrames:
    """The sample of one clip as it lies on disk: JPEG frames, their times in seconds, and a PNG mask (or None)."""

    clip_id: str
    keyframes: list[bytes]
    partners: list[bytes]
    times: list[float]
    partner_times: list[float]
    marks: bytes | None


@dataclass(frozen=True, slots=True)
class StoredStrip:
    """The strip of one clip as it lies on disk: a JPEG of as many pictures side by side, all of one width, as there are times, in
    seconds of the video."""

    jpeg: bytes
    times: list[float]


def frames_name(video_id: str) -> str:
    """The file of the samples of a video's clips, below the workspace."""
    return f"frames/{video_id[:2]}/{video_id}.parquet"


def piece_name(video_id: str, scan_id: str, number: int) -> str:
    """What a piece of a film is called in the place of its video, until it is joined to the others: `frames_name` of it is the
    file of its samples."""
    return f"{video_id}-{scan_id}-{number}"


def found_name(piece: str) -> str:
    """The file of what was found in a piece, beside its samples. piece: as `piece_name` gives it."""
    return f"frames/{piece[:2]}/{piece}.json"


class FramesWriter:
    """Collects the clips of one video, each once; the file appears, whole, when the `with` block of `frames_writer` ends well."""

    def __init__(self, file: Path, path: str) -> None:
        self._path = path
        # JPEG does not compress further.
        self._parquet = pq.ParquetWriter(file, FRAMES_SCHEMA, compression="none", write_statistics=["clip_id"])
        self.clips = 0

    def write(self, frames: StoredFrames, strip: bytes | None = None) -> None:
        """The sample of a clip, with its strip. Raises StoreError if the disk does not take it."""
        self._append({**{name: getattr(frames, name) for name in _SAMPLE}, "strip": strip})

    def write_strip(self, clip_id: str, strip: StoredStrip) -> None:
        """The strip of a clip that has no sample. Raises StoreError if the disk does not take it."""
        self._append({"clip_id": clip_id, "times": strip.times, "strip": strip.jpeg})

    def _append(self, values: Mapping[str, object]) -> None:
        row = {name: [values.get(name)] for name in FRAMES_SCHEMA.names}
        try:
            self._parquet.write_table(pa.table(row, schema=FRAMES_SCHEMA))
        except OSError as error:
            raise _unwritten(self._path, error) from error
        self.clips += 1

    def close(self) -> None:
        self._parquet.close()


@contextmanager
def frames_writer(workspace: str, video_id: str) -> Iterator[FramesWriter]:
    """Write the samples of one video; nothing is left behind if the block fails or writes no clip.

    Raises StoreError if they cannot be written. The block must deal with an OSError of its own itself.
    """
    folder, name = open_folder(workspace), frames_name(video_id)
    try:
        with folder.whole_file(name) as part:
            writer = FramesWriter(part, folder.file(name))
            try:
                yield writer
            finally:
                writer.close()
            if not writer.clips:
                raise _NoClip
    except _NoClip:
        return
    except OSError as error:
        raise _unwritten(folder.file(name), error) from error


class _NoClip(Exception):
    """Nothing was written, so no file is to be left."""


def _unwritten(path: str, error: OSError) -> StoreError:
    return StoreError(f"cannot write {path}: {in_words(error)}{hint(error)}")


def read_frames(workspace: str, video_id: str, clip_ids: Sequence[str]) -> dict[str, StoredFrames]:
    """The samples of the clips named, of those that are there. Raises OSError, pyarrow.ArrowInvalid."""
    rows = _rows(workspace, video_id, clip_ids, _SAMPLE)
    return {row["clip_id"]: StoredFrames(**row) for row in rows if row["keyframes"] is not None}


def read_strips(workspace: str, video_id: str, clip_ids: Sequence[str]) -> dict[str, StoredStrip]:
    """The strips of the clips named, of those that are there: an older version stored none. Raises OSError,
    pyarrow.ArrowInvalid."""
    rows = _rows(workspace, video_id, clip_ids, ("clip_id", "times", "strip"))
    return {row["clip_id"]: StoredStrip(row["strip"], row["times"]) for row in rows if row.get("strip")}


def _rows(workspace: str, video_id: str, clip_ids: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of the clips named, of those that are there: of these columns those that the file has."""
    wanted = set(clip_ids)
    folder = open_folder(workspace)
    name = frames_name(video_id)
    with folder.open(name) if folder.is_local else Fetched(folder, name) as file:
        parquet = pq.ParquetFile(file, pre_buffer=False)
        groups = [group for group in range(parquet.num_row_groups) if _clip_of(parquet, group) in wanted]
        there = [name for name in columns if name in parquet.schema_arrow.names]
        rows: list[dict[str, Any]] = []
        if groups:
            fetch_columns(file, parquet, groups, there)
            rows = parquet.read_row_groups(groups, columns=there, use_threads=False).to_pylist()
    return rows


def _clip_of(parquet: pq.ParquetFile, group: int) -> str:
    """The clip that a row group holds: the file's index tells, by the least and greatest id in the group."""
    statistics = parquet.metadata.row_group(group).column(0).statistics
    if statistics is not None and statistics.has_min_max and statistics.min == statistics.max:
        return str(statistics.min)
    return str(parquet.read_row_group(group, columns=["clip_id"])["clip_id"][0].as_py())
