"""`longtake forget`: nothing of a video is left but the note, and the others keep all that is theirs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import longtake
from longtake.curation import forgetting
from longtake.curation.cli.main import app
from longtake.curation.errors import SetupError
from longtake.curation.looking.studio.marks import Marks
from longtake.curation.workspace import Workspace
from longtake.manifests import ids
from longtake.manifests.folder import Folder
from longtake.manifests.lock import WorkspaceBusy, WorkspaceLock
from tests.curation.workbench import CLIPS_EACH, Bench, videos

FILMS = 4
FORMATS = {"export": {"formats": ["parquet", "huggingface", "webdataset", "fiftyone"]}}


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A curated workspace of small clips, in several formats, with marks, a page of captions, and what kills left."""
    bench = Bench(tmp_path_factory.mktemp("forget"))
    bench.recipe(**FORMATS)
    bench.run("curate", "--engine", "inline", *videos(bench.folder / "films", FILMS))
    return bench


@pytest.fixture
def bench(curated: Bench, tmp_path: Path) -> Bench:
    shutil.copytree(curated.workspace, tmp_path / "workspace")
    bench = Bench(tmp_path, curated.changes)
    marks = Marks(Workspace(str(bench.workspace)), "me")
    for clip in bench.rows("clips")["clip_id"]:
        marks.add(clip, "good", {})
    (bench.workspace / "captions.html").write_text("keyframes of all of them")
    return bench


def film(curated: Bench, number: int) -> str:
    return str(curated.folder / "films" / f"{number:03}.mp4")


def traces(workspace: Path, words: list[str]) -> list[str]:
    """Where below a workspace one of `words` stands, in a name, in a file's bytes or in a cell of a table."""
    found = []
    for path in sorted(p for p in workspace.rglob("*") if p.is_file() and "forgotten" not in p.parts):
        text = path.read_bytes().decode("latin-1") + str(path.relative_to(workspace))
        if path.suffix == ".parquet":
            text += pq.read_table(path).to_pandas().to_csv()
        found += [f"{path.relative_to(workspace)}: {word}" for word in words if word in text]
    return found


def words_of(bench: Bench, uri: str) -> list[str]:
    """What would tell of a video: its address, its id, those of its clips, and the bytes of its encoded clips by their hash."""
    clips = bench.rows("clips")
    mine = clips[clips["uri"] == uri]["clip_id"].tolist()
    assert len(mine) == CLIPS_EACH
    exports = bench.rows("exports")
    return [uri, ids.video_id(uri), *mine, *exports[exports["clip_id"].isin(mine)]["sha256"]]


def test_nothing_but_the_note_is_left(bench: Bench, curated: Bench) -> None:
    uri = film(curated, 1)
    words = words_of(bench, uri)
    shard = next(bench.workspace.glob("encoded/*/*.mp4")).parent
    (shard / "of somebody").mkdir()
    (shard / "notes.txt").write_text("of somebody")
    others = bench.rows("clips").query("uri != @uri").sort_values("clip_id").reset_index(drop=True)
    size = len(list((bench.workspace / "encoded").rglob("*.mp4")))
    killed = bench.workspace / "dataset" / ".pretrain.new" / "clips"
    killed.mkdir(parents=True)
    (killed / f"{words[2]}.mp4").write_bytes(b"a link that a killed export left")
    (bench.workspace / "frames" / words[1][:2] / f".{words[1]}.parquet.0.part").write_bytes(b"half")
    assert traces(bench.workspace, words)

    output = forget(bench, uri)
    assert f"erased: 1 videos, {CLIPS_EACH} clips" in output
    assert f"dataset pretrain: {CLIPS_EACH} clips fewer" in output
    assert traces(bench.workspace, words) == []
    assert not (bench.workspace / "captions.html").exists()
    assert not killed.exists()
    assert (shard / "of somebody").is_dir()
    assert (shard / "notes.txt").is_file()
    note = pd.read_parquet(bench.workspace / "forgotten")
    assert note.columns.tolist() == ["video_id", "when"]
    assert note["video_id"].tolist() == [ids.video_id(uri)]

    # The others are whole: rows, files, marks, and a dataset whose sums are right.
    pd.testing.assert_frame_equal(bench.rows("clips").sort_values("clip_id").reset_index(drop=True), others)
    assert len(list((bench.workspace / "encoded").rglob("*.mp4"))) == size - CLIPS_EACH
    assert set(Marks(Workspace(str(bench.workspace)), "me").own()) == set(others["clip_id"])
    dataset = bench.workspace / "dataset" / "pretrain"
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=dataset, check=True)
    index = pd.read_parquet(dataset / "index.parquet")
    assert set(index["clip_id"]) == set(others["clip_id"])
    assert {path.stem for path in dataset.glob("clips/*/*.mp4")} == set(others["clip_id"])
    assert len(json.loads((dataset / "fiftyone" / "samples.json").read_text())["samples"]) == len(others)
    assert f"{CLIPS_EACH} clips were erased after this card was written" in (dataset / "README.md").read_text()

    # It does not come back by its folder, and nothing else is computed again.
    output = bench.run("curate", "--engine", "inline", curated.folder / "films")
    assert "left out, forgotten on request: 1" in output
    assert traces(bench.workspace, words) == []
    assert len(bench.rows("videos")) == FILMS - 1
    assert "erased after" not in (dataset / "README.md").read_text()


