"""From nested clips to the clips manifest, and from manifests to the table that verdicts are computed on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.captioning.chat import CaptionerFault
from longtake.captioning.registry import make_captioner
from longtake.curation.access import ACCESS, NEEDS
from longtake.curation.errors import SetupError
from longtake.curation.orphans import Orphans, owner_columns, without_orphans
from longtake.curation.recipe import Recipe
from longtake.curation.stages.stage import of_part
from longtake.curation.workspace import Workspace
from longtake.filters.base import Filter, Needs
from longtake.filters.registry import samples_time
from longtake.filters.verdicts import ClipScores, standard_error_of
from longtake.manifests import schemas
from longtake.manifests.arrow import from_numpy
from longtake.manifests.keys import Hashes, Index, hashed
from longtake.manifests.lookup import Lookup
from longtake.manifests.store import Manifest


def explode(videos: pa.Table) -> pa.Table:
    """The clips nested in rows of the videos manifest, as rows of the clips manifest."""
    nested = videos["clips"].combine_chunks()
    owner = pc.list_parent_indices(nested)
    clips = pc.list_flatten(nested)
    n = len(clips)
    of_video = {name: videos[name].combine_chunks().take(owner) for name in _OF_VIDEO}
    field = {f.name: pc.struct_field(clips, f.name) for f in schemas.CLIP_IN_VIDEO}
    columns: dict[str, pa.Array] = {
        "clip_id": field["clip_id"],
        **of_video,
        "film_fps": videos["fps"].combine_chunks().take(owner),
        "start": field["start"],
        "end": field["end"],
        "status": field["status"],
        "error_kind": field["error_kind"],
        "error": field["error"],
        "has_frames": field["has_frames"],
        "has_strip": field["has_strip"],
        "source_caption": field["caption"],
        "source_sub_captions": field["sub_captions"],
        "source_captions": field["captions"],
        **{name: field[name] for name in schemas.SHOWN},
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
        indices = from_numpy(source, source >= 0)
        columns[name], columns[f"{name}_detail"] = values.take(indices), details.take(indices)
        fields += schemas.score_fields(name)
        if samples_time(name):
            field_ = schemas.standard_error_field(name)
            by_mean = pc.ends_with(protocols.take(indices), "/mean").fill_null(False).to_numpy(zero_copy_only=False)
            errors = standard_errors(columns[f"{name}_detail"])
            columns[field_.name] = from_numpy(errors, by_mean & ~np.isnan(errors))
            fields.append(field_)
    return pa.table([columns[f.name] for f in fields], schema=pa.schema(fields))


def standard_errors(details: pa.ListArray) -> npt.NDArray[np.float64]:
    """`filters.base.standard_error` of each list, nan for those of fewer than three values and for null."""
    flat = pc.list_flatten(details).to_numpy(zero_copy_only=False)
    owner = pc.list_parent_indices(details).to_numpy(zero_copy_only=False)
    count = np.bincount(owner, minlength=len(details))
    same = owner[1:] == owner[:-1]
    squares = np.bincount(owner[1:][same], np.diff(flat)[same] ** 2, len(details))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count >= 3, np.sqrt(squares / (2.0 * (count - 1) * count)), np.nan)


def dump_protocols(protocols: Mapping[str, str]) -> str:
    """As it is stored: JSON with sorted keys, so that equal ones are equal strings."""
    return json.dumps(protocols, sort_keys=True, separators=(",", ":"))


def rows_table(rows: Iterable[Mapping[str, Any]], base: pa.Schema, filters: Iterable[str]) -> pa.Table:
    """Rows of a manifest with score columns for `filters`, and those of schemas.FURTHER that some row has."""
    rows = list(rows)
    names = list(filters)
    fields = [*base, *(field for name in names for field in schemas.score_fields(name))]
    errors = [schemas.standard_error_field(name) for name in names]
    fields += [field for field in errors if any(row.get(field.name) is not None for row in rows)]
    fields += [field for field in schemas.FURTHER if any(row.get(field.name) is not None for row in rows)]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


STORED = "stored_at"  # The time of the part that holds a clip's row.
CARRIED = (ACCESS, NEEDS)  # Columns that travel with clips from stage to stage and are stored nowhere.


def carried(table: pa.Table, rows: Sequence[Mapping[str, Any]], batch: pa.Table) -> pa.Table:
    """The clips of a batch as they are stored, for the next stage: without embeddings, and with what travels with them. rows:
    of the batch, those of the table in its order."""
    table = table.drop_columns([field.name for field in schemas.HEAVY if field.name in table.column_names])
    for name in CARRIED:
        if name in batch.column_names:
            values = pa.array([row[name] for row in rows], batch.schema.field(name).type)
            table = table.append_column(name, values)
    return table


def with_embeddings(workspace: Workspace, clips: pa.Table) -> pa.Table:
    """`clips` with the columns of embeddings, null where there are none: rows that are written again must carry them."""
    known = rows_of(workspace.clips, clips["clip_id"], ["clip_id"], optional=[field.name for field in schemas.HEAVY])
    at = pc.index_in(clips["clip_id"], value_set=known["clip_id"].combine_chunks())
    for field in schemas.HEAVY:
        there = field.name in known.column_names
        values = known[field.name].take(at) if there else pa.nulls(clips.num_rows, field.type)
        clips = clips.append_column(field, values)
    return clips


def with_new_score(clips: pa.Table, name: str, values: npt.NDArray[np.float64], protocol: str) -> pa.Table:
    """`clips` with a score that is a single value each, nan for none, in place of the one that they had. By columns: there may be
    hundreds of thousands."""
    scored = ~np.isnan(values)
    scores = pa.array(values, mask=~scored)
    offsets = np.concatenate([[0], np.cumsum(scored)]).astype(np.int32)
    details = pa.ListArray.from_arrays(pa.array(offsets, mask=np.append(~scored, False)), scores.drop_null())
    texts = pc.dictionary_encode(pc.fill_null(clips["protocols"].cast(pa.string()), "{}").combine_chunks())
    both = []
    for now in ({}, {name: protocol}):
        for text in texts.dictionary.to_pylist():
            others = {key: stored for key, stored in json.loads(text).items() if key != name}
            both.append(dump_protocols(others | now))
    protocols = pa.array(both).take(pa.array(texts.indices.to_numpy() + np.where(scored, len(texts.dictionary), 0)))
    for key, column in (("protocols", protocols), (name, scores), (f"{name}_detail", details)):
        clips = with_column(clips, key, column)
    return clips


def with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    """`table` with this column in place of the one of its name, or as its last."""
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, column)
    return table.append_column(name, column)


def embedding_matrix(workspace: Workspace, clips: pa.Table) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]]:
    """The embeddings of clips, float16 [known, dim], and which of the clips have one, bool [clips]. clips: as `with_embeddings`
    gives them, or without such a column. Raises SetupError if the embeddings are of different sizes."""
    if schemas.EMBEDDING.name not in clips.column_names:
        return np.zeros((0, 1), np.float16), np.zeros(clips.num_rows, bool)
    column = clips[schemas.EMBEDDING.name]
    known = column.is_valid().to_numpy().astype(bool)
    column = column.drop_null().combine_chunks()
    if not len(column):
        return np.zeros((0, 1), np.float16), known
    sizes = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(sizes) > 1:
        raise SetupError(f"{workspace.clips.path}: embeddings of different sizes {sizes} cannot be compared")
    return column.flatten().to_numpy().reshape(-1, sizes[0]), known


def score_columns(table: pa.Table) -> list[str]:
    """The filters that a clips table has columns for."""
    return [name.removesuffix("_detail") for name in table.column_names if name.endswith("_detail")]


def clip_row(workspace: Workspace, clips: pa.Table, clip_id: str) -> int:
    """The row of the clip with this id, or whose id alone begins so. Raises SetupError."""
    ids = clips["clip_id"]
    at = np.flatnonzero(pc.starts_with(ids, clip_id).to_numpy(zero_copy_only=False))
    if not at.size:
        raise SetupError(f"no clip is called {clip_id!r} in {workspace.path}")
    if at.size > 1:
        some = ", ".join(ids[int(row)].as_py() for row in at[:3])
        raise SetupError(
            f"{at.size} clips begin with {clip_id!r} in {workspace.path}: {some}{', …' if at.size > 3 else ''}; "
            "give more digits of the id"
        )
    return int(at[0])


def sync_clips(workspace: Workspace, recipe: Recipe, part: tuple[int, int] | None = None) -> None:
    """Bring the clips manifest up to the videos manifest: clips of new scans in, those of superseded scans out. part: only of
    its videos, since others are at work on those of other parts.

    Scores that the score stage measured on a clip stay with it when its video is scanned again: the frames are the
    same. Another anti-join, so it may be killed and repeated.
    """
    scans = _scans(workspace.videos, part)
    fresh = Index(scans[:, Index(_scans(workspace.clips, part)).find_hashed(scans) < 0])
    if len(fresh):
        there = Index(workspace.clips.keys())
        for whole in workspace.videos.scan([*_OF_VIDEO, "fps", "clips"], rows=_VIDEOS):
            whole = whole.filter(from_numpy(fresh.has(whole["scan_id"])))
            if whole.num_rows and (new := explode(whole)).num_rows:
                again = new.filter(from_numpy(there.has(new["clip_id"])))
                workspace.clips.append(_with_old_scores(workspace, recipe, new, again["clip_id"]))
        del there
    current = Index(scans)
    outdated = [pa.array([], pa.string())]
    for clips in workspace.clips.scan(["clip_id", "video_id", "scan_id"]):
        stale = clips.filter(from_numpy(~current.has(clips["scan_id"])))
        outdated += of_part(stale, part)["clip_id"].chunks
    workspace.clips.compact(without=pa.chunked_array(outdated))


_OF_VIDEO = ["video_id", "uri", "host", "scan_id", "clip_protocol", "licence", "origin", "clock_restarts"]
_VIDEOS = 2000  # Videos whose clips are made at a time: some ten thousand clips of a few KB each.


def _scans(manifest: Manifest, part: tuple[int, int] | None) -> Hashes:
    """The scans that a manifest holds rows of, as numbers, each once."""
    hashes = [np.zeros((2, 0), np.uint64)]
    for table in manifest.scan(["video_id", "scan_id", *(["status"] if manifest.key == "video_id" else [])]):
        if "status" in table.column_names:  # The row of a video that is gone keeps its clips, which do not count.
            table = table.filter(pc.equal(table["status"], "ok"))
        scans = hashed(of_part(table, part)["scan_id"])
        # The clips of a video mostly stand together.
        first = np.append(np.ones(min(1, scans.shape[1]), bool), (scans[:, 1:] != scans[:, :-1]).any(axis=0))
        hashes.append(scans[:, first])
    return np.concatenate(hashes, axis=1)


def rows_of(
    manifest: Manifest, keys: pa.Array | pa.ChunkedArray, columns: Sequence[str] | None = None, **more: Any
) -> pa.Table:
    """The rows of a manifest with these keys, read a slice at a time. more: as in `Manifest.scan`."""
    wanted = Index.of(keys)
    named = None if columns is None else list(dict.fromkeys([manifest.key, *columns]))
    tables = [table.filter(from_numpy(wanted.has(table[manifest.key]))) for table in manifest.scan(named, **more)]
    return pa.concat_tables(tables) if tables else manifest.read(named, **more)


UNDER_SCAN = ["clip_id", "scan_id"]


class CurrentClips:
    """The clips that are there, each under the scan that it is of: 16 bytes a clip. Rows of captions and exports stay when a
    film is scanned anew or is gone."""

    def __init__(self, clips: Iterable[pa.Table]) -> None:
        """clips: with the columns UNDER_SCAN."""
        self._index = Index(np.concatenate([np.zeros((2, 0), np.uint64), *map(_under_scan, clips)], axis=1))

    @classmethod
    def of(cls, workspace: Workspace) -> CurrentClips:
        return cls(workspace.clips.scan(UNDER_SCAN))

    def among(self, rows: pa.Table) -> pa.Table:
        """The rows that are of such a clip. rows: with the columns UNDER_SCAN."""
        return rows.filter(from_numpy(self._index.find_hashed(_under_scan(rows)) >= 0))


def _under_scan(rows: pa.Table) -> Hashes:
    return hashed(pc.binary_join_element_wise(*(rows[name].cast(pa.string()) for name in UNDER_SCAN), " "))


def _with_old_scores(workspace: Workspace, recipe: Recipe, new: pa.Table, known_before: pa.ChunkedArray) -> pa.Table:
    """`new`, with the scores of the score stage that those of its clips have that were known before."""
    later = list(recipe.needing(Needs.FRAMES))
    if not later or not len(known_before):
        return new
    old = rows_of(workspace.clips, known_before)
    names = [name for name in score_columns(old) if name in later]
    if not old.num_rows or not names:
        return new
    missing = {name: _lost(ClipScores(old, recipe.built), name) for name in names}
    known = {
        row["clip_id"]: (row, {name for name in names if not missing[name][i]})
        for i, row in enumerate(with_embeddings(workspace, old).to_pylist())
    }
    rows = new.to_pylist()
    for row in rows:
        before, measured = known.get(row["clip_id"], (None, set()))
        if before is None or _sampling(before) != _sampling(row):  # The scores are of other frames.
            continue
        had = json.loads(before["protocols"] or "{}")
        for name in names:
            if name in measured:
                row[name], row[f"{name}_detail"] = before[name], before[f"{name}_detail"]
                row[standard_error_of(name)] = before.get(standard_error_of(name))
                row |= {field.name: before[field.name] for field in schemas.HEAVY}
                row["protocols"] = dump_protocols({**json.loads(row["protocols"]), name: had[name]})
    return rows_table(rows, schemas.CLIPS, dict.fromkeys([*score_columns(new), *names]))


def _lost(scores: ClipScores, name: str) -> npt.NDArray[np.bool_]:
    """Clips whose score would be measured anew."""
    return np.asarray(scores.missing(name) & ~scores.settled(name), np.bool_)


def _sampling(clip: Mapping[str, Any]) -> str:
    """The part of a clip's protocol that its frames depend on."""
    return str(clip["clip_protocol"]).partition("+")[0]


