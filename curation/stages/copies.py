"""The end of caption: captions that come again and again, over the whole corpus.

Each caption gets three columns: in how many clips (its own included) nearly the same overall caption stands (`copies`),
the clip that has it first (`copy_of`), and how often its most repeated sub-caption stands in the corpus (`sub_copies`).
Where the recipe says how many are too many (`captioning.max_copies`), the clips of a larger group get the status
`duplicate`: a caption that fits thousands of clips describes none. Their text was paid for, so it is put aside
(`withheld`) and comes back when the recipe allows more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longtake.captioning.checks import SUB_CAPTIONS, Status, normalised
from longtake.captioning.copies import Gathered
from longtake.curation.clip_table import UNDER_SCAN, CurrentClips, written_slices
from longtake.curation.recipe import Recipe
from longtake.curation.workspace import Workspace
from longtake.manifests.arrow import from_numpy
from longtake.manifests.keys import Index, hashed
from longtake.manifests.schemas import MORE_TEXTS

VERDICT = ("status", "copies", "copy_of", "sub_copies")
_TEXTS = ("caption", "sub_captions", *MORE_TEXTS)  # Texts of a repeated caption, which are put aside.
SLICE = 50_000  # Rows that are rewritten together.

Counts = npt.NDArray[np.int64]
Written = Callable[[list[str]], Iterator[pa.Table]]  # Columns of the captions that count, a slice at a time.


def finish(workspace: Workspace, recipe: Recipe) -> int:
    """Bring the columns and the status up to date; the number of rows that changed. Holds some 200 bytes for each caption, and
    the texts of those that are much alike. Captions of clips that are gone do not count."""
    most, current = recipe.captioning.max_copies, CurrentClips.of(workspace)

    def written(columns: list[str]) -> Iterator[pa.Table]:
        return map(current.among, written_slices(workspace, recipe, [*UNDER_SCAN, *columns]))

    if not any(_outdated(rows, most) for rows in written(["status", "copies", "withheld"])):
        return 0
    now = _compared(written, most)
    if not now.num_rows:
        return 0
    known = Index.of(now["clip_id"])
    # New rows come last: after a kill, the old rows that are left show that the work is not done.
    for fresh in (False, True):
        for part in workspace.captions.scan(rows=SLICE):
            part = part.filter(pc.equal(part["copies"].is_null(), fresh))
            at = known.find(part["clip_id"])
            if (at >= 0).any():
                workspace.captions.append(
                    _rewritten(part.filter(from_numpy(at >= 0)), now.take(from_numpy(at[at >= 0])))
                )
    workspace.captions.compact()
    return int(now.num_rows)


def _compared(written: Written, most: int | None) -> pa.Table:
    """clip_id, status, copies, copy_of and sub_copies of the clips for which one of them changes."""
    told, repeated = _repeated(written)
    gathered, rows = Gathered(), list[pa.Table]()
    for table in _good(written, ["caption", "withheld", *VERDICT]):
        gathered.add(_texts(table))
        status = pc.dictionary_encode(table["status"]).cast(pa.dictionary(pa.int32(), pa.string()))
        table = table.select(["clip_id", "copies", "copy_of", "sub_copies"]).append_column("status", status)
        rows.append(table.set_column(0, "clip_id", table["clip_id"].cast(pa.large_string())))
    if not rows:
        return pa.table({"clip_id": pa.array([], pa.string())})
    known = pa.concat_tables(rows, promote_options="permissive")
    del rows
    # The first of equal captions has the lowest id.
    order = pc.sort_indices(known["clip_id"]).to_numpy().astype(np.int64)
    sizes, first = gathered.groups(order, lambda wanted: _texts_of(written, wanted))
    del gathered, order
    status = np.where(sizes > most, str(Status.DUPLICATE), str(Status.OK)) if most is not None else str(Status.OK)
    at = told.find(known["clip_id"])
    now = {
        "clip_id": known["clip_id"],
        "status": pa.array(np.broadcast_to(status, len(sizes)).astype(object), pa.string()),
        "copies": pa.array(sizes),
        "copy_of": known["clip_id"].combine_chunks().take(pa.array(np.where(sizes > 1, first, -1), mask=sizes <= 1)),
        "sub_copies": pa.array(np.where(at >= 0, repeated[at], 0) if len(repeated) else np.zeros(len(sizes), np.int64)),
    }
    before = {name: known[name] for name in VERDICT} | {
        "status": known["status"].cast(pa.string()),
        "copy_of": known["copy_of"].cast(pa.large_string()),
    }
    same = [pc.fill_null(pc.equal(now[name], before[name]), False) for name in VERDICT]
    same[2] = pc.or_(same[2], pc.and_(now["copy_of"].is_null(), before["copy_of"].is_null()))
    return pa.table(now).filter(pc.invert(reduce(pc.and_, same)))


def _good(written: Written, columns: list[str]) -> Iterator[pa.Table]:
    """The captions that are good, but for those that they repeat, a slice at a time."""
    for table in written(columns):
        yield table.filter(pc.or_(pc.equal(table["status"], str(Status.OK)), table["withheld"].is_valid()))


def _texts(table: pa.Table) -> list[str]:
    return [_held(aside)["caption"] if aside else text for text, aside in _pairs(table, "caption")]


def _texts_of(written: Written, wanted: Counts) -> list[str]:
    """The captions of some rows of `_good`, by their numbers."""
    text_of, start = dict[int, str](), 0
    ordered = np.sort(wanted)
    for table in _good(written, ["status", "caption", "withheld"]) if len(wanted) else ():
        here = ordered[np.searchsorted(ordered, start) : np.searchsorted(ordered, start + table.num_rows)]
        text_of |= zip(here.tolist(), _texts(table.take(from_numpy(here - start))), strict=True)
        start += table.num_rows
    return [text_of[row] for row in wanted.tolist()]


def _repeated(written: Written) -> tuple[Index, Counts]:
    """Which captions there are, and how often the most repeated sub-caption of each stands in all; 0 where it has none."""
    names, blocks, having = [np.zeros((2, 0), np.uint64)], [np.zeros((0, SUB_CAPTIONS), np.int64)], [np.zeros(0, bool)]
    for subs in written(["sub_captions", "withheld"]):
        hashes = np.zeros((subs.num_rows, SUB_CAPTIONS), np.int64)  # The texts themselves would fill the memory.
        told = np.zeros(subs.num_rows, bool)
        for i, (five, aside) in enumerate(_pairs(subs, "sub_captions")):
            if texts := _held(aside)["sub_captions"] if aside else five:
                hashes[i], told[i] = [hash(normalised(text)) for text in texts], True
        names.append(hashed(subs["clip_id"]))
        blocks.append(hashes)
        having.append(told)
    ordered = np.sort(np.concatenate([hashes[there] for hashes, there in zip(blocks, having, strict=True)], axis=None))
    most = [
        np.where(there[:, None], _counts(ordered, hashes), 0).max(axis=1, initial=0)
        for hashes, there in zip(blocks, having, strict=True)
    ]
    return Index(np.concatenate(names, axis=1)), np.concatenate(most)


def _counts(ordered: Counts, values: Counts) -> Counts:
    """How often each value stands in a sorted array."""
    return np.asarray(np.searchsorted(ordered, values, "right") - np.searchsorted(ordered, values, "left"), np.int64)


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
        field = rows.schema.field(name)
        rows = rows.set_column(rows.schema.get_field_index(name), field, now[name].cast(field.type))
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
