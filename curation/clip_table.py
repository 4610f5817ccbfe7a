"""From nested clips to the clips manifest, and from manifests to the table that verdicts are computed on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.recipe import Recipe
from curation.workspace import Workspace
from filters.base import Needs
from filters.gates import ClipScores
from manifests import schemas


def explode(videos: pa.Table) -> pa.Table:
    """The clips nested in rows of the videos manifest, as rows of the clips manifest."""
    nested = videos["clips"].combine_chunks()
    owner = pc.list_parent_indices(nested)
    clips = pc.list_flatten(nested)
    n = len(clips)
    of_video = {name: videos[name].combine_chunks().take(owner) for name in ("video_id", "uri", "scan_id", "licence", "origin")}
    field = {f.name: pc.struct_field(clips, f.name) for f in schemas.CLIP_IN_VIDEO}
    columns: dict[str, pa.Array] = {
        "clip_id": field["clip_id"],
        **of_video,
        "start": field["start"],
        "end": field["end"],
        "status": field["status"],
        "error_kind": field["error_kind"],
        "error": field["error"],
        "has_frames": field["has_frames"],
        "source_caption": field["caption"],
        "source_sub_captions": field["sub_captions"],
    }
    scores = pc.list_flatten(field["scores"])
    clip = pc.list_parent_indices(field["scores"]).to_numpy(zero_copy_only=False)
    names, values, details, protocols = (
        pc.struct_field(scores, key) for key in ("name", "value", "detail", "protocol")
    )
    stored: list[dict[str, str]] = [{} for _ in range(n)]
    for at, name, protocol in zip(clip.tolist(), names.to_pylist(), protocols.to_pylist(), strict=True):
        stored[at][name] = protocol
    columns["protocols"] = pa.array([dump_protocols(p) for p in stored], pa.string())
    fields = list(schemas.CLIPS)
    for name in pc.unique(names).to_pylist():
        here = np.flatnonzero(pc.equal(names, name).to_numpy(zero_copy_only=False))
        source = np.full(n, -1)
        source[clip[here]] = here
        indices = pa.array(source, mask=source < 0)
        columns[name], columns[f"{name}_detail"] = values.take(indices), details.take(indices)
        fields += schemas.score_fields(name)
    return pa.table([columns[f.name] for f in fields], schema=pa.schema(fields))


def dump_protocols(protocols: Mapping[str, str]) -> str:
    """As it is stored: JSON with sorted keys, so that equal ones are equal strings."""
    return json.dumps(protocols, sort_keys=True, separators=(",", ":"))


def rows_table(rows: Iterable[Mapping[str, Any]], base: pa.Schema, filters: Iterable[str]) -> pa.Table:
    """Rows of a manifest with score columns for `filters`."""
    fields = [*base, *(field for name in filters for field in schemas.score_fields(name))]
    return pa.Table.from_pylist(list(rows), schema=pa.schema(fields))


def score_columns(table: pa.Table) -> list[str]:
    """The filters that a clips table has columns for."""
    return [name.removesuffix("_detail") for name in table.column_names if name.endswith("_detail")]


def sync_clips(workspace: Workspace, recipe: Recipe) -> None:
    """Bring the clips manifest up to the videos manifest: clips of new scans in, those of superseded scans out.

    Scores that the score stage measured on a clip stay with it when its video is scanned again: the frames are the
    same. Another anti-join, so it may be killed and repeated.
    """
    videos = workspace.videos.read(["video_id", "scan_id"])
    clips = workspace.clips.read(["clip_id", "scan_id"])
    stale = pc.invert(pc.is_in(clips["scan_id"], value_set=videos["scan_id"]))
    fresh = pc.invert(pc.is_in(videos["scan_id"], value_set=clips["scan_id"]))
    outdated = clips["clip_id"].filter(stale)
    if pc.any(fresh).as_py():
        scans = videos["scan_id"].filter(fresh)
        whole = workspace.videos.read(["video_id", "uri", "scan_id", "licence", "origin", "clips"])
        new = explode(whole.filter(pc.is_in(whole["scan_id"], value_set=scans)))
        if new.num_rows:
            workspace.clips.append(_with_old_scores(workspace, recipe, new))
            outdated = outdated.filter(pc.invert(pc.is_in(outdated, value_set=new["clip_id"])))
    workspace.clips.compact(without=outdated)


def _with_old_scores(workspace: Workspace, recipe: Recipe, new: pa.Table) -> pa.Table:
    later = list(recipe.needing(Needs.FRAMES))
    old = workspace.clips.read()
    old = old.filter(pc.is_in(old["clip_id"], value_set=new["clip_id"]))
    names = [name for name in score_columns(old) if name in later]
    if not old.num_rows or not names:
        return new
    known = {row["clip_id"]: row for row in old.to_pylist()}
    rows = new.to_pylist()
    for row in rows:
        before = known.get(row["clip_id"])
        for name in names if before else []:
            assert before is not None
            had = json.loads(before["protocols"] or "{}")
            if before[name] is not None and had.get(name) == recipe.built[name].protocol:
                row[name], row[f"{name}_detail"] = before[name], before[f"{name}_detail"]
                row["protocols"] = dump_protocols({**json.loads(row["protocols"]), name: had[name]})
    return rows_table(rows, schemas.CLIPS, dict.fromkeys([*score_columns(new), *names]))


def clip_scores(workspace: Workspace, recipe: Recipe) -> ClipScores:
    """All clips with all their scores, those on captions joined in: what gates are applied to.

    A clip whose captions could not be written has status `error`, kind `caption`.
    """
    clips = workspace.clips.read()
    captions = workspace.captions.read()
    on_captions = recipe.needing(Needs.CAPTIONS)
    if not captions.num_rows or not clips.num_rows:
        return ClipScores(clips, recipe.built)
    at = pc.index_in(clips["clip_id"], value_set=captions["clip_id"].combine_chunks())
    current = pc.equal(captions["scan_id"].take(at), clips["scan_id"])
    at = pc.if_else(current, at, pa.scalar(None, pa.int32()))
    status = captions["status"].take(at)
    failed = pc.fill_null(pc.and_(pc.equal(clips["status"], "ok"), pc.not_equal(status, "ok")), False)
    table = clips
    for name, value in (("status", "error"), ("error_kind", "caption")):
        table = _replaced(table, name, pc.if_else(failed, pa.scalar(value), table[name]))
    table = _replaced(table, "error", pc.if_else(failed, captions["reason"].take(at), table["error"]))
    for name in on_captions:
        for field in schemas.score_fields(name):
            if field.name in captions.column_names:
                table = table.append_column(field, captions[field.name].take(at).cast(field.type))
    theirs = captions["protocols"].take(at)
    table = _replaced(table, "protocols", _merged(table["protocols"], theirs))
    return ClipScores(table, recipe.built)


def _replaced(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def _merged(a: pa.ChunkedArray, b: pa.ChunkedArray) -> pa.ChunkedArray:
    """Two columns of JSON objects into one. There are few different ones."""
    pairs = pc.binary_join_element_wise(pc.fill_null(a, "{}"), pc.fill_null(b, "{}"), "\n").combine_chunks()
    encoded = pc.dictionary_encode(pairs)
    merged = []
    for text in encoded.dictionary.to_pylist():
        first, _, second = text.partition("\n")
        merged.append(dump_protocols({**json.loads(first), **json.loads(second)}))
    return pa.chunked_array([pa.array(merged, pa.string()).take(encoded.indices)])
