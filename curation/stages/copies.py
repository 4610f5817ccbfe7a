"""The end of caption: captions that come again and again, over the whole corpus.

Each caption gets three columns: in how many clips (its own included) nearly the same overall caption stands (`copies`),
the clip that has it first (`copy_of`), and how often its most repeated sub-caption stands in the corpus (`sub_copies`).
Where the recipe says how many are too many (`captioning.max_copies`), the clips of a larger group get the status
`duplicate`: a caption that fits thousands of clips describes none. Their text was paid for, so it is put aside
(`withheld`) and comes back when the recipe allows more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.captioning.checks import SUB_CAPTIONS, Status, normalised
from longtake.captioning.copies import copies
from longtake.curation.clip_table import written_captions
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.manifests.schemas import MORE_TEXTS

VERDICT = ("status", "copies", "copy_of", "sub_copies")
_TEXTS = ("caption", "sub_captions", *MORE_TEXTS)  # Texts of a repeated caption, which are put aside.
SLICE = 50_000  # Rows that are rewritten together.

Counts = npt.NDArray[np.int64]


def finish(workspace: Workspace, recipe: Recipe) -> int:
    """Bring the columns and the status up to date; the number of rows that changed. Holds the manifest in memory once, and
    little besides."""
    most = recipe.captioning.max_copies
    if not _outdated(written_captions(workspace, recipe, ["status", "copies", "withheld"])[0], most):
        return 0
    now = _compared(workspace, recipe, most)
    if not now.num_rows:
        return 0
    known = now["clip_id"].combine_chunks()
    table = workspace.captions.read()
    # New rows come last: after a kill, the old rows that are left show that the work is not done.
    for fresh in (False, True):
        for start in range(0, table.num_rows, SLICE):
            part = table.slice(start, SLICE)
            part = part.filter(pc.equal(part["copies"].is_null(), fresh))
            at = pc.index_in(part["clip_id"], value_set=known)
            if at.null_count < len(at):
                workspace.captions.append(_rewritten(part.filter(at.is_valid()), now.take(at.drop_null())))
    del table, part
    workspace.captions.compact()
    return int(now.num_rows)


def _compared(workspace: Workspace, recipe: Recipe, most: int | None) -> pa.Table:
    """clip_id, status, copies, copy_of and sub_copies of the clips for which one of them changes."""
    # The sub-captions are by far the largest table, so they are freed before the next one is read.
    subs, _ = written_captions(workspace, recipe, ["clip_id", "sub_captions", "withheld"])
    clip_ids, repeated = subs["clip_id"].combine_chunks(), _repeated(subs)
    del subs
    table, _ = written_captions(workspace, recipe, ["clip_id", "caption", "withheld", *VERDICT])
    table = table.filter(pc.or_(pc.equal(table["status"], str(Status.OK)), table["withheld"].is_valid()))
    table = table.sort_by("clip_id")  # The first of equal captions is the one with the lowest id.
    texts = [_held(aside)["caption"] if aside else text for text, aside in _pairs(table, "caption")]
    sizes, first = copies(texts)
    del texts
    status = np.where(sizes > most, str(Status.DUPLICATE), str(Status.OK)) if most is not None else str(Status.OK)
    now = pa.table(
        {
            "clip_id": table["clip_id"],
            "status": pa.array(np.broadcast_to(status, len(sizes)).astype(object), pa.string()),
            "copies": sizes,
            "copy_of": table["clip_id"].take(pa.array(np.where(sizes > 1, first, -1), mask=sizes <= 1)),
            "sub_copies": repeated[pc.index_in(table["clip_id"], value_set=clip_ids).to_numpy()],
        }
    )
    same = [pc.fill_null(pc.equal(now[name], table[name]), False) for name in VERDICT]
    same[2] = pc.or_(same[2], pc.and_(now["copy_of"].is_null(), table["copy_of"].is_null()))
    return now.filter(pc.invert(reduce(pc.and_, same)))


def _repeated(subs: pa.Table) -> Counts:
    """For each row, how often its most repeated sub-caption stands in all of them; 0 where it has none."""
    hashes = np.zeros((subs.num_rows, SUB_CAPTIONS), np.int64)  # The texts themselves would fill the memory.
    told = np.zeros(subs.num_rows, bool)
    for i, (five, aside) in enumerate(_pairs(subs, "sub_captions")):
        if texts := _held(aside)["sub_captions"] if aside else five:
            hashes[i], told[i] = [hash(normalised(text)) for text in texts], True
    _, inverse, counts = np.unique(hashes[told], return_inverse=True, return_counts=True)
    most = np.zeros(subs.num_rows, np.int64)
    most[told] = counts[inverse].reshape(-1, SUB_CAPTIONS).max(axis=1, initial=0)
    return most


def _pairs(table: pa.Table, name: str) -> Iterator[tuple[Any, str | None]]:
    """The values of a column with what is withheld, a few thousand rows in memory at a time."""
    for batch in table.select([name, "withheld"]).to_batches(max_chunksize=10_000):
        yield from zip(batch[name].to_pylist(), batch["withheld"].to_pylist(), strict=True)


def _held(aside: str) -> dict[str, Any]:
    held: dict[str, Any] = json.loads(aside)
    return held


def _rewritten(rows: pa.Table, now: pa.Table) -> pa.Table:
    """Rows with what was found: texts are put aside or come back where the status asks for it."""
    other = pc.or_(pc.not_equal(rows["status"], now["status"]), pc.equal(now["status"], str(Status.DUPLICATE)))
    for name in VERDICT:
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), now[name])
    by_hand = []
    for row in rows.filter(other).to_pylist():
        held = _held(row["withheld"]) if row["withheld"] else {name: row[name] for name in _TEXTS if row.get(name)}
        if row["status"] == Status.DUPLICATE:
            row |= {"withheld": json.dumps(held), **{name: None for name in _TEXTS if name in row}}
            row["reason"] = f"{row['copies']} clips have this caption, or nearly; {row['copy_of']} is the first of them"
        else:
            row |= {**held, "withheld": None, "reason": None}
        by_hand.append(row)
    return pa.concat_tables([rows.filter(pc.invert(other)), pa.Table.from_pylist(by_hand, schema=rows.schema)])


def _outdated(captions: pa.Table, most: int | None) -> bool:
    """Whether some row was not compared yet, or was judged by another limit."""
    aside = captions["withheld"].is_valid()
    good = pc.equal(captions["status"], str(Status.OK))
    if pc.any(pc.and_(good, captions["copies"].is_null())).as_py():
        return True
    if most is None:
        return bool(pc.any(aside).as_py())
    many = pc.fill_null(pc.greater(captions["copies"], most), False)
    return bool(pc.any(pc.or_(pc.and_(good, many), pc.and_(aside, pc.invert(many)))).as_py())
