"""A workspace that an older version made: `older/`, by `tests.curation.tables.fill` of 2026-11-25, before parts were merged while
runs append and read by slices. It opens as it is: the form of a part has not changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longtake.curation.clip_table import explode, sync_clips
from longtake.curation.looking.stats import statistics
from longtake.curation.workspace import Workspace
from longtake.manifests import store
from longtake.manifests.schemas import VIDEOS
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


def test_nested_clips_of_an_older_version_are_read_beside_new_ones(tmp_path: Path) -> None:
    """Since then the clips nested in a video tell whether a strip of them is stored: of an older scan nobody knows."""
    shutil.copytree(OLDER, tmp_path / "older")
    older = Workspace(str(tmp_path / "older"))
    before = older.videos.read()
    assert "has_strip" not in {
        f.name for f in pq.read_schema(next((OLDER / "videos").iterdir())).field("clips").type.value_type
    }
    nested = {
        "clip_id": "of today",
        "start": 0.0,
        "end": 15.0,
        "status": "ok",
        "has_frames": False,
        "has_strip": True,
        "scores": [],
    }
    row = {"video_id": "new", "uri": "/new.mp4", "status": "ok", "scan_id": "of today", "clips": [nested]}
    fields = {
        "clip_id": "of old",
        **{name: nested[name] for name in ("start", "end", "status", "has_frames", "scores")},
    }
    old = pa.Table.from_pylist(
        [row | {"video_id": "old", "scan_id": "of old", "clips": [fields]}], _without_strip(VIDEOS)
    )
    old = old.replace_schema_metadata(pq.read_schema(next((OLDER / "videos").iterdir())).metadata)
    pq.write_table(old, tmp_path / "older" / "videos" / "01795650513591673999-1-51d6a92e.parquet")
    older.videos.append(pa.Table.from_pylist([row], VIDEOS))
    sync_clips(older, older.recipe())
    clips = {one["clip_id"]: one["has_strip"] for one in older.clips.read().to_pylist()}
    assert (clips["of today"], clips["of old"]) == (True, None)
    older.videos.merge()
    older.videos.compact()
    assert older.videos.read().num_rows == before.num_rows + 2
    assert {one["has_strip"] for one in explode(older.videos.read()).to_pylist()} == {True, None}


def _without_strip(schema: pa.Schema) -> pa.Schema:
    at = schema.get_field_index("clips")
    kept = [field for field in schema.field(at).type.value_type if field.name != "has_strip"]
    return schema.set(at, pa.field("clips", pa.list_(pa.struct(kept))))
