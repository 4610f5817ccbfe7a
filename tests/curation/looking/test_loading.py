"""The scores that report and studio hold are those of the whole manifest, however they were read, in little memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from longtake.curation.clip_table import clip_scores, rows_table
from longtake.curation.looking.report.columns import OF_A_CLIP, Columns
from longtake.curation.recipe import parse_recipe
from longtake.curation.workspace import Workspace
from longtake.manifests import reader, schemas
from tests.curation.tables import RECIPE, fill, recipe


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return fill(tmp_path)


# A recipe under which details are looked at: stored means do not say what the least and the greatest value is.
EVERY: dict[str, Any] = {"filters": {**RECIPE["filters"], "psnr": {"reduce": "every"}}}


@pytest.mark.parametrize("changes", [{}, EVERY])
@pytest.mark.parametrize("size", [2, 3, 50_000])
def test_columns_do_not_depend_on_the_slices(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, size: int, changes: dict[str, Any]
) -> None:
    chosen = recipe(**changes)
    whole = Columns.of(clip_scores(workspace, chosen, OF_A_CLIP), chosen)
    whole.set(chosen.tiers)
    monkeypatch.setattr(reader, "SCAN_ROWS", size)
    found = Columns.load(workspace, chosen)
    for tier in chosen.tiers:
        assert found.verdicts(tier).tolist() == whole.verdicts(tier).tolist()
        assert found.counts(tier) == whole.counts(tier)
        assert found.funnel(tier) == whole.funnel(tier)
    for name in chosen.filters:
        for one, other in zip(found.span(name), whole.span(name), strict=True):
            np.testing.assert_array_equal(one, other)
        assert found.histogram(name) == whole.histogram(name)
        for ask in ("unknown", "settled", "missing", "between"):
            np.testing.assert_array_equal(getattr(found.scores, ask)(name), getattr(whole.scores, ask)(name))
    names = ["clip_id", "video_id", "uri", "scan_id", "start", "end", "status", "error_kind", "error", "has_frames"]
    assert found.clips(range(len(found)), names) == whole.clips(range(len(whole)), names)


def test_little_is_held_of_a_clip(tmp_path: Path) -> None:
    """Of ids, addresses and scores together; strings that the clips of a video share are codes."""
    workspace, chosen = Workspace(str(tmp_path)), parse_recipe(RECIPE, source="by hand")
    count = 4000
    rows = [
        {"clip_id": f"{i:032d}", "video_id": f"{i // 5:032d}", "uri": f"s3://corpus/videos/{i // 5:032d}.mp4"}
        | {"start": 15.0 * (i % 5), "end": 15.0 * (i % 5) + 15, "status": "ok", "has_frames": True}
        | {"scan_id": f"{i // 5:032d}", "width": 1920.0, "width_detail": [1920.0]}
        | {"protocols": f'{{"width":"{chosen.built["width"].protocol}"}}'}
        for i in range(count)
    ]
    workspace.clips.append(rows_table(rows, schemas.CLIPS, ["width"]))
    columns = Columns.load(workspace, chosen)
    arrays = [one for name in chosen.filters for one in {id(a): a for a in columns.span(name)[:2]}.values()]
    held = columns.scores.table.nbytes + sum(array.nbytes for array in arrays)
    assert held < count * 150
    assert isinstance(columns.scores.table["uri"].type, pa.DictionaryType)
