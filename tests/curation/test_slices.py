"""Plans, statistics and tiers that see a few rows at a time come to what they come to on whole tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from longtake.curation.clip_table import clip_scores, score_slices
from longtake.curation.looking.stats import statistics
from longtake.curation.looking.tiering import retier
from longtake.curation.running import faults
from longtake.curation.stages import caption, export, scan, score
from longtake.curation.workspace import Workspace
from longtake.filters.verdicts import decide
from longtake.manifests import reader, remembered
from longtake.manifests.keys import Seen
from tests.curation.tables import fill, recipe
from tests.curation.workbench import Bench, assert_whole, call, videos

COUNT = 5


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of two rows, jobs of three, and no manifest in memory."""
    monkeypatch.setattr(reader, "SCAN_ROWS", 2)
    monkeypatch.setattr(remembered, "MANY_ROWS", 0)
    for stage in (scan, score, caption, export):
        monkeypatch.setitem(stage.plan.__kwdefaults__, "at_a_time", 3)


def test_a_run_whose_plans_see_a_few_rows_at_a_time(tiny: None, tmp_path: Path, bench: Bench) -> None:
    films = tmp_path / "films"
    videos(films, COUNT)
    for _ in range(2):
        call(bench, "curate", films)
        assert_whole(bench, COUNT)
        assert set(bench.lines().values()) == {1}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    fill(tmp_path)
    return Workspace(str(tmp_path))


def test_scores_by_slices_are_those_of_the_whole(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = recipe()
    columns: list[str] | None
    for columns in (None, ["host"]):
        whole = clip_scores(workspace, chosen, columns)
        expected = {tier: decide(whole, gates).verdicts for tier, gates in chosen.tiers.items()}
        with monkeypatch.context() as patched:
            patched.setattr(reader, "SCAN_ROWS", 2)
            slices = list(score_slices(workspace, chosen, columns))
        assert len(slices) > 1
        for tier, gates in chosen.tiers.items():
            found = np.concatenate([decide(scores, gates).verdicts for scores in slices])
            assert found.tolist() == expected[tier].tolist()
        ids = [clip for scores in slices for clip in scores.table["clip_id"].to_pylist()]
        assert ids == whole.table["clip_id"].to_pylist()


def rounded(found: dict[str, Any]) -> Any:
    """The same with nine digits behind the point: sums of hours depend on the order by less."""
    return json.loads(json.dumps(found), parse_float=lambda text: round(float(text), 9))


def test_statistics_and_tiers_do_not_depend_on_the_slices(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe()
    plain = rounded(statistics(workspace, chosen).as_json())
    changes = retier(workspace, chosen, chosen)
    for size in (1, 3):
        monkeypatch.setattr(reader, "SCAN_ROWS", size)
        assert rounded(statistics(workspace, chosen).as_json()) == plain
        assert retier(workspace, chosen, chosen) == changes


def test_rows_that_were_tried_are_told_by_the_names_that_reports_give_them() -> None:
    rows = [
        {"clip_id": "c", "video_id": "v", "scan_id": "s"},
        {"clip_id": "c", "video_id": "v", "scan_id": None},
        {"clip_id": "d", "video_id": "v", "scan_id": "s"},
    ]
    table = pa.Table.from_pylist(rows)
    assert faults.keys_of(table).to_pylist() == [faults.key_of(row) for row in rows]
    inputs = table.select(["video_id"])
    assert faults.keys_of(inputs).to_pylist() == [faults.key_of(row) for row in inputs.to_pylist()]
    tried = Seen()
    tried.update([faults.key_of(rows[1])])
    assert faults.untried(table, tried).to_pylist() == [rows[0], rows[2]]
    assert faults.untried(table, None) is table