def clip_scores(workspace: Workspace, recipe: Recipe, columns: Sequence[str] | None = None) -> ClipScores:
    """All clips with their scores, those on captions joined in: what gates are applied to.

    columns: of the clips manifest, wanted besides those that gates look at; None: all there are. A clip whose captions
    could not be written has status `error`, kind `caption`. Captions by another captioner than the recipe's, other
    prompts or another scan count as not there.
    """
    if columns is None:
        return _joined(workspace, recipe, without_orphans(workspace.clips.read(), recipe), recipe.filters)
    clips = _read_clips(workspace, recipe, columns, ())
    scores = _joined(workspace, recipe, clips, ())
    if details := scores.details_needed():
        clips = _read_clips(workspace, recipe, columns, details)
        scores = _joined(workspace, recipe, clips, details)
    current = without_orphans(clips, recipe)
    return scores if current is clips else _joined(workspace, recipe, current, details)


def score_slices(workspace: Workspace, recipe: Recipe, columns: Sequence[str] | None = None) -> Iterator[ClipScores]:
    """What `clip_scores` gives, a slice of the clips at a time: memory for one, and some 100 bytes for each caption."""
    for (scores,) in slices_of_each(workspace, [recipe], columns):
        yield scores


def slices_of_each(
    workspace: Workspace,
    recipes: Sequence[Recipe],
    columns: Sequence[str] | None = None,
    details: Sequence[str] | None = None,
) -> Iterator[list[ClipScores]]:
    """What `score_slices` gives for each recipe, of the same clips: each slice is read once, whatever the number of recipes.
    details: the filters whose details are read; None: those that some verdict looks at, for which all is read once before."""
    needed = list(_details_needed(workspace, recipes)) if details is None else list(details)
    built = _interned(recipes)
    kinds: dict[str, list[Recipe]] = {}
    for recipe in recipes:
        kinds.setdefault(_captioner(recipe), []).append(recipe)
    captions = {
        kind: _WrittenCaptions(
            workspace, alike, needed if columns is not None else [n for r in alike for n in r.filters]
        )
        for kind, alike in kinds.items()
    }
    orphans = [Orphans(workspace, recipe) for recipe in recipes]
    asked = {} if columns is None else _asked_by_each(recipes, columns, needed)
    for clips in workspace.clips.scan(**asked):
        joined: dict[str, ClipScores] = {}
        views = []
        for recipe, filters, repeated in zip(recipes, built, orphans, strict=True):
            kind = _captioner(recipe)
            if repeated.left:
                views.append(captions[kind].joined(repeated.removed(clips), recipe, filters))
            elif kind in joined:
                views.append(joined[kind].under(filters))
            else:
                joined[kind] = captions[kind].joined(clips, recipe, filters)
                views.append(joined[kind])
        yield views


