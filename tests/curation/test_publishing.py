"""A push to a fake of the Hub: the layout that its viewer plays, going on after a stop, what is told of errors."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from longtake.curation import publishing
from longtake.manifests.dataset.shards import dataset_schema, dataset_table, finish_dataset, write_shards
from tests.curation.cli.test_first_hour import longtake
from tests.curation.fake_hub import FakeHub, fake_hub
from tests.curation.tables import fill
from tests.manifests.dataset.test_shards import row

pytest.importorskip("huggingface_hub")
CLIPS = 5


def exported(folder: Path, clips: int = CLIPS) -> Path:
    """A workspace with a dataset `pretrain` of clips that are their own ids."""
    import hashlib

    workspace = Path(fill(folder / "workspace").path)
    dataset = workspace / "dataset" / "pretrain"
    rows = []
    for i in range(clips):
        clip_id = hashlib.sha256(str(i).encode()).hexdigest()[:32]
        path = f"clips/{clip_id[:2]}/{clip_id}.mp4"
        (dataset / path).parent.mkdir(parents=True, exist_ok=True)
        (dataset / path).write_bytes(clip_id.encode())
        digest = hashlib.sha256(clip_id.encode()).hexdigest()
        split = "validation" if i == 0 else "train"
        rows.append(row(i, clip_id=clip_id, path=path, sha256=digest) | {"split": split})
    write_shards(dataset_table(rows, dataset_schema(("flow",), split=True)), dataset)
    (dataset / "README.md").write_text("---\nold: head\n---\n# paper: pretrain\n\nThe card.\n")
    finish_dataset(dataset)
    return workspace


def push(hub: FakeHub, workspace: Path, code: int = 0, token: str = "hf_secret") -> subprocess.CompletedProcess[str]:
    return longtake(
        "publish", workspace, "pretrain", "me/clips", code=code, HF_ENDPOINT=hub.url, HF_TOKEN=token,
        HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1",
    )  # fmt: skip


def test_a_dataset_is_pushed_as_the_viewer_plays_it(tmp_path: Path) -> None:
    workspace = exported(tmp_path)
    with fake_hub() as hub:
        hub.files["train/zz/gone.mp4"] = b"of an older export"
        hub.files[".gitattributes"] = b"*.mp4 filter=lfs"
        said = push(hub, workspace).stdout
        assert "5 clips sent, 0 were there, 1 files removed" in said
        assert hub.private
        clips = [path for path in hub.files if path.endswith(".mp4")]
        assert len(clips) == CLIPS
        assert all(len(Path(path).parts) == 3 for path in clips)
        tables = {
            split: pq.read_table(io.BytesIO(hub.files[f"{split}/metadata.parquet"]))
            for split in ("train", "validation")
        }
        for split, table in tables.items():
            for name, clip_id in zip(table["file_name"].to_pylist(), table["clip_id"].to_pylist(), strict=True):
                assert hub.files[f"{split}/{name}"] == clip_id.encode()
        assert tables["validation"].num_rows == 1
        head = yaml.safe_load(hub.files["README.md"].decode().split("---")[1])
        (config,) = head["configs"]
        assert [one["split"] for one in config["data_files"]] == ["train", "validation"]
        assert "old: head" not in hub.files["README.md"].decode()
        told = json.loads(hub.files["croissant.json"])
        kinds = {one["name"]: one["dataType"] for one in told["recordSet"][0]["field"]}
        assert kinds["video"] == "sc:VideoObject"
        assert kinds["flow"] == "sc:Float"
        again = push(hub, workspace).stdout
        assert "0 clips sent, 5 were there, 0 files removed" in again


def test_a_push_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi, constants

    from longtake.curation.errors import SetupError
    from longtake.curation.workspace import Workspace

    workspace = Workspace(str(exported(tmp_path)))
    monkeypatch.setattr(publishing, "_COMMIT_FILES", 2)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with fake_hub() as hub:
        monkeypatch.setattr(publishing, "_api", lambda: HfApi(endpoint=hub.url, token="hf_secret"))
        hub.most = 2
        with pytest.raises(SetupError, match=r"HTTP 409; the files that were sent are kept"):
            publishing.publish(workspace, workspace.recipe(None), "pretrain", "me/clips")
        assert len(hub.files) == 4
        # A table would name clips that are not there yet.
        assert not [path for path in hub.files if not path.endswith(".mp4")]
        hub.most = 10**9
        told: list[tuple[int, int]] = []
        done = publishing.publish(
            workspace, workspace.recipe(None), "pretrain", "me/clips", advance=lambda *counts: told.append(counts)
        )
        assert (done.sent, done.there, done.removed) == (1, 4, 0)
        assert told == [(4, 5), (5, 5)]
        assert len(hub.commits[2]) == 1


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    workspace = exported(tmp_path)
    with fake_hub() as hub:
        assert "HTTP 401 (set HF_TOKEN" in push(hub, workspace, code=3, token="hf_wrong").stderr
        assert "write OWNER/NAME" in longtake("publish", workspace, "pretrain", "clips", code=3).stderr
        assert "has no dataset 'finetune'" in longtake("publish", workspace, "finetune", "me/clips", code=3).stderr


def test_no_folder_has_more_files_than_the_hub_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    monkeypatch.setattr(publishing, "MOST_IN_FOLDER", 3)
    ids = [f"aa{i:030x}"[:32] for i in range(3)] + [f"ab{i:x}{'0' * 29}" for i in range(4)]
    laid = publishing._laid_out(pa.table({"clip_id": ids}))
    assert {path.count("/") for path in laid["to"].to_pylist()} == {2}
    assert laid["to"][6].as_py().startswith("train/ab3/")


def test_the_croissant_file_is_valid(tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    workspace = exported(tmp_path)
    with fake_hub() as hub:
        push(hub, workspace)
        (tmp_path / "croissant.json").write_bytes(hub.files["croissant.json"])
    found = mlcroissant.Dataset(jsonld=str(tmp_path / "croissant.json")).metadata
    assert not found.ctx.issues.errors
    assert not found.ctx.issues.warnings
