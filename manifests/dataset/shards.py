"""The exported table: what a trainer reads, and the contract with Presto (design, section 9).

A dataset folder holds

    clips/…/*.mp4                          the clips
    shards/shard-00000-of-00004.parquet    the table in parts, for readers of many files
    index.parquet                          the same rows in the same order, in one file; written last
    SHA256SUMS                             of all of them, README.md and others: `sha256sum -c SHA256SUMS`

Scores are one float column each, under the name of its gate, because that is how they are used: `df[df.flow > 60]`, a
histogram, a filter that Parquet pushes down by its statistics. Protocols are text that nobody computes with, the same
in nearly every row: one JSON column. Measurements of the source whose names the contract gives to the exported clip
have `source_` before them: `width` is what the trainer will decode.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from longtake.manifests.dataset import extras
from longtake.manifests.dataset.splits import SPLIT
from longtake.manifests.folder import whole_file
from longtake.manifests.parts import no_rows, pieces

FRAMES = 450
CAPTIONS = 5
SCORES = (
    "source_width",
    "source_height",
    "source_fps",
    "duration",
    "grayscale",
    "aesthetic",
    "artifacts",
    "flow",
    "psnr",
    "ssim",
    "lpips",
    "text_similarity",
)
ROWS_PER_SHARD = 10_000
INDEX = "index.parquet"
CHECKSUMS = "SHA256SUMS"
_SHARDS = "shards"


class DatasetError(ValueError):
    """A row or a table that cannot be exported; the message names the clip and the column."""


def caption_frames(frames: int = FRAMES, captions: int = CAPTIONS) -> tuple[int, ...]:
    """Frame numbers at the centres of the `captions` equal segments of a clip: 45, 135, … for 450 frames."""
    if frames < 2 * captions:
        raise DatasetError(f"{frames} frames have no {captions} different centres")
    return tuple((2 * i + 1) * frames // (2 * captions) for i in range(captions))


def dataset_schema(
    scores: Sequence[str] = SCORES, frames: int = FRAMES, split: bool = False, further: Sequence[pa.Field] = ()
) -> pa.Schema:
    """Schema of the exported table, with a float64 column for each of `scores`. split: with a column for the clip's split.
    further: columns of `manifests.dataset.extras`.

    `cap` is the same struct in every shard and row: an Arrow map loads as a list, and keys that differ become null
    captions. So `frames` belongs to the dataset, not to the clip.
    """
    cap = pa.struct([pa.field(str(n), pa.string()) for n in caption_frames(frames)])
    contract = [
        pa.field("path", pa.string(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("cap", cap),
    ]
    ours = [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("start", pa.float64(), nullable=False),
        pa.field("end", pa.float64(), nullable=False),
        pa.field("fps", pa.float64(), nullable=False),
        pa.field("pace", pa.float64(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("sub_captions", pa.list_(pa.string())),
        pa.field("tier", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("licence", pa.string()),
        pa.field("sha256", pa.string(), nullable=False),
        *([pa.field(SPLIT, pa.string(), nullable=False)] if split else []),
        *further,
    ]
    taken = {f.name for f in contract + ours} | {"protocols", "video", SPLIT}
    if clash := sorted(taken & set(scores)):
        raise DatasetError(f"a score cannot be called {clash[0]!r}: the exported clip has a column of that name")
    measured = [pa.field(score, pa.float64()) for score in scores]
    return pa.schema([*contract, *ours, *measured, pa.field("protocols", pa.string())])


DATASET_SCHEMA = dataset_schema()

MEANINGS: dict[str, str] = {
    "path": "the clip, relative to this folder",
    "num_frames": "frames in the clip",
    "height": "pixels",
    "width": "pixels",
    "cap": "the sub-captions, by the number of the frame in the middle of their segment",
    "clip_id": "id of the clip, the same in every run over the same span of the same video",
    "video_id": "id of the video it was cut from",
    "uri": "where that video was read",
    "start": "beginning of the clip in the video, seconds",
    "end": "end of the clip in the video, seconds",
    "fps": "frames per second of the clip, constant",
    "pace": "seconds of the video per second of the clip: above 1 only where the recipe says `splitting.longer: faster`",
    "caption": "caption of the whole clip",
    "sub_captions": "the sub-captions in order",
    "tier": "the set of gates that the clip passed",
    "verdict": "what the gates said of the clip",
    "licence": "licence of the video as its source list gives it; null if it gives none",
    "sha256": "SHA-256 of the clip's file",
    "split": "train, or another split that the recipe names; all clips of a video are in one",
    "source_width": "width of the video as displayed, pixels",
    "source_height": "height of the video as displayed, pixels",
    "source_fps": "frames per second of the video, on average",
    "duration": "length of the clip in the video, seconds",
    "grayscale": "mean grey level, 0 to 255",
    "aesthetic": "aesthetic score",
    "artifacts": "share of the frame under borders, overlaid text and static marks, worst keyframe",
    "flow": "mean length of the optical flow over 0.5 s, pixels at a long side of 960",
    "psnr": "PSNR of neighbouring keyframes, dB",
    "ssim": "SSIM of neighbouring keyframes",
    "lpips": "LPIPS of neighbouring keyframes",
    "text_similarity": "cosine of the embeddings of neighbouring sub-captions",
    "concept_weight": "1/√n for a clip of a cluster with n clips in this dataset: a sampler's weight",
    "concept_quota": "clips of the cluster in a pass of as many draws by these weights as there are clips",
    "protocols": "JSON: how each score was measured, by its name; compare scores of equal protocols only",
    **extras.MEANINGS,
}


def dataset_table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema = DATASET_SCHEMA) -> pa.Table:
    """The exported table of `rows`: mappings with the columns of `schema` but `cap`, which is made of `sub_captions`,
    so that the two cannot differ. `protocols` may be a mapping; a score or a text that is not there is null.

    Raises DatasetError: an unknown column, a required one without a value, a number that is not finite, a path that
    leads elsewhere, a wrong number of sub-captions, two rows with one clip id or path.
    """
    keys = [field.name for field in schema.field("cap").type]
    made = [_row(row, schema, keys) for row in rows]
    for column in ("clip_id", "path"):
        seen: set[str] = set()
        for row in made:
            if row[column] in seen:
                raise DatasetError(f"two rows have the {column} {row[column]!r}")
            seen.add(row[column])
    return pa.Table.from_pylist(sorted(made, key=lambda row: str(row["clip_id"])), schema=schema)


def _row(row: Mapping[str, Any], schema: pa.Schema, keys: list[str]) -> dict[str, Any]:
    clip = row.get("clip_id")
    if unknown := sorted(set(row) - set(schema.names) | ({"cap"} & set(row))):
        raise DatasetError(f"clip {clip}: the dataset has no column {unknown[0]!r} to fill")
    made = {name: row.get(name) for name in schema.names}
    for field in schema:
        if not field.nullable and made[field.name] is None:
            raise DatasetError(f"clip {clip}: there is no {field.name}")
        if isinstance(number := made[field.name], float) and not math.isfinite(number):
            raise DatasetError(f"clip {clip}: {field.name} is {number}; what was not measured is null")
    _require_inside(str(made["path"]))
    captions = made["sub_captions"]
    if captions is not None:
        if len(captions) != len(keys):
            raise DatasetError(f"clip {clip}: {len(captions)} sub-captions, not {len(keys)}")
        made["cap"] = dict(zip(keys, captions, strict=True))
    if isinstance(made["protocols"], Mapping):
        made["protocols"] = json.dumps(dict(made["protocols"]), sort_keys=True, ensure_ascii=False)
    return made


def _require_inside(path: str) -> None:
    """Raises DatasetError unless `path` is a plain relative path below the dataset's folder."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or not path.isprintable():
        raise DatasetError(f"not a path inside the dataset: {path!r}")


