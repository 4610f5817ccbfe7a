"""Long films in pieces, as rows of work: which pieces are left, what is stored of each, and how they become one row of videos.

The first worker that opens a long film scans the first piece and notes the seams of the film in the manifest of pieces. The next
plan finds what is left of the film: the other pieces, each a row of its own for any worker, and, when each piece has its row in
the manifest, the join. If the worker of a piece is killed, the piece has no row, and so it alone is planned again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.errors import RowError, is_of_the_world
from longtake.curation.growth import SEEN, same_file
from longtake.curation.reading import seams
from longtake.curation.reading.judge import Judge, VideoScan
from longtake.curation.reading.seams import Piece, PieceScan, join, take_seconds
from longtake.curation.recipe import Recipe
from longtake.curation.running.faults import this_host, untried
from longtake.curation.stages.stage import of_part
from longtake.curation.workspace import Workspace
from longtake.manifests import schemas
from longtake.manifests.frames import FramesWriter, found_name, frames_name, piece_name, read_frames, read_strips
from longtake.manifests.keys import Index, Seen
from longtake.manifests.lookup import Lookup
from longtake.manifests.store import open_folder

# These columns of a batch of the scan say what a row asks for. The task is PIECE, JOIN, or null for a film that is not open yet.
# The scan_id names the row of work. A join has the pieces, in order: a worker that looked for them in the manifest would read all
# of it for each film.
TASK, SEAMS, NUMBER, SCAN, PIECES = "task", "seams", "piece", "scan_id", "pieces"
PIECE, JOIN = "piece", "join"
# A join has to know these columns of each piece.
_TOLD = ("piece_id", "number", "status", "error_kind", "error", "cpu_seconds")
# A row that was made says how much film was read for it, and how many seconds of CPU it took beside those of the film's pieces.
READ, SPENT = "seconds", "spent"
FIELDS = (
    pa.field(TASK, pa.string()),
    pa.field(SEAMS, pa.list_(pa.float64())),
    pa.field(NUMBER, pa.int32()),
    pa.field(SCAN, pa.string()),
    pa.field(PIECES, pa.list_(pa.struct([schemas.PIECES.field(name) for name in _TOLD]))),
)


@dataclass(slots=True)
class _Film:
    """A film of which pieces are stored. pieces: by their numbers."""

    scan_id: str
    seams: list[float]
    pieces: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def good(self) -> int:
        """How many pieces were scanned."""
        return sum(piece["status"] == "ok" for piece in self.pieces.values())


class Begun:
    """Films some of whose pieces are scanned, and not joined yet."""

    def __init__(self, workspace: Workspace) -> None:
        self._films: dict[tuple[str, str], dict[str, _Film]] = {}  # Video and protocol → scan → film.
        self._rows: dict[tuple[str, str], pa.Table] = {}  # Video and scan → the file that was scanned.
        names = [*_TOLD, "video_id", "scan_id", "clip_protocol", "seams", *SEEN]
        for table in workspace.pieces.scan(names) if workspace.pieces.parts() else ():
            for i, row in enumerate(table.to_pylist()):
                films = self._films.setdefault((row["video_id"], row["clip_protocol"]), {})
                film = films.setdefault(row["scan_id"], _Film(row["scan_id"], row["seams"]))
                film.pieces[row["number"]] = {name: row[name] for name in _TOLD}
                self._rows[row["video_id"], row["scan_id"]] = table.slice(i, 1)
        self._videos = Index.of(pa.chunked_array([pa.array(sorted({video for video, _ in self._films}), pa.string())]))

    def __bool__(self) -> bool:
        return bool(self._films)

    def has(self, videos: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """Which of these videos have pieces."""
        return np.asarray(self._videos.has(videos), np.bool_)

    def rows(
        self, wanted: pa.Table, protocols: list[str], spent: list[str | None], retry_errors: bool, tried: Seen | None
    ) -> tuple[pa.Table, pa.Table]:
        """The rows of work for films that have pieces, and the rows of inputs for films without a usable piece. wanted: rows of
        inputs. protocols: the protocol that is asked for, one per row. spent: the scan that is joined already, one per row."""
        work: list[pa.Table] = []
        fresh = []
        for i, video in enumerate(wanted["video_id"].to_pylist()):
            row = wanted.slice(i, 1)
            films = [
                film
                for scan, film in self._films.get((video, protocols[i]), {}).items()
                if scan != spent[i] and same_file(row, self._rows[video, scan])[0]
            ]
            film = max(films, key=lambda film: (film.good, film.scan_id), default=None)
            fresh.append(film is None)
            if film is not None:
                work += [_row(row, task, film, number) for task, number in _left(film, retry_errors, tried, row)]
        empty = with_fields(wanted.slice(0, 0))
        return pa.concat_tables([empty, *work]), wanted.filter(pa.array(fresh, pa.bool_()))


def with_fields(rows: pa.Table) -> pa.Table:
    """Rows of inputs as rows of work, each for a film that was not opened yet."""
    for one in FIELDS:
        rows = rows.append_column(one, pa.nulls(rows.num_rows, one.type))
    return rows


def _row(row: pa.Table, task: str, film: _Film, number: int) -> pa.Table:
    pieces = [film.pieces[number] for number in sorted(film.pieces)] if task == JOIN else None
    values = (task, film.seams, number, f"{film.scan_id}/{task if task == JOIN else number}", pieces)
    for one, value in zip(FIELDS, values, strict=True):
        row = row.append_column(one, pa.array([value], one.type))
    return row


def _left(film: _Film, retry_errors: bool, tried: Seen | None, row: pa.Table) -> Iterator[tuple[str, int]]:
    """The tasks that are left for a film: pieces by their numbers, or the join."""
    missing = [number for number in range(len(film.seams) + 1) if number not in film.pieces]
    again = [number for number, piece in film.pieces.items() if retry_errors and piece["status"] != "ok"]
    left = [number for number in missing + again if untried(_row(row, PIECE, film, number), tried).num_rows]
    if left:
        yield from ((PIECE, number) for number in left)
    elif not missing and untried(_row(row, JOIN, film, 0), tried).num_rows:
        yield JOIN, 0


def costs(rows: pa.Table, sizes: npt.NDArray[np.float64], whole_batch: float) -> npt.NDArray[np.float64]:
    """The costs of rows of work, by the sizes of their files in bytes. A piece costs at least `whole_batch`, so that it is a
    batch by itself; a join costs nothing."""
    task = rows[TASK].to_numpy(zero_copy_only=False)
    count = pc.fill_null(pc.list_value_length(rows[SEAMS]), 0).to_numpy().astype(np.float64) + 1
    shares = np.where(task == PIECE, np.maximum(sizes / count, whole_batch), sizes)
    return np.where(task == JOIN, 0.0, shares)


def seconds_read(row: Mapping[str, Any]) -> float:
    """The seconds of film that were read for a row that was made."""
    return float(row.get(READ, row.get("duration")) or 0.0)


def cpu_spent(row: Mapping[str, Any]) -> float:
    """The seconds of CPU that a row took, without those of pieces, which have rows of their own."""
    return float(row.get(SPENT, row["cpu_seconds"]))


def lasting(made: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows of pieces among the rows that were made. A piece that met a fault of the world gets no row."""
    parts = [row for row in made if is_part(row) and not is_of_the_world(row["error_kind"])]
    return pa.Table.from_pylist(parts, schema=schemas.PIECES)


