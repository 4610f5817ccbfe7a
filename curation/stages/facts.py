"""What the card of a dataset says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from longtake.curation.looking.stats import length_notes
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.manifests.dataset import extras
from longtake.manifests.dataset.card import DatasetFacts
from longtake.manifests.dataset.shards import read_shards
from longtake.manifests.keys import hashed

# These columns of an index are read for its card.
_TOLD = ["clip_id", "num_frames", "fps", "pace", "start", "end", "licence", "sha256", *extras.MEANINGS]


def _shown(table: pa.Table) -> pa.Table:
    """The rows of an index with what of each clip is not shown."""
    shown = pc.multiply(table["pace"], pc.divide(pc.cast(table["num_frames"], pa.float64()), table["fps"]))
    rest = pc.max_element_wise(pc.subtract(pc.subtract(table["end"], table["start"]), shown), 0.0)
    return table.append_column("seconds_left_out", rest)


def equal_clips(clips: pa.Table) -> list[str]:
    """A sentence on clips that are equal byte for byte, as one film under two addresses gives them; none if there are none.
    clips: clip_id, sha256."""
    files = hashed(clips["sha256"])
    order = np.lexsort((files[1], files[0]))
    again = np.append(False, (files[:, order[1:]] == files[:, order[:-1]]).all(axis=0))
    if not (more := int(np.count_nonzero(again))):
        return []
    first = int(order[:-1][again[1:]].min())  # The first clip that has an equal one stands before it in this order.
    digest = clips["sha256"][first]
    example = " and ".join(sorted(clips["clip_id"].filter(pc.equal(clips["sha256"], digest)).to_pylist())[:2])
    return [f"Equal byte for byte to another clip, by SHA-256: {more} of {clips.num_rows} clips ({example}, for one)."]


def facts_of(
    workspace: Workspace,
    recipe: Recipe,
    tier: str,
    clips: int,
    steps: Sequence[Mapping[str, Any]],
    shards: Sequence[Path],
    size: int,
    problems: Counter[str],
    believed: Mapping[str, str],
) -> DatasetFacts:
    """steps: the funnel of the tier. shards: of the dataset. problems: how often each one that the published trainer has with a
    clip occurs. believed: what is taken as it is stored, and why."""
    schema = pq.read_schema(shards[0])
    table = read_shards(shards, [name for name in _TOLD if name in schema.names])
    seconds = pc.sum(pc.divide(pc.cast(table["num_frames"], pa.float64()), table["fps"])).as_py() or 0.0
    notes = [
        f"Gate of the paper that this recipe does not apply: {name} ({why})."
        for name, why in recipe.not_applied.items()
    ]
    notes += [
        f"Believed as stored: {name}. The machine that exported could not say how they are measured now ({why})."
        for name, why in believed.items()
    ]
    notes += extras.notes(table)
    notes += length_notes(recipe, 0.0, _shown(table))
    notes += equal_clips(table)
    return DatasetFacts(
        title=f"{recipe.name}: {tier}",
        tier=tier,
        version=version("longtake"),
        videos=sum(rows.num_rows for rows in workspace.videos.scan(["video_id"])),
        clips=clips,
        kept=table.num_rows,
        seconds=seconds,
        size=size,
        funnel=[dict(step) for step in steps],
        recipe=recipe.to_yaml(),
        licences=Counter(table["licence"].to_pylist()),
        problems=problems,
        schema=schema,
        notes=notes,
    )