def _captioner(recipe: Recipe) -> str:
    """Captions of one count for all recipes that name it."""
    return json.dumps([recipe.captioning.captioner, recipe.captioning.settings], sort_keys=True, default=str)


def _interned(recipes: Sequence[Recipe]) -> list[dict[str, Filter[Any]]]:
    """The filters of each recipe; two that read scores alike are the same object."""
    known: dict[str, list[Filter[Any]]] = {}
    return [
        {name: _same(known.setdefault(name, []), each) for name, each in recipe.built.items()} for recipe in recipes
    ]


def _same(known: list[Filter[Any]], filter_: Filter[Any]) -> Filter[Any]:
    # The protocols of these filters depend on more than their settings.
    if not (filter_.asks or filter_.reads_embeddings):
        for other in known:
            if (type(other), other.settings, other.crop) == (type(filter_), filter_.settings, filter_.crop):
                return other
    known.append(filter_)
    return filter_


def _details_needed(workspace: Workspace, recipes: Sequence[Recipe]) -> dict[str, None]:
    """The filters whose details some verdict looks at."""
    needed: dict[str, None] = {}
    for clips in workspace.clips.scan(**_asked_by_each(recipes, (), ())):
        for recipe in recipes:
            needed |= dict.fromkeys(ClipScores(clips, recipe.built).details_needed())
    named = dict.fromkeys(name for recipe in recipes for name in recipe.needing(Needs.CAPTIONS))
    fields = [schemas.score_fields(name)[0].name for name in named]
    for captions in workspace.captions.scan(["protocols"], optional=fields, encoded=["protocols"]) if fields else ():
        captions = captions.append_column("status", pa.nulls(captions.num_rows, pa.string()))
        for recipe in recipes:
            needed |= dict.fromkeys(ClipScores(captions, recipe.built).details_needed())
    return needed


