"""Erase videos on request: their frames, clips, captions, encoded files and rows, and their place in exported datasets.

What remains is that it was asked for: the id of the video, and when. A video with such a note is never taken up again. The
note is written first and the row of the video among the inputs goes last, so what a kill interrupted is seen and completed by
the next run.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from longtake.captioning.journal import ANSWERS, QUESTIONS
from longtake.curation.access import Reach
from longtake.curation.clip_table import rows_of
from longtake.curation.errors import SetupError
from longtake.curation.folders import LeftOut
from longtake.curation.gathered import Gathered
from longtake.curation.lists import local_file, stored
from longtake.curation.looking.preview import PAGE
from longtake.curation.looking.studio.marks import FOLDER as MARKS
from longtake.curation.looking.studio.marks import without_clips
from longtake.curation.recipe import Export, RecipeError
from longtake.curation.running.status import FOLDER as NOTES
from longtake.curation.stages.datasets import ENCODED
from longtake.curation.stages.export import refuse_links
from longtake.curation.stages.formats import NAMES, READ_CLIPS, formats_in, write_formats
from longtake.curation.workspace import Workspace
from longtake.manifests import ids
from longtake.manifests.dataset.shards import CHECKSUMS, finish_dataset, write_shards
from longtake.manifests.dataset.switch import OURS, beside, carry_over, changes_at_once, published, switch
from longtake.manifests.folder import Folder, is_uri, local_path
from longtake.manifests.lock import WorkspaceLock
from longtake.manifests.members import absolute, container_of, file_of
from longtake.manifests.schemas import FORGOTTEN
from longtake.manifests.store import Manifest
from longtake.manifests.uris import split_uri

_ID = re.compile(r"[0-9a-f]{32}")
_REASON = "forgotten on request"


@dataclass(slots=True)
class Forgotten:
    """What was erased. videos: their ids, those of videos that were never curated here among them. unknown: the names of
    these; before: the names of what was forgotten already. known: how many videos are here. clips, files, rows: how many.
    datasets: tier → clips that it lost. removed: tiers whose datasets went, since their index could not be read. without:
    tier → further clips that its dataset named and did not hold."""

    videos: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    known: int = 0
    clips: int = 0
    files: int = 0
    rows: int = 0
    datasets: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    without: dict[str, int] = field(default_factory=dict)


def named(workspace: Workspace, names: Sequence[str]) -> Forgotten:
    """What `names` stand for: ids of videos, paths or URIs; an archive or table stands for all videos in it. Erases nothing.
    Raises SetupError for the id of a clip, for a folder, and for what names nothing."""
    inputs = workspace.inputs.read(["video_id", "uri"])
    ids_by_uri = dict(zip(inputs["uri"].to_pylist(), inputs["video_id"].to_pylist(), strict=True))
    scanned = workspace.videos.read(["video_id", "uri"])
    ids_by_uri |= dict(zip(scanned["uri"].to_pylist(), scanned["video_id"].to_pylist(), strict=True))
    inside: dict[str, list[str]] = {}
    for uri, video_id in ids_by_uri.items():
        if (container := container_of(uri)) is not None:
            inside.setdefault(container, []).append(video_id)
    there, noted = set(ids_by_uri.values()), set(workspace.forgotten.read(["video_id"])["video_id"].to_pylist())
    forgotten = Forgotten()
    for name in names:
        if _ID.fullmatch(name):
            if name not in there:
                _refuse_clip(workspace, name)
            members, video_id = [], name
        else:
            identity = _known_as(_identity(name), ids_by_uri)
            _refuse_folder(name, identity, ids_by_uri)
            members, video_id = inside.get(identity, []), ids.video_id(identity)
        if video_id not in there and not members:
            (forgotten.before if video_id in noted else forgotten.unknown).append(name)
        forgotten.videos += [video_id, *members]
    forgotten.videos = list(dict.fromkeys(forgotten.videos))
    forgotten.known = len(there.intersection(forgotten.videos))
    forgotten.clips = len(_clips_of(workspace, pa.array(forgotten.videos, pa.string())))
    return forgotten


def forget(workspace: Workspace, names: Sequence[str]) -> Forgotten:
    """Erase videos. names: see `named`; one that was never curated here is noted, so that it never will be.

    Raises SetupError if this is no workspace or a name cannot be meant, WorkspaceBusy while a run writes to it, and
    StoreError or OSError where something cannot be erased: what is left is erased by the same call, or by the next run.
    """
    workspace.must_exist()
    with WorkspaceLock(workspace.path):
        erased = named(workspace, names)
        now = datetime.now(UTC)
        old = workspace.forgotten.read(["video_id"])["video_id"]
        notes = [{"video_id": video, "when": now} for video in set(erased.videos) - set(old.to_pylist())]
        workspace.forgotten.append(pa.Table.from_pylist(notes, schema=FORGOTTEN))
        workspace.forgotten.compact()
        _erase(workspace, pa.array(erased.videos, pa.string()), erased)
    return erased


def complete(workspace: Workspace) -> None:
    """Erase what a killed `forget` left, for the holder of the workspace's lock. Costs nothing where nothing is left."""
    if len(unfinished := left(workspace)):
        _erase(workspace, unfinished, Forgotten(unfinished.to_pylist()))


