"""Datasets are made while all clips go by, a slice at a time: the same whatever the slices, and without a whole manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longtake.curation.looking.studio.marks import Marks
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.curation.stages import datasets
from longtake.curation.stages.datasets import ENCODED, finish
from longtake.curation.workspace import Workspace
from longtake.manifests import lookup, reader, schemas
from longtake.manifests.dataset.switch import published
from tests.curation.tables import RECIPE, clip_id, fill

ENCODED_CLIPS = "acgj"


def recipe(**changes: Any) -> Recipe:
    """Tiers that keep several of the ten clips, one without a look at captions."""
    tiers = {"pretrain": {"width": ">= 1280", "psnr": "[4, 20]"}, "finetune": RECIPE["tiers"]["pretrain"]}
    return parse_recipe({**RECIPE, "tiers": tiers, **changes}, source="by hand")


def encode(workspace: Workspace, letters: str, chosen: Recipe, **changes: Any) -> None:
    """Rows and files of encoded clips; those of a and g are equal byte for byte."""
    rows = []
    for letter in letters:
        data = b"the same" if letter in "ag" else letter.encode()
        path = f"{ENCODED}/{letter * 2}/{clip_id(letter)}.mp4"
        workspace.folder.write_whole(path, data)
        row = {"clip_id": clip_id(letter), "scan_id": "scan", "status": "ok", "path": path, "num_frames": 450}
        row |= {"fps": 30.0, "width": 1280, "height": 720, "pace": 1.0, "bytes": len(data)}
        row |= {"sha256": hashlib.sha256(data).hexdigest(), "export_protocol": chosen.export_protocol}
        rows.append(row | changes)
    workspace.exports.append(pa.Table.from_pylist(rows, schema=schemas.EXPORTS))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = fill(tmp_path / "workspace")
    encode(made, ENCODED_CLIPS, recipe())
    Marks(made, "ada").add(clip_id("a"), "good", {})
    Marks(made, "ada").add(clip_id("b"), "bad", {})
    return made


def written(workspace: Workspace) -> dict[str, Any]:
    """Name → content of each file of the datasets."""
    folder = workspace.folder.path / "dataset"
    return {
        path.relative_to(folder).as_posix(): pq.read_table(path).to_pylist()
        if path.suffix == ".parquet"
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "SHA256SUMS"
    }


def test_datasets_do_not_depend_on_the_slices(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert finish(workspace, recipe()) == {"pretrain": 2, "finetune": 1}
    whole = written(workspace)
    assert [row["clip_id"][0] for row in whole["pretrain/index.parquet"]] == ["a", "g"]
    assert [row["artifacts"] for row in whole["pretrain/index.parquet"]] == [
        0.01,
        None,
    ]  # The score of g is a lower bound.
    assert [row["caption"] is None for row in whole["pretrain/index.parquet"]] == [False, True]
    card = whole["pretrain/README.md"].decode()
    assert "Equal byte for byte to another clip, by SHA-256: 1 of 2 clips" in card
    assert "1 clips were marked good by eye and 1 bad" in card
    for size in (1, 3):
        monkeypatch.setattr(reader, "SCAN_ROWS", size)
        monkeypatch.setattr(datasets, "_ROWS", size)
        monkeypatch.setattr(lookup, "_TOGETHER", size)
        assert finish(workspace, recipe()) == {"pretrain": 2, "finetune": 1}
        assert written(workspace) == whole


def test_no_manifest_of_clips_is_read_as_a_whole(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten million rows do not fit into the driver."""
    whole = reader.ManifestReader.read

    def read(self: reader.ManifestReader, *args: Any, **more: Any) -> pa.Table:
        assert self.name == "runs", f"all rows of {self.name} were read at once"
        return whole(self, *args, **more)

    monkeypatch.setattr(reader.ManifestReader, "read", read)
    assert finish(workspace, recipe())["finetune"] == 1


@pytest.mark.parametrize("size", [3, 50_000])
def test_what_would_drop_out_is_told_whatever_the_slices(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(reader, "SCAN_ROWS", size)
    chosen, held = recipe(), dict[str, str]()
    finish(workspace, chosen)
    encode(workspace, "g", chosen, status="error", error_kind="unreachable")
    assert finish(workspace, chosen, held)["pretrain"] == 2
    assert list(held) == ["pretrain"]
    assert held["pretrain"].startswith(
        "1 of its 2 clips would drop out only because of faults of the world (unreachable 1)"
    )
    encode(workspace, "g", chosen, status="error", error_kind="damaged")  # This is a fact about the film.
    assert finish(workspace, chosen, held := {})["pretrain"] == 1
    assert held == {}


def test_a_clip_whose_video_was_cut_anew_is_lost_with_what_replaced_it(workspace: Workspace) -> None:
    chosen, held = recipe(), dict[str, str]()
    finish(workspace, chosen)
    rows = workspace.clips.read()
    left = rows.filter(pa.array([clip[0] not in "g" for clip in rows["clip_id"].to_pylist()]))
    other = left.filter(
        pa.array([clip[0] == "b" for clip in left["clip_id"].to_pylist()])
    )  # It is kept, and not encoded.
    workspace.clips.compact(without=rows["clip_id"])
    workspace.clips.append(left)
    assert other.num_rows == 1
    finish(workspace, chosen, held)
    assert "(not encoded 1)" in held["pretrain"]


def test_no_clips_at_all(tmp_path: Path) -> None:
    made = Workspace(str(tmp_path / "workspace"))
    assert finish(made, recipe()) == {"pretrain": 0, "finetune": 0}
    index = published(made.folder / "dataset" / "pretrain")
    assert index is not None
    assert index.num_rows == 0