def forget(bench: Bench, *names: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["forget", str(bench.workspace), *names, "--yes"])
    assert result.exit_code == code, result.output
    return result.output


def test_what_was_never_here_is_noted_and_stays_out(bench: Bench, curated: Bench, tmp_path: Path) -> None:
    other = videos(tmp_path / "other", 1)[0]
    assert "not in this workspace; its name is noted, so that no later run takes it" in forget(bench, str(other))
    before = len(bench.rows("videos"))
    assert "left out, forgotten on request: 1" in bench.run("curate", "--engine", "inline", other, film(curated, 0))
    assert len(bench.rows("videos")) == before


@pytest.mark.parametrize(
    "written", ["{0}/../films/001.mp4", "{0}//001.mp4", "{0}/001.mp4/", "file://{0}/001.mp4", "file://localhost{0}/%30%301.mp4",
    "file:{0}/001.mp4", "../films/001.mp4", "link.mp4", "linked/001.mp4"]
)  # fmt: skip
def test_a_video_has_more_than_one_name(
    bench: Bench, curated: Bench, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films, here = curated.folder / "films", tmp_path / "here"
    here.mkdir()
    (here / "link.mp4").symlink_to(films / "001.mp4")
    (here / "linked").symlink_to(films)
    (tmp_path / "films").symlink_to(films)
    monkeypatch.chdir(here)
    words = words_of(bench, film(curated, 1))
    assert "erased: 1 videos" in forget(bench, written.format(films))
    assert traces(bench.workspace, words) == []
    assert pd.read_parquet(bench.workspace / "forgotten")["video_id"].tolist() == [ids.video_id(film(curated, 1))]


@pytest.mark.parametrize("written", ["", " ", "{0}", "{0}/", "{0}/nowhere/", "{0}/0*.mp4", "s3://bucket/"])
def test_what_can_be_no_video_is_not_noted(bench: Bench, curated: Bench, written: str) -> None:
    assert "nothing was erased" in forget(bench, written.format(curated.folder / "films"), code=3)
    assert pd.read_parquet(bench.workspace / "forgotten").empty
    assert len(bench.rows("videos")) == FILMS


@pytest.mark.parametrize("fault", ["no index", "a damaged index", "a clip is missing", "a file among the datasets"])
def test_a_dataset_that_is_damaged_keeps_nothing_of_it(bench: Bench, curated: Bench, fault: str) -> None:
    words = words_of(bench, film(curated, 1))
    dataset = bench.workspace / "dataset" / "pretrain"
    if fault == "no index":
        (dataset / "index.parquet").unlink()
    elif fault == "a damaged index":
        (dataset / "index.parquet").write_bytes(b"PAR1 no more")
    elif fault == "a clip is missing":
        next(path for path in dataset.glob("clips/*/*.mp4") if path.stem not in words).unlink()
    else:
        (bench.workspace / "dataset" / "notes.txt").write_bytes(b"of somebody")
    (dataset / "mine.txt").write_text("of somebody")
    output = forget(bench, film(curated, 1))
    assert traces(bench.workspace, words) == []
    assert ("its index cannot be read" in output) == ("index" in fault)
    assert ("1 further clips were missing" in output) == (fault == "a clip is missing")
    assert "was forgotten before" in forget(bench, film(curated, 1))
    bench.run("curate", "--engine", "inline")
    assert (dataset / "mine.txt").read_text() == "of somebody"
    assert len(pd.read_parquet(dataset / "index.parquet")) == (FILMS - 1) * CLIPS_EACH
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=dataset, check=True)


def test_names_come_from_a_file_and_a_person_is_asked(bench: Bench, curated: Bench, tmp_path: Path) -> None:
    listed = tmp_path / "takedowns.txt"
    listed.write_text(f"{film(curated, 0)}\n\n{ids.video_id(film(curated, 2))}\n")
    command = ["forget", str(bench.workspace), "--file", str(listed)]
    refused = CliRunner().invoke(app, command, input="n\n")
    assert refused.exit_code == 1
    assert f"Erase 2 videos with {2 * CLIPS_EACH} clips" in refused.output
    assert len(bench.rows("videos")) == FILMS
    assert CliRunner().invoke(app, command, input="y\n").exit_code == 0
    assert len(bench.rows("videos")) == FILMS - 2