def _asked_by_each(recipes: Sequence[Recipe], columns: Sequence[str], details: Iterable[str]) -> dict[str, Any]:
    """What `_asked` says of each recipe, together."""
    each = [_asked(recipe, columns, details) for recipe in recipes]
    return {key: list(dict.fromkeys(name for asked in each for name in asked[key])) for key in each[0]}


class _WrittenCaptions:
    """What `written_captions` says of clips, found by clip."""

    def __init__(self, workspace: Workspace, recipes: Sequence[Recipe], details: Sequence[str]) -> None:
        """recipes: that name the same captioner."""
        self.fields = []
        for name in dict.fromkeys(name for recipe in recipes for name in recipe.needing(Needs.CAPTIONS)):
            value, detail = schemas.score_fields(name)
            self.fields += [value, detail] if name in details else [value]
        protocol, self.fault = _captioner_protocol(recipes[0])
        self.lookup = Lookup(
            workspace.captions,
            ["scan_id", "status", "reason", "error_kind", "host", "protocols", "caption_protocol"],
            optional=[field.name for field in self.fields],
            encoded=["status", "reason", "error_kind", "host", "protocols", "caption_protocol"],
            only=None if protocol is None else lambda rows: _by_captioner(rows, protocol),
        )

    def joined(self, clips: pa.Table, recipe: Recipe, filters: Mapping[str, Filter[Any]]) -> ClipScores:
        """`clips` as a recipe reads them, whose filters these are."""
        unchecked = dict.fromkeys(recipe.needing(Needs.CAPTIONS), self.fault) if self.fault else {}
        if len(self.lookup):
            clips = with_captions(clips, _narrow(self.lookup.among(clips["clip_id"])), self.fields)
        return ClipScores(clips, filters, unchecked)


