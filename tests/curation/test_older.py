"""A workspace that an older version made: `older/`, by `tests.curation.tables.fill` of 2026-11-25, before parts were merged while
runs append and read by slices. It opens as it is: the form of a part has not changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from longtake.curation.clip_table import sync_clips
from longtake.curation.looking.stats import statistics
from longtake.curation.workspace import Workspace
from longtake.manifests import store
from tests.curation.tables import fill

OLDER = Path(__file__).parent / "older"
COUNTS = ("videos",)  # The captions are those of an older captioner, which count as not there.
MANIFESTS = ("videos", "clips", "captions", "runs")


def test_an_older_workspace_is_read_appended_to_and_compacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(OLDER, tmp_path / "older")
    older, fresh = Workspace(str(tmp_path / "older")), fill(tmp_path / "fresh")
    expected = statistics(fresh, fresh.recipe()).as_json()
    found = statistics(older, older.recipe()).as_json()
    assert {name: found[name] for name in COUNTS} == {name: expected[name] for name in COUNTS}
    monkeypatch.setattr(store, "FEW_PARTS", 0)
    for name in MANIFESTS:
        manifest = getattr(older, name)
        rows = manifest.read().sort_by(manifest.key)
        manifest.append(rows.slice(0, 1))
        manifest.merge()
        manifest.compact()
        assert manifest.read().sort_by(manifest.key) == rows
        assert len(manifest.parts()) == 1
    assert statistics(older, older.recipe()).as_json()["tiers"] == found["tiers"]
    sync_clips(older, older.recipe())
    assert older.videos.rows() == fresh.videos.rows()
