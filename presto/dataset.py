"""The exported dataset as the trainer sees it: which clips can be used, in which bucket, and why the others cannot."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from longtake.manifests.dataset.shards import INDEX
from longtake.manifests.dataset.splits import REST, SPLIT
from longtake.manifests.folder import in_words, whole_file
from longtake.presto.config import Bucket
from longtake.presto.errors import DROPS, ClipError, PrestoError
from longtake.presto.files import Place, exists, is_remote, join, listing, read, sizes

COLUMNS: dict[str, Callable[[pa.DataType], bool]] = {
    "clip_id": pa.types.is_string,
    "video_id": pa.types.is_string,
    "path": pa.types.is_string,
    "num_frames": pa.types.is_integer,
    "height": pa.types.is_integer,
    "width": pa.types.is_integer,
    "caption": pa.types.is_string,
    "cap": pa.types.is_struct,
    "tier": pa.types.is_string,
    "sha256": pa.types.is_string,
}


VALIDATION = "validation"  # The split that a run looks at, and does not train on.


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip that can be used. path: of its mp4, or of its encoding; may be a URI. bucket: number of its bucket. frames:
    that its row states. captions: the overall one, then those of its segments. content: a hash of file and captions. split: that
    its dataset names; `train` where it names none."""

    clip_id: str
    video_id: str
    path: str
    bucket: int
    frames: int = 0
    captions: tuple[str, ...] = ()
    content: str = ""
    split: str = REST


@dataclass(frozen=True, slots=True)
class Drop:
    """A clip that is not trained on. reason: a key of longtake.presto.errors.DROPS."""

    clip_id: str
    path: str
    reason: str
    message: str


def read_dataset(folder: Place) -> pa.Table:
    """The table of an exported dataset (`dataset/<tier>`), by clip id: index.parquet, or the shards where there is none.

    Raises PrestoError, naming file and column, if a file is not whole or a column is missing or of another type.
    """
    index, shards = join(folder, INDEX), join(folder, "shards")
    names = [] if exists(index) else sorted(n for n in listing(shards) if n.endswith(".parquet"))
    paths = [join(shards, name) for name in names] or [index]
    if paths == [index] and not exists(index):
        raise PrestoError(
            f"{folder} holds no {INDEX} and no shards/*.parquet: give the folder dataset/<tier> of an export"
        )
    if names and not names[-1].endswith(f"-of-{len(names):05d}.parquet"):
        raise PrestoError(f"{shards} holds {len(names)} shards, not all of them: export again")
    tables = []
    for path in paths:
        try:
            source = pa.BufferReader(read(str(path))) if is_remote(path) else path
            schema = pq.read_schema(source)
            for name, fits in COLUMNS.items():
                if name not in schema.names:
                    raise PrestoError(f"{path} has no column {name!r}: it is no dataset of longtake export")
                if not fits(schema.field(name).type):
                    raise PrestoError(f"{path}: the column {name!r} is of type {schema.field(name).type}")
            named = [SPLIT] if SPLIT in schema.names else []
            table = pq.read_table(source, columns=[*COLUMNS, *named])
            _require_values(table, path)
            tables.append(
                table if named else table.append_column(SPLIT, pa.array([REST] * table.num_rows, pa.string()))
            )
        except (OSError, pa.ArrowException) as error:
            raise PrestoError(f"{path} cannot be read: {in_words(error)}. Export again, or copy it again") from error
    caps = {tuple(field.name for field in table.schema.field("cap").type) for table in tables}
    if len(caps) > 1:
        raise PrestoError(f"{shards}: the keys of the column 'cap' differ between shards: export again")
    table = pa.concat_tables(tables).sort_by("clip_id")
    if not table.num_rows:
        raise PrestoError(f"{folder} holds no clip: `longtake stats` on its workspace says what the tier lacks")
    return table


def _require_values(table: pa.Table, path: Place) -> None:
    """Raises PrestoError: no value where there must be one, or captions under keys that are no frame numbers."""
    for name in COLUMNS:
        if table[name].null_count and name not in ("caption", "cap"):
            clips = table.filter(pc.is_null(table[name]))["clip_id"]
            raise PrestoError(f"{path}: the column {name!r} is empty in {len(clips)} rows, clip {clips[0]} for one")
    require_names(table["clip_id"].to_pylist(), path)
    for field in table.schema.field("cap").type:
        if not field.name.isdecimal() or not pa.types.is_string(field.type):
            raise PrestoError(
                f"{path}: the column 'cap' has a field {field.name!r} of type {field.type}; it holds captions by their "
                "frame numbers, such as 45, 135, 225, 315 and 405"
            )


def require_names(clip_ids: Iterable[str], where: Place) -> None:
    """Raises PrestoError for a clip id that cannot be the name of a file: encodings are called by them."""
    for clip_id in clip_ids:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", clip_id):
            raise PrestoError(f"{where}: {clip_id!r} is no clip id: letters, digits, - and _ are")


