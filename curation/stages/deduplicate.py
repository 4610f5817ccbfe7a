"""The end of score: near-duplicates over all clips at once, from the embeddings that are kept. Nothing is decoded.

The result is a function of the clips in the manifest, so it is computed as a whole, but only where something it depends
on has changed since; and only rows that come out differently are written. A clip that another gate rejects has no part
in it: else a group could lose its best clip and all others with it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import dump_protocols, tiers_left, with_embeddings
from longtake.curation.errors import SetupError
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.duplicates import Duplicates
from longtake.filters.verdicts import ClipScores
from longtake.manifests import schemas

ORDER = ("aesthetic", "flow")  # the higher, the better; before them the number of tiers, after them the lower clip id
NAME = Duplicates.name
_NOTE = ".duplicates"  # in the workspace: what the scores that are there were computed from


def source_of_embeddings(recipe: Recipe) -> str | None:
    """The filter whose embeddings are compared; None if the recipe does not look for duplicates."""
    if NAME not in recipe.built:
        return None
    return next(name for name, filter_ in recipe.built.items() if filter_.embeds)


def finish(workspace: Workspace, recipe: Recipe) -> int:
    """Bring the scores `duplicates` and the column `duplicate_of` up to date; the number of rows that changed."""
    source = source_of_embeddings(recipe)
    if source is None:
        return 0
    filter_ = recipe.built[NAME]
    assert isinstance(filter_, Duplicates)
    clips = workspace.clips.read()
    if not clips.num_rows:
        return 0
    scores = ClipScores(clips, recipe.built)
    order = _best_first(clips, scores, recipe, source)
    taking_part = np.zeros(clips.num_rows, bool)
    taking_part[order] = True
    has_score = clips[NAME].is_valid().to_numpy() if NAME in clips.column_names else np.zeros(clips.num_rows, bool)
    digest = hashlib.sha256(f"{filter_.protocol}\n{recipe.built[source].protocol}\n".encode())
    for clip_id in clips["clip_id"].take(pa.array(order)).to_pylist():
        digest.update(clip_id.encode())
    fresh = ~scores.missing(NAME)
    if _noted(workspace) == digest.hexdigest() and (fresh == taking_part).all() and not (has_score & ~fresh).any():
        return 0

    value, owner = np.full(clips.num_rows, np.nan), np.full(clips.num_rows, -1)
    embeddings, known = _embeddings(workspace, clips["clip_id"].take(pa.array(order)))
    order = order[known]
    instead, cosine = filter_.kept_instead(embeddings)
    value[order] = cosine
    owner[order] = np.where(instead >= 0, order[instead], -1)
    before_value, before_owner = _before(clips, fresh)
    changed = np.flatnonzero(~((value == before_value) | (np.isnan(value) & ~has_score)) | (owner != before_owner))
    if len(changed):
        workspace.clips.append(_rows(workspace, clips, changed, value, owner, filter_.protocol))
        workspace.clips.compact()
    _note(workspace, digest.hexdigest())
    return len(changed)


def _best_first(clips: pa.Table, scores: ClipScores, recipe: Recipe, source: str) -> npt.NDArray[np.int64]:
    """Rows of the clips that take part: those with an embedding that some tier may still keep."""
    tiers = tiers_left(scores, recipe)
    columns: dict[str, Any] = {"row": np.arange(clips.num_rows), "tiers": tiers}
    for name in ORDER:
        if name in recipe.built:
            low, _, _ = scores.span(name)
            columns[name] = np.nan_to_num(low, nan=-np.inf)
    columns = {name: pa.array(values) for name, values in columns.items()}
    part = scores.ok() & (tiers > 0) & ~scores.missing(source)
    table = pa.table({**columns, "clip_id": clips["clip_id"].combine_chunks()}).filter(pa.array(part))
    keys = [(name, "descending") for name in columns if name != "row"]
    return np.asarray(table.sort_by([*keys, ("clip_id", "ascending")])["row"].to_numpy())


def _embeddings(
    workspace: Workspace, clip_ids: pa.ChunkedArray
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]]:
    """float16 [known, dim], and which of the clips have one. Raises SetupError if they are of different sizes."""
    column = with_embeddings(workspace, pa.table({"clip_id": clip_ids}))[schemas.EMBEDDING.name]
    known = column.is_valid().to_numpy().astype(bool)
    column = column.drop_null().combine_chunks()
    if not len(column):
        return np.zeros((0, 1), np.float16), known
    sizes = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(sizes) > 1:
        raise SetupError(f"{workspace.clips.path}: embeddings of different sizes {sizes} cannot be compared")
    return column.flatten().to_numpy().reshape(-1, sizes[0]), known


def _before(clips: pa.Table, fresh: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Per row the stored score, nan where it is not of this protocol; and the row it names, −1 for none, −2 for a clip
    that is no longer there."""
    value, owner = np.full(clips.num_rows, np.nan), np.full(clips.num_rows, -1)
    if NAME in clips.column_names:
        value = np.where(fresh, clips[NAME].to_numpy().astype(np.float64), np.nan)
    if schemas.DUPLICATE_OF.name in clips.column_names:
        named = clips[schemas.DUPLICATE_OF.name]
        at = pc.fill_null(pc.index_in(named, value_set=clips["clip_id"].combine_chunks()), -2).to_numpy()
        owner = np.where(named.is_valid().to_numpy().astype(bool), at, -1)
    return value, owner


def _rows(
    workspace: Workspace,
    clips: pa.Table,
    changed: npt.NDArray[np.int64],
    value: npt.NDArray[np.float64],
    owner: npt.NDArray[np.int64],
    protocol: str,
) -> pa.Table:
    """The changed rows as they are to be. By columns: there may be hundreds of thousands."""
    rows = clips.take(pa.array(changed))
    scored = ~np.isnan(value[changed])
    values = pa.array(value[changed], mask=~scored)
    offsets = np.concatenate([[0], np.cumsum(scored)]).astype(np.int32)
    details = pa.ListArray.from_arrays(pa.array(offsets, mask=np.append(~scored, False)), values.drop_null())
    at = owner[changed]
    names = clips["clip_id"].take(pa.array(at, mask=at < 0))
    texts = pc.dictionary_encode(pc.fill_null(rows["protocols"], "{}").combine_chunks())
    both = []
    for add in (False, True):
        for text in texts.dictionary.to_pylist():
            protocols = {name: stored for name, stored in json.loads(text).items() if name != NAME}
            both.append(dump_protocols({**protocols, NAME: protocol} if add else protocols))
    codes = texts.indices.to_numpy() + np.where(scored, len(texts.dictionary), 0)
    new = {
        "protocols": pa.array(both).take(pa.array(codes)),
        NAME: values,
        f"{NAME}_detail": details,
        schemas.DUPLICATE_OF.name: names,
    }
    for name, column in new.items():
        if name in rows.column_names:
            rows = rows.set_column(rows.column_names.index(name), name, column)
        else:
            rows = rows.append_column(name, column)
    return with_embeddings(workspace, rows)


def _noted(workspace: Workspace) -> str:
    try:
        return workspace.folder.read(_NOTE).decode("ascii")
    except FileNotFoundError:
        return ""


def _note(workspace: Workspace, digest: str) -> None:
    workspace.folder.write_whole(_NOTE, digest.encode("ascii"))