def left(workspace: Workspace) -> pa.Array:
    """The ids of videos that were to be erased, and are not wholly."""
    if not workspace.forgotten.parts():
        return pa.array([], pa.string())
    asked = workspace.forgotten.read(["video_id"])["video_id"].combine_chunks()
    columns = [
        table["video_id"].filter(pc.is_in(table["video_id"], value_set=asked))
        for table in workspace.inputs.scan(["video_id"])
    ]
    return pa.concat_arrays([pa.array([], pa.string()), *(chunk for column in columns for chunk in column.chunks)])


def leave_out(workspace: Workspace, gathered: Gathered) -> None:
    """Take videos that were to be forgotten out of what was gathered, and say so in its report."""
    if not workspace.forgotten.parts():
        return
    asked = set(workspace.forgotten.read(["video_id"])["video_id"].to_pylist())
    left_out = 0

    def stays(row: Mapping[str, str]) -> bool:
        container = container_of(row["uri"])
        return row["video_id"] not in asked and not (container is not None and ids.video_id(container) in asked)

    def staying(table: pa.Table) -> pa.Array:
        return pa.array([stays(row) for row in table.select(["video_id", "uri"]).to_pylist()], pa.bool_())

    for table in gathered.tables():
        for uri in table["uri"].filter(pc.invert(staying(table))).to_pylist():
            gathered.report.left_out.setdefault(_REASON, LeftOut()).add(uri)
            left_out += 1
    gathered.chosen.append(lambda table: table.filter(staying(table)))
    gathered.report.videos -= left_out


def _refuse_clip(workspace: Workspace, name: str) -> None:
    of = rows_of(workspace.clips, pa.array([name]), ["video_id"])["video_id"]
    if len(of):
        raise SetupError(f"{name} is a clip, and whole videos are forgotten; it is of the video {of[0]}")


def _identity(name: str) -> str:
    """How the video of that path or URI would be stored, as `curate` stores it."""
    if name.startswith("file:"):
        return local_file(name)
    if is_uri(name):
        return split_uri(name, Reach.of().secret_keys)[0]
    return stored(absolute(os.path.expanduser(name) if name.startswith("~/") else name))


def _known_as(identity: str, known: Mapping[str, str]) -> str:
    """The name by which a file of this machine was curated, of which `identity` may be another one (a link)."""
    path = local_path(identity)
    if identity in known or path is None or not path.is_file():
        return identity
    real = os.path.realpath(path)
    for uri in {file_of(uri) for uri in known}:
        if (other := local_path(uri)) is not None and os.path.realpath(other) == real:
            return uri
    return identity