def test_a_clip_is_no_video(bench: Bench) -> None:
    clip = bench.rows("clips")["clip_id"][0]
    with pytest.raises(SetupError, match="is a clip, and whole videos are forgotten"):
        longtake.open(bench.workspace).forget(clip)
    assert len(bench.rows("videos")) == FILMS


def test_not_while_a_run_writes(bench: Bench, curated: Bench) -> None:
    with WorkspaceLock(str(bench.workspace)), pytest.raises(WorkspaceBusy):
        longtake.open(bench.workspace).forget(film(curated, 0))


STEPS = ("_out_of_dataset", "_removed", "_swept", "without_clips", "_compare_again", "_compacted")


@pytest.mark.parametrize("step", STEPS)
def test_what_a_kill_interrupted_is_completed_by_the_next_run(
    bench: Bench, curated: Bench, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = film(curated, 3)
    words = words_of(bench, uri)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(forgetting, step, killed)
    with pytest.raises(KeyboardInterrupt):
        forgetting.forget(Workspace(str(bench.workspace)), [uri])
    monkeypatch.undo()
    forgetting.complete(Workspace(str(bench.workspace)))
    assert traces(bench.workspace, words) == []
    assert len(bench.rows("videos")) == FILMS - 1


def test_captions_that_were_copies_are_compared_again(bench: Bench, curated: Bench) -> None:
    workspace = Workspace(str(bench.workspace))
    captions, first = workspace.captions.read().to_pylist(), film(curated, 0)
    clips = bench.rows("clips")
    mine = set(clips[clips["uri"] == first]["clip_id"])
    owner = sorted(mine)[0]
    other = next(row for row in captions if row["clip_id"] not in mine)
    workspace.captions.append(
        workspace.captions.read()
        .slice(0, 0)
        .from_pylist([other | {"copies": 3, "copy_of": owner}], schema=workspace.captions.read().schema)
    )
    forgetting.forget(workspace, [film(curated, 0)])
    row = next(r for r in workspace.captions.read().to_pylist() if r["clip_id"] == other["clip_id"])
    assert row["copies"] is None
    assert row["copy_of"] is None
    assert row["caption"] == other["caption"]


@pytest.mark.parametrize("tars", [True, False])
def test_in_an_object_store(bench: Bench, curated: Bench, tars: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips come to this machine only where a format holds their bytes: a dataset of terabytes would else come for one film."""
    import fsspec

    fetched: list[str] = []
    link = Folder.link

    def noted(self: Folder, source: Folder, name: str, target: str) -> None:
        if self.is_local and not source.is_local:
            fetched.append(name)
        link(self, source, name, target)

    monkeypatch.setattr(Folder, "link", noted)
    if not tars:
        for name in ("webdataset", "fiftyone"):
            shutil.rmtree(bench.workspace / "dataset" / "pretrain" / name)
    store = fsspec.filesystem("memory")
    place = f"/forget-{os.getpid()}"
    store.put(f"{bench.workspace}/", f"{place}/", recursive=True)
    uri = film(curated, 1)
    words = words_of(bench, uri)
    try:
        forgetting.forget(Workspace(f"memory:/{place}"), [uri])
        shutil.rmtree(bench.workspace)
        store.get(f"{place}/", f"{bench.workspace}/", recursive=True)
    finally:
        store.rm(place, recursive=True)
    assert traces(bench.workspace, words) == []
    dataset = bench.workspace / "dataset" / "pretrain"
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=dataset, check=True)
    assert len(bench.rows("clips")) == (FILMS - 1) * CLIPS_EACH
    clips = len(list((dataset / "clips").rglob("*.mp4")))
    assert clips == pq.read_table(dataset / "index.parquet").num_rows
    assert clips
    assert len(fetched) == (clips if tars else 0)


def test_a_clip_that_is_gone_from_a_bucket_leaves_the_dataset(bench: Bench, curated: Bench) -> None:
    import fsspec

    dataset = bench.workspace / "dataset" / "pretrain"
    for name in ("webdataset", "fiftyone"):
        shutil.rmtree(dataset / name)
    table = pq.read_table(dataset / "index.parquet").to_pylist()
    lost = next(row["path"] for row in table if row["uri"] != film(curated, 1))
    (dataset / lost).unlink()
    store, place = fsspec.filesystem("memory"), f"/forget-gone-{os.getpid()}"
    store.put(f"{bench.workspace}/", f"{place}/", recursive=True)
    try:
        erased = forgetting.forget(Workspace(f"memory:/{place}"), [film(curated, 1)])
        index = pq.read_table(store.open(f"{place}/dataset/pretrain/index.parquet"))
    finally:
        store.rm(place, recursive=True)
    assert erased.without == {"pretrain": 1}
    kept = [row["path"] for row in table if row["uri"] != film(curated, 1) and row["path"] != lost]
    assert sorted(index["path"].to_pylist()) == sorted(kept)
