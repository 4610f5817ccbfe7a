"""How a corpus grows: what is new, what has changed, what is gone and what came back since its folders were read last.

A file has changed if its size or its time of writing is another than when it was scanned; where both sides know the SHA-256 of
its content (`--hash`), that alone decides. A file that is gone from a folder or bucket becomes a tombstone: its row among the
videos is an error of kind `removed`, which keeps the clips that it had, and none of them counts. It comes back with the file,
and costs nothing then. What is away is not gone: an empty folder is what a mount point looks like.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.access import Access
from longtake.curation.clip_table import rows_of
from longtake.curation.folders import sha256_of
from longtake.curation.gathered import Gathered
from longtake.curation.inputs import place_of
from longtake.curation.listing import files_below
from longtake.curation.stages.stage import of_part
from longtake.curation.workspace import Workspace
from longtake.manifests.arrow import from_numpy
from longtake.manifests.folder import is_uri, local_path
from longtake.manifests.keys import Index, hashed
from longtake.manifests.lookup import Lookup
from longtake.manifests.members import container_of, file_of
from longtake.manifests.schemas import INPUTS
from longtake.manifests.uris import join_uri, split_uri

SEEN = ("bytes", "listed_bytes", "modified", "sha256")  # Columns of a row of videos that `same_file` compares.
REMOVED = "removed"  # The kind of error of a tombstone.


def update(
    workspace: Workspace,
    gathered: Gathered,
    access: Access,
    part: tuple[int, int] | None = None,
    *,
    hashes: bool = False,
) -> None:
    """Bring the inputs up to what was gathered, and tell in its report what is gone, changed or back. part: of which the rows
    of `gathered` are. hashes: look at the content of files of this machine, too, to tell whether they were changed. For the
    holder of the workspace's lock; it may be killed and repeated."""
    if workspace.inputs.parts():
        withdraw(workspace, gathered, part)
        _bury(workspace, gathered, access, part)
    tables = gathered.tables()
    add_inputs(workspace, map(_with_hashes, tables) if hashes else tables)
    if workspace.videos.rows():
        _compare(workspace, gathered)


def add_inputs(workspace: Workspace, tables: Iterable[pa.Table]) -> None:
    """Note videos that the workspace does not know yet, or knows otherwise: with other clips, or as a file that was changed.
    tables: of rows, each video once."""
    known = [np.zeros((2, 0), np.uint64)]
    for rows in workspace.inputs.scan():
        known.append(hashed(_texts(_like_inputs(rows))))
    there = Index(np.concatenate(known, axis=1))
    hashes = _known_hashes(workspace)
    for table in tables:
        rows = _with_known_hashes(_like_inputs(table), hashes)
        workspace.inputs.append(rows.filter(from_numpy(~there.has(_texts(rows)))))
    workspace.inputs.compact()


def withdraw(workspace: Workspace, gathered: Gathered, part: tuple[int, int] | None = None) -> None:
    """Take out the error rows of lists and folders that were read again now, where they say so no more. part: of which the rows
    of `gathered` are."""
    if not workspace.inputs.parts():
        return
    known = [rows.filter(pc.is_valid(rows["error"])) for rows in workspace.inputs.scan(["video_id", "uri", "error"])]
    wrong = of_part(pa.concat_tables(known), part) if known else pa.table({})
    if not wrong.num_rows:
        return
    now: dict[str, str | None] = {}
    for table in gathered.tables():
        table = table.filter(pc.is_in(table["video_id"], value_set=wrong["video_id"].combine_chunks()))
        now |= zip(table["video_id"].to_pylist(), table["error"].to_pylist(), strict=True)
    gone = [
        row["video_id"]
        for row in wrong.to_pylist()
        if now.get(row["video_id"]) != row["error"]
        and (row["video_id"] in now or place_of(row["uri"]) in gathered.places)
    ]
    if gone:
        ids = pa.array(gone, pa.string())
        workspace.inputs.compact(without=ids)
        workspace.videos.compact(without=ids)