def is_part(row: Mapping[str, Any]) -> bool:
    """Whether a row that was made is of a piece."""
    return "piece_id" in row


def scan_of(row: Mapping[str, Any]) -> str:
    """The scan of the film that a row of work belongs to."""
    return str(row[SCAN]).partition("/")[0] if row.get(SCAN) else uuid4().hex


def piece_of(row: Mapping[str, Any], recipe: Recipe) -> Piece:
    """The piece that a row of work asks for."""
    return Piece(tuple(row[SEAMS]), row[NUMBER], take_seconds(recipe.splitting))


def made(base: Mapping[str, Any], piece: Piece, scan_id: str) -> dict[str, Any]:
    """A row of the manifest of pieces. base: what the row of its video says of the file and of the scan."""
    return {
        **{name: base[name] for name in ("video_id", "uri", "status", "host", "clip_protocol", *SEEN)},
        "error_kind": base.get("error_kind"),
        "error": base.get("error"),
        "piece_id": piece_name(base["video_id"], scan_id, piece.number),
        "number": piece.number,
        "seams": list(piece.seams),
        "scan_id": scan_id,
    }


def store_found(workspace: str, video_id: str, scan_id: str, piece: PieceScan) -> None:
    """Store what was found in a piece, before its row is written. Raises StoreError, OSError."""
    name = found_name(piece_name(video_id, scan_id, piece.number))
    open_folder(workspace).write_whole(name, piece.dumped().encode())


