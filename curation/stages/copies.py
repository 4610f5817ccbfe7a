"""The end of caption: captions that come again and again, over the whole corpus.

Each caption gets three columns: in how many clips (its own included) nearly the same overall caption stands (`copies`),
the clip that has it first (`copy_of`), and how often its most repeated sub-caption stands in the corpus (`sub_copies`).
Where the recipe says how many are too many (`captioning.max_copies`), the clips of a larger group get the status
`duplicate`: a caption that fits thousands of clips describes none. Their text was paid for, so it is put aside
(`withheld`) and comes back when the recipe allows more.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioning.checks import Status, normalised
from captioning.copies import copies
from curation.recipe import Recipe
from curation.workspace import Workspace


def finish(workspace: Workspace, recipe: Recipe) -> int:
    """Bring the columns and the status up to date; the number of rows that changed."""
    most = recipe.captioning.max_copies
    if not _outdated(workspace.captions.read(["status", "copies", "withheld"]), most):
        return 0
    table = workspace.captions.read()
    part = pc.or_(pc.equal(table["status"], str(Status.OK)), table["withheld"].is_valid())
    table = table.filter(part).sort_by("clip_id")
    held = [json.loads(text) if text else None for text in table["withheld"].to_pylist()]
    texts = [(aside or {}).get("caption", text) for text, aside in zip(table["caption"].to_pylist(), held, strict=True)]
    subs = [
        (aside or {}).get("sub_captions", five)
        for five, aside in zip(table["sub_captions"].to_pylist(), held, strict=True)
    ]
    sizes, first = copies(texts)
    plain = [[hash(normalised(text)) for text in five] for five in subs]  # the texts themselves would fill the memory
    often = Counter(chain.from_iterable(plain))
    repeated = np.array([max(often[text] for text in five) for five in plain], np.int64)
    clip_ids = table["clip_id"].to_pylist()
    too_many = sizes > most if most is not None else np.zeros(len(sizes), bool)

    columns = {name: table[name].to_pylist() for name in ("status", "copies", "copy_of", "sub_copies")}
    rows = []
    for i in range(len(clip_ids)):
        owner = clip_ids[first[i]] if sizes[i] > 1 else None
        want = (str(Status.DUPLICATE if too_many[i] else Status.OK), int(sizes[i]), owner, int(repeated[i]))
        if want == tuple(columns[name][i] for name in columns):
            continue
        row = table.slice(i, 1).to_pylist()[0]
        row["status"], row["copies"], row["copy_of"], row["sub_copies"] = want
        if too_many[i]:
            row["withheld"] = json.dumps({"caption": texts[i], "sub_captions": subs[i]})
            row["caption"] = row["sub_captions"] = None
            row["reason"] = f"{sizes[i]} clips have this caption, or nearly; {owner} is the first of them"
        else:
            row["withheld"] = row["reason"] = None
            row["caption"], row["sub_captions"] = texts[i], subs[i]
        rows.append(row)
    if rows:
        workspace.captions.append(pa.Table.from_pylist(rows, schema=table.schema))
        workspace.captions.compact()
    return len(rows)


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
