"""The last part of the stage score: the cluster of each clip that has an embedding. Memory holds the sample of clips that the
centres are fitted to, and a slice of the manifest.

The centres lie in the workspace. A clip that comes later is assigned to them. They are fitted anew where the recipe asks for
other ones, or when there are twice as many clips.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.clip_table import embedding_matrix, with_new_score
from longtake.curation.errors import SetupError
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.concept import Centres, Concept, assign
from longtake.filters.verdicts import ClipScores
from longtake.manifests import schemas
from longtake.manifests.keys import hashed

NAME = Concept.name
CENTRES = ".concepts.npz"  # A file of the workspace.
_DECIDES = ("clip_id", "status", "error_kind", "error", "scan_id", "protocols")
_SLICE = 20_000  # Rows that are read together with their embeddings, of 1.5 KiB each.
_ALL = np.uint64(2**64 - 1)

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Fit:
    """Centres as they are stored. made_by: the protocols of the fit and of the embeddings. clips: how many clips had an embedding
    at that time."""

    centres: Centres
    made_by: str
    clips: int

    @property
    def digest(self) -> str:
        """The first digits of a hash of the centres."""
        return hashlib.sha256(np.ascontiguousarray(self.centres).tobytes()).hexdigest()[:8]


def finish(workspace: Workspace, recipe: Recipe) -> int:
    """Bring the score `concept` up to date; the number of rows that changed."""
    filter_ = recipe.built.get(NAME)
    if not isinstance(filter_, Concept):
        return 0
    source = next(name for name, other in recipe.built.items() if other.embeds)
    made_by = f"{filter_.protocol} {recipe.built[source].protocol}"
    clips = sum(int(_embedded(table, recipe, source).sum()) for table in _scan(workspace, recipe, source))
    if not clips:
        return 0
    fit = _read(workspace)
    if fit is None or fit.made_by != made_by or clips >= 2 * fit.clips:
        clusters, some = filter_.wanted(clips)
        sample = _sample(workspace, recipe, source, some / clips)
        fit = _Fit(filter_.fit(sample, min(clusters, len(sample))), made_by, clips)
        _write(workspace, fit)
    protocol = _stored_as(filter_.protocol, fit)
    return sum(_assign(workspace, recipe, source, fit, protocol))


def _assign(workspace: Workspace, recipe: Recipe, source: str, fit: _Fit, protocol: str) -> Iterator[int]:
    """Append the rows of the clips that are not assigned to these centres yet, a slice at a time; yields the number of rows."""
    first = next(iter(workspace.clips.scan()), None)
    names = [] if first is None else first.column_names
    for table in workspace.clips.scan(names, optional=[field.name for field in schemas.HEAVY], rows=_SLICE):
        todo = _embedded(table, recipe, source) & ~_has(table, protocol)
        rows = table.filter(pa.array(todo))
        embeddings, known = embedding_matrix(workspace, rows)
        rows = rows.filter(pa.array(known))
        if rows.num_rows:
            numbers = assign(embeddings, fit.centres).astype(np.float64)
            workspace.clips.append(with_new_score(rows, NAME, numbers, protocol))
            yield rows.num_rows


def _scan(workspace: Workspace, recipe: Recipe, source: str, *more: str) -> Iterator[pa.Table]:
    return workspace.clips.scan(_DECIDES, optional=[source, f"{source}_detail", *more], rows=_SLICE if more else None)


def _embedded(clips: pa.Table, recipe: Recipe, source: str) -> Flags:
    """Which clips have an embedding of the protocol that the recipe asks for: those with a score of the filter that embeds."""
    scores = ClipScores(clips, {source: recipe.built[source]})
    return np.asarray(scores.ok() & ~scores.missing(source), np.bool_)


def _has(clips: pa.Table, protocol: str) -> Flags:
    """Which clips have a concept that was stored for these centres."""
    if NAME not in clips.column_names:
        return np.zeros(clips.num_rows, bool)
    texts = pc.dictionary_encode(pc.fill_null(clips["protocols"].cast(pa.string()), "{}").combine_chunks())
    current = np.array([json.loads(text).get(NAME) == protocol for text in texts.dictionary.to_pylist()], bool)
    stored = clips[NAME].is_valid().to_numpy().astype(bool)
    return np.asarray(stored & current[texts.indices.to_numpy()], np.bool_)


def _sample(workspace: Workspace, recipe: Recipe, source: str, share: float) -> npt.NDArray[np.float16]:
    """The embeddings of a share of the clips, always of the same ones: the hashes of their ids are low."""
    parts = []
    for table in _scan(workspace, recipe, source, schemas.EMBEDDING.name):
        chosen = hashed(table["clip_id"])[0] <= np.uint64(min(share, 1.0) * float(_ALL)) if share < 1 else True
        embeddings, _ = embedding_matrix(workspace, table.filter(pa.array(_embedded(table, recipe, source) & chosen)))
        parts.append(embeddings)
    filled = [part for part in parts if len(part)]
    if not filled:
        return _sample(workspace, recipe, source, 1.0)  # The clips are so few that none was chosen.
    if len({part.shape[1] for part in filled}) > 1:
        raise SetupError(f"{workspace.clips.path}: embeddings of different sizes cannot be compared")
    return np.concatenate(filled)


def _stored_as(protocol: str, fit: _Fit) -> str:
    """The protocol of the filter with the digest of the centres, before the part that says how scores are reduced."""
    way, _, reduce = protocol.rpartition("/")
    return f"{way}@{fit.digest}/{reduce}"


def _read(workspace: Workspace) -> _Fit | None:
    """The centres; None where they are missing or broken, so that they are fitted again. Raises StoreError if they cannot be read
    now: centres of another fit would give every clip another number."""
    if (data := workspace.read_file(CENTRES)) is None:
        return None
    try:
        content: Any = np.load(io.BytesIO(data), allow_pickle=False)
        return _Fit(content["centres"], str(content["made_by"]), int(content["clips"]))
    except (ValueError, KeyError, EOFError, BadZipFile):
        return None


def _write(workspace: Workspace, fit: _Fit) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, centres=fit.centres, made_by=np.array(fit.made_by), clips=np.array(fit.clips))
    workspace.write_file(CENTRES, buffer.getvalue())