def same_file(wanted: pa.Table, videos: pa.Table) -> npt.NDArray[np.bool_]:
    """Which videos are, as far as anybody knows, the files that were scanned. wanted: rows of inputs; videos: row by row what
    their rows tell of them (SEEN), null where it is not known."""
    hashes = pc.equal(wanted["sha256"], videos["sha256"].cast(pa.string()))
    before = pc.coalesce(videos["listed_bytes"], videos["bytes"])  # Rows of older versions have `bytes` only.
    size = pc.fill_null(pc.equal(wanted["bytes"], before), True)
    time = pc.fill_null(pc.equal(wanted["modified"], videos["modified"]), True)
    return np.asarray(pc.coalesce(hashes, pc.and_(size, time)).to_numpy(zero_copy_only=False).astype(bool))


def _compare(workspace: Workspace, gathered: Gathered) -> None:
    """Lift the tombstones of what is back, and count what has changed."""
    report, back = gathered.report, list[pa.Table]()
    scanned = Lookup(workspace.videos, ["error_kind", *SEEN], encoded=["error_kind"])
    hashes = _known_hashes(workspace)
    for table in gathered.tables():
        table = _with_known_hashes(table, hashes)
        videos, there = scanned.of(table["video_id"])
        for uri in table["uri"].filter(from_numpy(there & ~same_file(table, videos))).to_pylist():
            report.changed.add(uri)
        buried = pc.fill_null(pc.equal(videos["error_kind"].cast(pa.string()), REMOVED), False)
        back.append(table.filter(buried).select(["video_id", "uri"]))
    if back and (returned := pa.concat_tables(back)).num_rows:
        rows = rows_of(workspace.videos, returned["video_id"])
        nothing = pa.nulls(rows.num_rows, pa.string())
        _replace(workspace, rows, {"status": pa.array(["ok"] * rows.num_rows), "error_kind": nothing, "error": nothing})
        for uri in returned["uri"].to_pylist():
            report.back.add(uri)


def _bury(workspace: Workspace, gathered: Gathered, access: Access, part: tuple[int, int] | None) -> None:
    """Note what is gone: among the inputs, and in the rows of videos that gave something."""
    places = {place.rstrip("/") for place in gathered.places}
    here = Index(np.concatenate([hashed(table["video_id"]) for table in gathered.tables()], axis=1))
    gone = list[pa.Table]()
    for known in workspace.inputs.scan():
        known = of_part(_like_inputs(known), part)
        known = known.filter(pc.and_(pc.is_null(known["error"]), pc.is_null(known["removed"])))
        known = known.filter(from_numpy(~here.has(known["video_id"])))
        gone.append(known.filter(pa.array([_may_be_gone(uri, places) for uri in known["uri"].to_pylist()], pa.bool_())))
    if not gone:
        return
    lost = pa.concat_tables(gone)
    there = _still_there({file_of(uri) for uri in lost["uri"].to_pylist()}, places, access)
    lost = lost.filter(
        pa.array([_in_place(uri, places) or file_of(uri) not in there for uri in lost["uri"].to_pylist()], pa.bool_())
    )
    if not lost.num_rows:
        return
    for uri in lost["uri"].to_pylist():
        gathered.report.gone.add(uri)
    now = datetime.now(UTC)
    # The tombstone is written first: the note among the inputs keeps the next run from looking for the file again.
    videos = rows_of(workspace.videos, lost["video_id"])
    videos = videos.filter(pc.equal(videos["status"], "ok"))
    n = videos.num_rows
    told = f"its file was gone on {now:%Y-%m-%d}; `longtake forget` erases what is left of it"
    error = {"status": pa.array(["error"] * n), "error_kind": pa.array([REMOVED] * n), "error": pa.array([told] * n)}
    _replace(workspace, videos, error)
    at = lost.column_names.index("removed")
    field = INPUTS.field("removed")
    workspace.inputs.append(lost.set_column(at, field, pa.array([now] * lost.num_rows, field.type)))


def _replace(workspace: Workspace, videos: pa.Table, columns: dict[str, pa.Array]) -> None:
    for name, values in columns.items():
        at = videos.column_names.index(name)
        videos = videos.set_column(at, videos.schema.field(name), values.cast(videos.schema.field(name).type))
    workspace.videos.append(videos)


def _in_place(uri: str, places: Collection[str]) -> bool:
    """Whether a video is of an archive or a table that was read now."""
    return container_of(uri) in places