# Writing ------------------------------------------------------------------------------------------------------------


def write_shards(
    table: pa.Table, folder: Path, rows_per_shard: int = ROWS_PER_SHARD, mark: str | None = None
) -> list[Path]:
    """Write `table`, by clip id, as `folder/shards/shard-00000-of-00004.parquet` and so on; at least one. mark: to be put
    behind `shard-`, so that shards of two exports can lie in one folder while the one takes the place of the other.

    The shards, index and checksums of an earlier export are removed first, the index before all else: a folder with an
    index is complete. Call `finish_dataset` when the clips, the card and whatever else belongs to it are in the folder.
    """
    return write_sorted([table.sort_by("clip_id")], table.num_rows, table.schema, folder, rows_per_shard, mark)


def write_sorted(
    tables: Iterable[pa.Table],
    rows: int,
    schema: pa.Schema,
    folder: Path,
    rows_per_shard: int = ROWS_PER_SHARD,
    mark: str | None = None,
) -> list[Path]:
    """As `write_shards`, of tables that come one after the other, in the order of their clip ids, with so many rows together. A
    shard is held in memory at a time."""
    if rows_per_shard < 1:
        raise DatasetError(f"rows_per_shard must be at least 1, not {rows_per_shard}")
    (folder / INDEX).unlink(missing_ok=True)
    (folder / CHECKSUMS).unlink(missing_ok=True)
    for old in sorted((folder / _SHARDS).glob("shard-*.parquet")):
        old.unlink()
    count = max(1, -(-rows // rows_per_shard))
    begin = f"shard-{mark}-" if mark else "shard-"
    paths = [folder / _SHARDS / f"{begin}{i:05d}-of-{count:05d}.parquet" for i in range(count)]
    shards = pieces(tables, rows_per_shard) if rows else [no_rows(schema)]
    for path, shard in zip(paths, shards, strict=True):
        with whole_file(path) as part:
            pq.write_table(shard, part, compression="zstd")
    return paths


def read_shards(paths: Sequence[Path], columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of shards, with these columns (None: all)."""
    return pa.concat_tables([pq.read_table(path, columns=None if columns is None else list(columns)) for path in paths])


def finish_dataset(folder: Path, clips_elsewhere: bool = False) -> Path:
    """Write the checksums, and last of all the index, which is made of the shards and so agrees with them; its path.
    clips_elsewhere: they are not in this folder, but where its files will be put.

    Clips are not read again: the table has their checksums. Every other file in the folder that is not hidden is.
    Raises DatasetError if there are no shards, or not all of them, or if a clip is not there.
    """
    shards = sorted((folder / _SHARDS).glob("shard-*.parquet"))
    if not shards or not shards[-1].name.endswith(f"-of-{len(shards):05d}.parquet"):
        raise DatasetError(f"{folder / _SHARDS} does not hold a whole set of shards: export again")
    (folder / INDEX).unlink(missing_ok=True)
    with whole_file(folder / INDEX) as part:
        sums: dict[str, str] = {}
        with pq.ParquetWriter(part, pq.read_schema(shards[0]), compression="zstd") as writer:
            for shard in shards:
                table = pq.read_table(shard)
                writer.write_table(table)
                sums |= zip(table["path"].to_pylist(), table["sha256"].to_pylist(), strict=True)
        if not clips_elsewhere and (gone := [path for path in sums if not (folder / path).is_file()]):
            raise DatasetError(f"{len(gone)} clips of the table are not in {folder}, {gone[0]} for one: export again")
        sums |= {name: _sha256(folder / name) for name in _other_files(folder)}
        sums[INDEX] = _sha256(part)
        with whole_file(folder / CHECKSUMS) as listed:
            lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
            listed.write_text(lines, encoding="utf-8")
    return folder / INDEX


def _other_files(folder: Path) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        inside = Path(root).relative_to(folder)
        folders[:] = [f for f in folders if not f.startswith(".") and (inside / f).as_posix() != "clips"]
        for name in files:
            path = (inside / name).as_posix()
            if not name.startswith(".") and path not in (INDEX, CHECKSUMS):
                _require_inside(path)  # A line break in a file's name would forge a line of the list.
                yield path


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Presto -------------------------------------------------------------------------------------------------------------

PRESTO_STRIDE = 90  # Frames per sub-caption.
PRESTO_SIZE = (720, 1280)  # Pixels: height, width.
PRESTO_ASPECT = 1.5  # Factor by which height / width may differ from that of PRESTO_SIZE.


@dataclass(frozen=True, slots=True)
class PrestoProblem:
    """Why the published trainer drops a clip, or reads it wrongly. column: which one is to blame."""

    clip_id: str
    column: str
    message: str


def presto_problems(table: pa.Table) -> list[PrestoProblem]:
    """What the published trainer (Cakeyan/Presto, with the settings of its `train_presto.sh`) will not take of `table`.

    It drops rows in silence by frames, size and aspect, replaces at random what fails while it loads (a path that does
    not end in .mp4, captions at the wrong distance), reads a null caption as the word "none", and of a clip with more
    frames than its captions span it reads the beginning only.
    """
    keys = [int(field.name) for field in table.schema.field("cap").type]
    columns = table.select(["clip_id", "path", "num_frames", "height", "width", "cap"]).to_pylist()
    return [
        PrestoProblem(row["clip_id"], column, message)
        for row in columns
        for column, message in _presto_problems(row, keys)
    ]


def _presto_problems(row: Mapping[str, Any], keys: list[int]) -> Iterator[tuple[str, str]]:
    frames, height, width = row["num_frames"], row["height"], row["width"]
    span = PRESTO_STRIDE * len(keys)
    if not row["path"].endswith(".mp4"):
        yield "path", "does not end in .mp4: fails while loading"
    if frames < span:
        yield "num_frames", f"{frames} frames, fewer than {span}: dropped"
    elif frames > span:
        yield "num_frames", f"{frames} frames, but only the first {span} are read, under the captions of the whole clip"
    tall, wide = PRESTO_SIZE
    if height < tall or width < wide:
        yield "height" if height < tall else "width", f"{width}×{height}, smaller than {wide}×{tall}: dropped"
    if not tall / wide / PRESTO_ASPECT <= height / width <= tall / wide * PRESTO_ASPECT:
        yield "height", f"height / width is {height / width:.3f}, not within [0.375, 0.844]: dropped"
    cap = cast("Mapping[str, str | None] | None", row["cap"])
    if cap is None:
        yield "cap", "there are no captions: fails while loading"
        return
    if any(b - a != PRESTO_STRIDE for a, b in pairwise(keys)):
        yield "cap", f"captions are {keys[1] - keys[0]} frames apart, not {PRESTO_STRIDE}: fails while loading"
    if empty := [name for name, text in cap.items() if not (text or "").strip()]:
        yield "cap", f"the captions of frames {', '.join(empty)} are empty"