def _refuse_folder(name: str, identity: str, ids_by_uri: Mapping[str, str]) -> None:
    """Raises SetupError for what can be no video: nothing, a folder, a pattern."""
    folder = f"{identity.rstrip('/')}/"
    inside = sum(uri.startswith(folder) for uri in ids_by_uri) if identity not in ids_by_uri else 0
    if not name.strip():
        raise SetupError("an empty name names no video; nothing was erased")
    if (
        inside
        or (name.endswith("/") and identity not in ids_by_uri)
        or ((path := local_path(identity)) is not None and path.is_dir())
    ):
        what = f"{name} is a folder of {inside} videos of this workspace" if inside else f"{name} is a folder"
        raise SetupError(f"{what}, and videos are forgotten by their own names; nothing was erased")
    if "*" in name and identity not in ids_by_uri:
        raise SetupError(
            f"{name}: no video of this workspace has that name, and a pattern is not looked up; nothing was erased"
        )


def _clips_of(workspace: Workspace, videos: pa.Array) -> set[str]:
    clip_ids = set[str]()
    for clips in workspace.clips.scan(["clip_id", "video_id"]):
        clip_ids.update(clips["clip_id"].filter(pc.is_in(clips["video_id"], value_set=videos)).to_pylist())
    nested = rows_of(workspace.videos, videos, ["clips"])["clips"]
    return clip_ids | {clip["clip_id"] for clips in nested.to_pylist() for clip in clips or ()}


def _erase(workspace: Workspace, videos: pa.Array, forgotten: Forgotten) -> None:
    """Erase videos whose notes are written. Every step may be repeated."""
    names, gone = set(videos.to_pylist()), _clips_of(workspace, videos)
    datasets = workspace.folder / "dataset"
    refuse_links(workspace, datasets.names())
    try:
        settings = workspace.recipe().export
    except RecipeError:  # The recipe may need a plug-in that is not installed, which is no reason to keep a video.
        settings = Export()
    for tier in sorted(datasets.names()):
        if tier.startswith("."):  # A killed export left this folder, and it may hold links to clips.
            (datasets / tier).remove_all()
        else:
            _out_of_dataset(datasets / tier, videos, settings, forgotten)
    forgotten.files += _removed(workspace.folder, [PAGE] if workspace.folder.exists(PAGE) else [])
    forgotten.files += _swept(workspace.folder / "frames", lambda name: _owner(name) not in names)
    without_clips(workspace.folder / MARKS, gone)
    (workspace.folder / NOTES).remove_all()  # The command of a run, or a batch that is late, may name a video.
    _compare_again(workspace, gone)
    staying = set(workspace.clips.read(["clip_id"])["clip_id"].to_pylist()) - gone
    for manifest in (workspace.captions, workspace.exports):
        there = manifest.read(["clip_id"])["clip_id"]
        # The rows of clips of an earlier scan may belong to these videos. They do not say so, and are never read.
        forgotten.rows += _compacted(manifest, there.filter(pc.invert(pc.is_in(there, value_set=_ids(staying)))))
    for kind in (ENCODED, ANSWERS, QUESTIONS):
        forgotten.files += _swept(
            workspace.folder / kind, lambda name: (owner := _owner(name)) is None or owner in staying
        )
    forgotten.clips = len(gone)
    forgotten.rows += _compacted(workspace.clips, _ids(gone))
    pieces = workspace.pieces.read(["piece_id", "video_id"])
    _compacted(workspace.pieces, pieces["piece_id"].filter(pc.is_in(pieces["video_id"], value_set=videos)))
    forgotten.rows += _compacted(workspace.videos, videos)
    forgotten.rows += _compacted(workspace.inputs, videos)


def _ids(names: Iterable[str]) -> pa.Array:
    return pa.array(sorted(names), pa.string())


def _compacted(manifest: Manifest, without: pa.Array | pa.ChunkedArray) -> int:
    """Compact a manifest without some keys; how many rows it lost."""
    before: int = manifest.read([manifest.key]).num_rows
    manifest.compact(without=without)
    after: int = manifest.read([manifest.key]).num_rows
    return before - after


def _removed(folder: Folder, names: Sequence[str]) -> int:
    for name in names:
        folder.remove(name)
    return len(names)