def _narrow(table: pa.Table) -> pa.Table:
    """A few rows of a Lookup, as the manifest has them."""
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type) or pa.types.is_large_string(field.type):
            table = table.set_column(i, field.name, table[field.name].cast(pa.string()))
    return table


def _read_clips(workspace: Workspace, recipe: Recipe, columns: Sequence[str], details: Iterable[str]) -> pa.Table:
    return workspace.clips.read(**_asked(recipe, columns, details))


def _asked(recipe: Recipe, columns: Sequence[str], details: Iterable[str]) -> dict[str, Any]:
    """What of clips is read for verdicts, and these columns."""
    on_clips = [name for name in recipe.built if name not in recipe.needing(Needs.CAPTIONS)]
    return {
        "columns": list(dict.fromkeys(["clip_id", "status", "error_kind", "error", "scan_id", "protocols", *columns])),
        "optional": [
            *on_clips,
            *(standard_error_of(name) for name in on_clips),
            *(f"{name}_detail" for name in details if name in on_clips),
            *owner_columns(recipe),
        ],
        "encoded": ["status", "error_kind", "error", "protocols", *(["host"] if "host" in columns else [])],
    }


def _joined(workspace: Workspace, recipe: Recipe, clips: pa.Table, details: Iterable[str]) -> ClipScores:
    """`clips` with what the captions manifest says of them. Only the clips that it knows are touched: there may be a
    million, most of which died long before."""
    fields = []
    for name in recipe.needing(Needs.CAPTIONS):
        value, detail = schemas.score_fields(name)
        fields += [value, detail] if name in details else [value]
    captions, fault = written_captions(
        workspace,
        recipe,
        ["clip_id", "scan_id", "status", "reason", "error_kind", "host", "protocols"],
        [field.name for field in fields],
    )
    unchecked = dict.fromkeys(recipe.needing(Needs.CAPTIONS), fault) if fault else {}
    return ClipScores(with_captions(clips, captions, fields), recipe.built, unchecked)