def _may_be_gone(uri: str, places: Collection[str]) -> bool:
    """Whether there is no such video any more in a folder, archive or table that was read now; of a remote folder, whether it was
    read."""
    if _in_place(uri, places):
        return True
    path = local_path(file_of(uri))
    if path is None:
        return _place_of(file_of(uri), places) is not None
    if not any(str(folder) in places for folder in path.parents) or os.path.lexists(path):
        return False
    folder = next(folder for folder in path.parents if folder.exists())
    return str(folder) in places and _holds_something(folder)


def _holds_something(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(True for _ in entries)
    except OSError:
        return False


def _still_there(uris: Iterable[str], places: Collection[str], access: Access) -> set[str]:
    """Which of these remote files are in the folders that were read, though they are no inputs now. Each folder is listed once
    more; all are taken to be there in one that cannot be."""
    below: dict[str, set[str]] = {}
    for uri in uris:
        if (place := _place_of(uri, places)) is not None:
            below.setdefault(place, set()).add(uri)
    there: set[str] = set()
    for place, missing in below.items():
        try:
            filesystem, path = fsspec.core.url_to_fs(join_uri(place, access.of(place)))
            for name, _ in files_below(filesystem, path):
                uri, _ = split_uri(str(filesystem.unstrip_protocol(name)), access.reach.secret_keys)
                if uri in missing:
                    there.add(uri)
        except Exception:
            # Each client raises its own error. It is a fault of the world, and says nothing about the files.
            there |= missing
    return there


def _place_of(uri: str, places: Collection[str]) -> str | None:
    """The folder that was read and that a remote file lies in."""
    return next((above for above in _above(uri) if above in places), None) if is_uri(uri) else None


def _above(uri: str) -> Iterator[str]:
    while "/" in uri.partition("://")[2]:
        uri = uri.rpartition("/")[0]
        yield uri


def _like_inputs(rows: pa.Table) -> pa.Table:
    """Rows of inputs with all columns in order."""
    columns = [
        rows[field.name] if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type) for field in INPUTS
    ]
    return pa.Table.from_arrays(columns, schema=INPUTS)


def _with_hashes(table: pa.Table) -> pa.Table:
    """Rows with the SHA-256 of the files of this machine among them."""
    sizes = table["bytes"].is_valid().to_pylist()
    paths = [local_path(uri) if known else None for uri, known in zip(table["uri"].to_pylist(), sizes, strict=True)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = list(pool.map(lambda path: path and sha256_of(path), paths))
    field = INPUTS.field("sha256")
    return table.set_column(table.column_names.index(field.name), field, pa.array(digests, field.type))


def _known_hashes(workspace: Workspace) -> pa.Table | None:
    """What is known of files whose SHA-256 is."""
    tables = [
        rows.filter(pc.is_valid(rows["sha256"]))
        for rows in workspace.inputs.scan(["video_id", "bytes", "modified", "sha256"])
    ]
    known = pa.concat_tables(tables) if tables else None
    return known if known is not None and known.num_rows else None


def _with_known_hashes(table: pa.Table, before: pa.Table | None) -> pa.Table:
    """Rows of inputs with the SHA-256 that is known of a file as it is, where it was not asked for again."""
    if before is None:
        return table
    theirs = before.take(pc.index_in(table["video_id"], value_set=before["video_id"].combine_chunks()))
    same = pc.and_(pc.equal(table["bytes"], theirs["bytes"]), pc.equal(table["modified"], theirs["modified"]))
    known = pc.coalesce(table["sha256"], pc.if_else(same, theirs["sha256"], pa.scalar(None, pa.string())))
    return table.set_column(table.column_names.index("sha256"), INPUTS.field("sha256"), known)


def _texts(rows: pa.Table) -> pa.ChunkedArray:
    """Each row as one text: two are equal if the rows are."""
    plain = [
        pc.fill_null(rows[field.name].cast(pa.large_string()), "\0")
        for field in INPUTS
        if not pa.types.is_list(field.type)
    ]
    lengths = pc.fill_null(pc.list_value_length(rows["spans"]), 0)
    spans = np.full(rows.num_rows, "", object)
    with_some = np.flatnonzero(pc.greater(lengths, 0).to_numpy())
    for at, given in zip(with_some.tolist(), rows["spans"].take(from_numpy(with_some)).to_pylist(), strict=True):
        spans[at] = json.dumps(given, sort_keys=True)
    return pc.binary_join_element_wise(*plain, pa.array(spans, pa.large_string()), pa.scalar("\1", pa.large_string()))