def _swept(folder: Folder, stays: Callable[[str], bool]) -> int:
    """Remove what lies in the folders of a folder and is not to stay, temporary files among it; how many files."""
    count = 0
    for inner in folder.names():
        place = folder / inner
        with suppress(NotADirectoryError):
            count += _removed(place, [name for name in place.names() if not stays(name)])
    return count


def _owner(name: str) -> str | None:
    """The clip or the video whose file this is, by the file's name, be it a temporary one or that of a piece."""
    match = _ID.search(name)
    return match[0] if match else None


def _compare_again(workspace: Workspace, gone: set[str]) -> None:
    """Captions that were counted as copies of erased ones are compared anew at the end of the next caption stage."""
    erased = _ids(gone)
    for captions in workspace.captions.scan():
        touched = captions.filter(pc.is_in(captions["copy_of"], value_set=erased))
        touched = touched.filter(pc.invert(pc.is_in(touched["clip_id"], value_set=erased)))
        for name in ("copies", "copy_of"):
            at = touched.column_names.index(name)
            touched = touched.set_column(at, name, pa.nulls(touched.num_rows, touched[name].type))
        workspace.captions.append(touched)


def _out_of_dataset(place: Folder, videos: pa.Array, settings: Export, forgotten: Forgotten) -> None:
    """Write a dataset anew without the clips of some videos."""
    tier = place.uri.rpartition("/")[2]
    with suppress(NotADirectoryError):  # The user's own file lies in this place.
        if (old := published(place)) is None:
            if not {"shards", CHECKSUMS}.isdisjoint(place.names()):
                _remove_dataset(place)
                forgotten.removed.append(tier)
            return
        _rewrite(place, old, videos, settings, forgotten, tier)


def _remove_dataset(place: Folder) -> None:
    """Remove what a dataset wrote into its folder: nothing tells what of it is of the videos, and it can be exported again."""
    for name in {*OURS, *NAMES}.intersection(place.names()):
        try:
            (place / name).remove_all()
        except NotADirectoryError:
            place.remove(name)


def _rewrite(place: Folder, old: pa.Table, videos: pa.Array, settings: Export, forgotten: Forgotten, tier: str) -> None:
    mine = pc.is_in(old["video_id"], value_set=videos)
    lost = int(pc.sum(mine).as_py() or 0)
    if not lost:
        return
    forgotten.datasets[tier] = lost
    ours = (*OURS, *NAMES)
    formats = formats_in(place)
    table = old.filter(pc.invert(mine))
    with beside(place) as folder:
        at_once = changes_at_once(place)
        if at_once:
            carry_over(place, folder, ours)
        # Elsewhere the clips that stay are where they are to be, and do not come through this machine.
        here = at_once or not READ_CLIPS.isdisjoint(formats)
        there = set() if here else {entry.name for entry in place.entries()}

        def stays(path: str) -> bool:
            if not here:
                return path in there
            try:
                Folder(folder).link(place, path, path)
            except FileNotFoundError:
                return False
            return True

        clips = {path: (place, path) for path in table["path"].to_pylist() if stays(path)}
        if missing := table.num_rows - len(clips):  # Files were removed by hand; the next export brings them back.
            forgotten.without[tier] = missing
        table = table.filter(pc.is_in(table["path"], value_set=pa.array(clips, pa.string())))
        mark = None if at_once else hashlib.sha256("".join(table["sha256"].to_pylist()).encode()).hexdigest()[:8]
        write_shards(table, folder, settings.rows_per_shard, mark)
        write_formats(table, folder, formats, settings.clips_per_tar)
        with suppress(FileNotFoundError):
            Folder(folder).write_whole("README.md", place.read("README.md") + _note(lost))
        finish_dataset(folder, clips_elsewhere=not here)
        switch(folder, place, at_once, ours, clips)


def _note(lost: int) -> bytes:
    clips = "1 clip was" if lost == 1 else f"{lost} clips were"
    return (
        f"\n## Erased on request\n\n{datetime.now(UTC):%Y-%m-%d}: {clips} erased after this card was written, so the "
        "dataset has fewer clips than the counts above say. The next export writes the card anew.\n"
    ).encode()