def joined(workspace: Workspace, row: Mapping[str, Any], recipe: Recipe, all_scores: bool) -> tuple[VideoScan, float]:
    """The scan of a film out of its pieces, and the seconds of CPU that these took. Raises the error of a piece that has one,
    VideoError as a scan does, and SeamError if the film has to be scanned in one go."""
    rows: list[dict[str, Any]] = row[PIECES]
    for one in rows:
        if one["status"] != "ok":
            raise RowError(one["error_kind"], f"in piece {one['number'] + 1} of {len(rows)}: {one['error']}")
    names = [found_name(one["piece_id"]) for one in rows]
    try:
        scans = [PieceScan.loaded(workspace.folder.read(name).decode()) for name in names]
    except FileNotFoundError as error:
        raise seams.SeamError("what was found in a piece is not there any more") from error
    scan = join(scans, Judge(recipe, all_scores), apart=True)
    return scan, sum(one["cpu_seconds"] or 0.0 for one in rows)


def join_frames(
    workspace: Workspace, row: Mapping[str, Any], samples: set[str], strips: set[str], frames: FramesWriter
) -> None:
    """Copy samples and strips of clips, by their ids, out of the files of pieces. Raises SeamError if one is not there."""
    left = samples | strips
    for one in row[PIECES]:
        with suppress(FileNotFoundError):  # A piece without a clip that was seen has no file.
            stored = read_frames(workspace.path, one["piece_id"], sorted(left & samples))
            shown = read_strips(workspace.path, one["piece_id"], sorted(left & strips))
            for clip in {**shown, **stored}:  # Each sample has a strip, so that this is the order of the file.
                strip = shown.get(clip)
                if clip in stored:
                    frames.write(stored[clip], strip.jpeg if strip else None)
                elif strip:
                    frames.write_strip(clip, strip)
                left.discard(clip)
    if left:
        raise seams.SeamError("the frames of a piece are not there any more")


def clear(workspace: Workspace, part: tuple[int, int] | None) -> None:
    """Remove the pieces of films that are joined. The pieces of a film that ended in an error stay, so that only those that
    failed are tried again."""
    if not workspace.pieces.parts():
        return
    videos = Lookup(workspace.videos, ["status", "scan_id", "clip_protocol"], encoded=["status", "clip_protocol"])
    gone: list[str] = []
    for table in workspace.pieces.scan(["piece_id", "video_id", "scan_id", "clip_protocol"]):
        table = of_part(table, part)
        rows, _ = videos.of(table["video_id"])
        good = pc.fill_null(pc.equal(rows["status"].cast(pa.string()), "ok"), False)
        for name in ("scan_id", "clip_protocol"):
            same = pc.equal(rows[name].cast(pa.string()), table[name].cast(pa.string()))
            gone += table["piece_id"].filter(pc.and_(good, pc.fill_null(same, False))).to_pylist()
    for name in set(gone):
        for file in (frames_name(name), found_name(name)):
            with suppress(FileNotFoundError):
                workspace.folder.remove(file)
    workspace.pieces.compact(without=pa.array(sorted(set(gone)), pa.string()))


def unsplit(workspace: Workspace) -> int:
    """The number of films that are longer than a piece and were read in one."""
    count = 0
    for table in workspace.videos.scan(["video_id", "decoded_seconds", "pieces"]):
        long = pc.and_(pc.equal(table["pieces"], 1), pc.greater(table["decoded_seconds"], seams.PIECE_SECONDS))
        count += pc.sum(pc.fill_null(long, False)).as_py() or 0
    return count


UNSPLIT = (
    "{} longer than half an hour {} read in one piece, by one worker: no index leads into the middle of the file. To put it into "
    "another container helps, as with `ffmpeg -i FILE -c copy FILE.mkv`."
)


def failed(base: Mapping[str, Any], row: Mapping[str, Any], recipe: Recipe, error: RowError) -> dict[str, Any]:
    """The row of a piece that could not be scanned."""
    told = {**base, "status": "error", "error_kind": error.kind, "error": str(error), "host": this_host()}
    return made(told, piece_of(row, recipe), scan_of(row)) | {"cpu_seconds": 0.0}