def with_captions(clips: pa.Table, captions: pa.Table, fields: Sequence[pa.Field]) -> pa.Table:
    """`clips` with the verdict of their captions, and the scores on these. fields: of the scores, as far as there are any."""
    if not captions.num_rows or not clips.num_rows:
        return clips
    at = pc.index_in(clips["clip_id"], value_set=captions["clip_id"].combine_chunks())
    here = np.flatnonzero(at.is_valid().to_numpy())
    theirs = captions.take(at.drop_null())
    current = pc.equal(theirs["scan_id"], clips["scan_id"].take(from_numpy(here))).to_numpy().astype(bool)
    here, theirs = here[current], theirs.filter(from_numpy(current))
    ok = pc.equal(clips["status"].take(from_numpy(here)), "ok").to_numpy().astype(bool)
    bad = ok & pc.not_equal(theirs["status"], "ok").to_numpy().astype(bool)
    failed, reasons = here[bad], theirs["reason"].filter(from_numpy(bad))
    kinds = pc.fill_null(theirs["error_kind"].filter(from_numpy(bad)), "caption")
    changes = {"status": "error", "error_kind": kinds, "error": reasons, "host": theirs["host"].filter(from_numpy(bad))}
    for name, values in changes.items():
        if name in clips.column_names:
            clips = _with(clips, name, failed, values)
    for field in fields:
        if field.name in theirs.column_names:
            source = np.full(clips.num_rows, -1)
            source[here] = np.arange(len(here))
            column = theirs[field.name].take(from_numpy(source, source >= 0))
            clips = clips.append_column(field, column.cast(field.type))
    both = _merged(clips["protocols"].take(from_numpy(here)), theirs["protocols"])
    return _with(clips, "protocols", here, both)