def usable(
    table: pa.Table, folder: Place, buckets: Sequence[Bucket], tolerance: float, segments: int | None
) -> tuple[list[Clip], list[Drop]]:
    """The clips of `read_dataset(folder)` that can be used, and those that cannot, with the reason; both in order.

    segments: sub-captions that each clip must have; None: the overall caption must be there. What only decoding can
    tell is not known here. Raises PrestoError if `cap` holds another number of captions than `segments`.
    """
    keys = sorted((field.name for field in table.schema.field("cap").type), key=int)
    if segments is not None and len(keys) != segments:
        raise PrestoError(
            f"{folder}: the column 'cap' holds {len(keys)} captions, and attention.segments is {segments}: "
            "set it to the same number"
        )
    there = sizes(folder, [_inside(path, folder) for path in table["path"].to_pylist()])
    clips, drops = [], []
    for row in table.to_pylist():
        path = join(folder, row["path"])
        captions = [row["caption"], *((row["cap"] or {}).get(key) for key in keys)]
        try:
            needed = captions[:1] if segments is None else captions[1:]
            if not all((text or "").strip() for text in needed):
                raise ClipError("captions", "a caption is missing or empty")
            bucket = choose_bucket(row["num_frames"], row["height"], row["width"], buckets, tolerance)
            if row["path"] not in there:
                raise ClipError("missing", f"{path} is not there")
        except ClipError as error:
            drops.append(Drop(row["clip_id"], str(path), error.reason, str(error)))
            continue
        texts = tuple((text or "").strip() for text in captions)
        content = hashlib.sha256(json.dumps([row["sha256"], *texts]).encode()).hexdigest()[:16]
        clips.append(
            Clip(row["clip_id"], row["video_id"], str(path), bucket, row["num_frames"], texts, content, row[SPLIT])
        )
    return clips, drops


def _inside(path: str, folder: Place) -> str:
    if not path or path.startswith("/") or ".." in PurePosixPath(path).parts or not path.isprintable():
        raise PrestoError(f"{folder}: the column 'path' holds {path!r}, which is no path inside the dataset")
    return path


def choose_bucket(frames: int, height: int, width: int, buckets: Sequence[Bucket], tolerance: float) -> int:
    """Number of the bucket for a clip: of those that ask for no more than it has, the nearest in aspect ratio, and of
    these the one with the most pixels. tolerance: see config.Data. Raises ClipError: short, small, aspect."""
    long_enough = [i for i, b in enumerate(buckets) if b.frames <= frames]
    if not long_enough:
        least = min(b.frames for b in buckets)
        raise ClipError("short", f"{frames} frames, and the shortest bucket takes {least}")
    large_enough = [i for i in long_enough if buckets[i].height <= height and buckets[i].width <= width]
    if not large_enough:
        raise ClipError("small", f"{width}×{height}, smaller than every bucket of {frames} frames or fewer")

    def distance(i: int) -> float:
        return abs(math.log(height / width) - math.log(buckets[i].height / buckets[i].width))

    near = [i for i in large_enough if distance(i) <= math.log(tolerance) + 1e-9]
    if not near:
        raise ClipError("aspect", f"height / width is {height / width:.3f}: no bucket within a factor of {tolerance:g}")
    return min(
        near, key=lambda i: (round(distance(i), 6), -buckets[i].frames * buckets[i].height * buckets[i].width, i)
    )


def held_out(clips: Sequence[Clip], count: int) -> set[str]:
    """Ids of the clips to validate on: whole videos, chosen by a hash of their ids, until there are `count` clips."""
    of_video: dict[str, list[str]] = {}
    for clip in clips:
        of_video.setdefault(clip.video_id, []).append(clip.clip_id)
    chosen: set[str] = set()
    for video in sorted(of_video, key=lambda v: hashlib.sha256(v.encode()).digest()):
        if len(chosen) >= count:
            break
        chosen.update(of_video[video])
    return chosen


def divided(clips: Sequence[Clip], count: int) -> tuple[list[Clip], list[Clip]]:
    """The clips to train on, and those to validate on. Where the dataset names splits, these count: `train`, and `validation`;
    what is in another one is left out of both. Where all is `train`: see `held_out`."""
    if any(clip.split != REST for clip in clips):
        return [c for c in clips if c.split == REST], [c for c in clips if c.split == VALIDATION]
    held = held_out(clips, count)
    return [c for c in clips if c.clip_id not in held], [c for c in clips if c.clip_id in held]


def write_ledger(drops: Iterable[Drop], path: Path) -> None:
    """One JSON line per clip that is not trained on."""
    with whole_file(path) as part:
        part.write_text(
            "".join(json.dumps(asdict(drop), ensure_ascii=False) + "\n" for drop in drops), encoding="utf-8"
        )


def require_few_drops(drops: Sequence[Drop], total: int, share: float) -> None:
    """Raises PrestoError if more than `share` of `total` clips are dropped, with the count of each reason."""
    if total == 0:
        raise PrestoError("the dataset holds no clip")
    if len(drops) <= share * total:
        return
    counts = Counter(drop.reason for drop in drops)
    told = "\n".join(f"  {n} {reason}: {DROPS[reason]}" for reason, n in counts.most_common())
    raise PrestoError(
        f"{len(drops)} of {total} clips cannot be used, more than data.max_dropped ({share:.0%}):\n{told}\n"
        f"for example {drops[0].clip_id}: {drops[0].message}. Mend the data or the buckets, or raise data.max_dropped"
    )


def summary(drops: Sequence[Drop]) -> Mapping[str, int]:
    """Clips by reason."""
    return dict(Counter(drop.reason for drop in drops).most_common())
