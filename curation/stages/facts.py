"""What the card of a dataset says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version

import pyarrow as pa
import pyarrow.compute as pc

from longtake.curation.looking.stats import funnel, length_notes
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import TierResult
from longtake.manifests.dataset.card import DatasetFacts
from longtake.manifests.dataset.shards import presto_problems


def _shown(table: pa.Table) -> pa.Table:
    """The rows of an index with what of each clip is not shown."""
    shown = pc.multiply(table["pace"], pc.divide(pc.cast(table["num_frames"], pa.float64()), table["fps"]))
    rest = pc.max_element_wise(pc.subtract(pc.subtract(table["end"], table["start"]), shown), 0.0)
    return table.append_column("seconds_left_out", rest)


def equal_clips(clips: pa.Table) -> list[str]:
    """A sentence on clips that are equal byte for byte, as one film under two addresses gives them; none if there are none.
    clips: clip_id, sha256."""
    of: dict[str, list[str]] = {}
    for clip, digest in zip(clips["clip_id"].to_pylist(), clips["sha256"].to_pylist(), strict=True):
        of.setdefault(digest, []).append(clip)
    same = [names for names in of.values() if len(names) > 1]
    if not same:
        return []
    more = sum(len(names) - 1 for names in same)
    example = " and ".join(sorted(same[0])[:2])
    return [f"Equal byte for byte to another clip, by SHA-256: {more} of {clips.num_rows} clips ({example}, for one)."]


def facts_of(
    workspace: Workspace,
    recipe: Recipe,
    tier: str,
    clips: int,
    result: TierResult,
    table: pa.Table,
    size: int,
    believed: Mapping[str, str],
) -> DatasetFacts:
    problems = Counter(f"{p.column}: {p.message}" for p in presto_problems(table))
    seconds = pc.sum(pc.divide(pc.cast(table["num_frames"], pa.float64()), table["fps"])).as_py() or 0.0
    notes = [
        f"Gate of the paper that this recipe does not apply: {name} ({why})."
        for name, why in recipe.not_applied.items()
    ]
    notes += [
        f"Believed as stored: {name}. The machine that exported could not say how they are measured now ({why})."
        for name, why in believed.items()
    ]
    notes += length_notes(recipe, 0.0, _shown(table))
    notes += equal_clips(table)
    return DatasetFacts(
        title=f"{recipe.name}: {tier}",
        tier=tier,
        version=version("longtake"),
        videos=workspace.videos.read(["video_id"]).num_rows,
        clips=clips,
        kept=table.num_rows,
        seconds=seconds,
        size=size,
        funnel=funnel(result),
        recipe=recipe.to_yaml(),
        licences=Counter(table["licence"].to_pylist()),
        problems=problems,
        schema=table.schema,
        notes=notes,
    )