def written_captions(
    workspace: Workspace,
    recipe: Recipe,
    columns: Sequence[str],
    optional: Iterable[str] = (),
) -> tuple[pa.Table, str | None]:
    """The captions by the recipe's captioner under its prompts; also those of an older scan of their video, which do not
    count. What this machine cannot write it can still decide on: then all captions are believed, and the fault is told."""
    wanted = list(dict.fromkeys([*columns, "caption_protocol"]))
    captions = workspace.captions.read(wanted, optional=list(optional), encoded=["caption_protocol"])
    protocol, fault = _captioner_protocol(recipe)
    return (captions, fault) if protocol is None else (captions.filter(_by_captioner(captions, protocol)), None)


def written_slices(workspace: Workspace, recipe: Recipe, columns: Sequence[str]) -> Iterator[pa.Table]:
    """What `written_captions` gives, a slice at a time."""
    protocol, _ = _captioner_protocol(recipe)
    wanted = list(dict.fromkeys([*columns, "caption_protocol"]))
    for captions in workspace.captions.scan(wanted, encoded=["caption_protocol"]):
        yield captions if protocol is None else captions.filter(_by_captioner(captions, protocol))


def captioner_fault(recipe: Recipe) -> str | None:
    """Why this machine cannot tell which captions are the recipe's, so that all are believed; None if it can."""
    return _captioner_protocol(recipe)[1]


def _captioner_protocol(recipe: Recipe) -> tuple[str | None, str | None]:
    """The protocol of the recipe's captions, or why this machine cannot tell."""
    try:
        return make_captioner(recipe.captioning.captioner, recipe.captioning.settings).protocol, None
    except (ValueError, CaptionerFault) as error:
        return None, str(error)


def _by_captioner(captions: pa.Table, protocol: str) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(captions["caption_protocol"].cast(pa.string()), protocol), False)


def _with(table: pa.Table, name: str, rows: npt.NDArray[np.int64], values: str | pa.ChunkedArray) -> pa.Table:
    """`table` with other strings in some rows of a column. By dictionaries: there are few different ones."""
    if not len(rows):
        return table
    new = pa.chunked_array([pa.array([values] * len(rows))]) if isinstance(values, str) else values
    column = pa.chunked_array([*_encoded(table[name]).chunks, *_encoded(new).chunks]).unify_dictionaries()
    codes = np.concatenate([chunk.indices.fill_null(-1).to_numpy() for chunk in column.chunks])
    codes[rows] = codes[table.num_rows :]
    codes = codes[: table.num_rows]
    merged = pa.DictionaryArray.from_arrays(from_numpy(codes, codes >= 0), column.chunk(0).dictionary)
    return table.set_column(table.column_names.index(name), name, merged.cast(table[name].type))


def _encoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        return column
    return pc.dictionary_encode(column).cast(pa.dictionary(pa.int32(), pa.string()))


def _merged(a: pa.ChunkedArray, b: pa.ChunkedArray) -> pa.ChunkedArray:
    """Two columns of JSON objects into one. There are few different ones."""
    first, second = (pc.fill_null(column.cast(pa.string()), "{}") for column in (a, b))
    pairs = _encoded(pc.binary_join_element_wise(first, second, "\n")).combine_chunks()
    merged = []
    for text in pairs.dictionary.to_pylist():
        one, _, other = text.partition("\n")
        merged.append(dump_protocols({**json.loads(one), **json.loads(other)}))
    return pa.chunked_array([pa.DictionaryArray.from_arrays(pairs.indices, pa.array(merged, pa.string()))])
