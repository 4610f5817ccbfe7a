"""`longtake export --format …`: what a dataset is besides Parquet, and that nobody ever finds half of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from longtake.curation.cli.main import app
from tests.curation.workbench import CLIPS_EACH, ROOT, Bench, environment, videos

FILMS = 6
ALL = ("huggingface", "fiftyone", "lance")
COMMAND = (sys.executable, "-m", "longtake", "export", "--engine", "inline")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A curated workspace of small clips, in no format but Parquet."""
    bench = Bench(tmp_path_factory.mktemp("formats"))
    bench.run("curate", "--engine", "inline", *videos(bench.folder / "films", FILMS))
    return bench


def run(bench: Bench, *formats: str, only: str | None = None) -> subprocess.CompletedProcess[str]:
    """`longtake export --format …`, with the workspace's own recipe, which is what that changes. only: in `--only`."""
    named = [argument for name in formats for argument in ("--format", name)]
    named += [] if only is None else ["--only", only]
    command = [*COMMAND, str(bench.workspace), *named]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)


def export(bench: Bench, *formats: str) -> Path:
    """The dataset's folder."""
    done = run(bench, *formats)
    assert done.returncode == 0, done.stdout + done.stderr
    return bench.workspace / "dataset" / "pretrain"


def test_formats_come_stay_and_go(bench: Bench) -> None:
    pytest.importorskip("lance")
    folder = export(bench, *ALL)
    assert_whole(folder)
    inodes = {path.stat().st_ino for path in (folder / "clips.lance").rglob("*.blob")}
    assert inodes == {path.stat().st_ino for path in (bench.workspace / "encoded").rglob("*.mp4")}
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    listed = {line.split("  ", 1)[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert listed == {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {"SHA256SUMS"}
    assert yaml.safe_load((bench.workspace / "recipe.yaml").read_text())["export"]["formats"] == ["parquet", *ALL]

    before = {path.name: path.read_bytes() for path in (folder / "fiftyone").iterdir()}
    assert_whole(export(bench))
    assert {path.name: path.read_bytes() for path in (folder / "fiftyone").iterdir()} == before

    done = run(bench, only="parquet")
    assert done.returncode == 0, done.stdout + done.stderr
    left = {"README.md", "SHA256SUMS", "clips", "index.parquet", "shards"}
    assert {path.name for path in folder.iterdir()} == left
    assert (folder / "README.md").read_text().startswith("# ")


def test_a_format_that_there_is_not(bench: Bench) -> None:
    done = run(bench, "avi")
    assert done.returncode == 2
    assert "--format: " in done.stderr
    assert re.search(r"export\.formats\.\d: ", done.stderr)
    assert "fiftyone" in done.stderr


def test_a_missing_package_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lance", None)  # Python finds the same where it is not installed.
    recipe = tmp_path / "recipe.yaml"
    plain = {"name": "plain", "filters": {"width": {}}, "tiers": {"pretrain": {"width": ">= 64"}}}
    recipe.write_text(yaml.safe_dump(plain | {"export": {"formats": ["parquet", "lance"]}}))
    films = videos(tmp_path / "films", 1)
    workspace = tmp_path / "workspace"
    result = CliRunner().invoke(
        app, ["curate", str(films[0]), "-o", str(workspace), "-r", str(recipe), "--engine", "inline"]
    )
    assert result.exit_code == 3
    assert "pip install 'longtake[lance]'" in result.stderr
    assert not workspace.exists()


# ── killed ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def new(folder: Path) -> Path:
    """Where the next dataset is made."""
    return folder.with_name(f".{folder.name}.new")


MOMENTS: dict[str, Callable[[Path, int], bool]] = {
    "the new one is begun": lambda folder, old: new(folder).exists(),
    "a clip is in it": lambda folder, old: any(new(folder).glob("clips/*/*.mp4")),
    "FiftyOne's folder is begun": lambda folder, old: (new(folder) / ".fiftyone.part").exists(),
    "Lance's folder is begun": lambda folder, old: (new(folder) / ".clips.lance.part").exists(),
    "Lance's folder is there": lambda folder, old: (new(folder) / "clips.lance").exists(),
    "its index is there": lambda folder, old: (new(folder) / "index.parquet").exists(),
    "it has taken the place of the old": lambda folder, old: folder.stat().st_ino != old,
}


@pytest.fixture(scope="module")
def folder(bench: Bench) -> Path:
    """A dataset in all formats."""
    pytest.importorskip("lance")
    return export(bench, *ALL)


OFTEN = "Lance's folder is begun"  # Each run of the suite tries this moment; the others are slow.


@pytest.mark.parametrize("moment", [m if m == OFTEN else pytest.param(m, marks=pytest.mark.slow) for m in MOMENTS])
def test_killed_at_any_moment_a_whole_dataset_is_there(bench: Bench, folder: Path, moment: str) -> None:
    assert folder.is_dir()
    while not killed_when(bench, partial(MOMENTS[moment], folder, folder.stat().st_ino)):
        pass  # The process ended before the test looked.
    assert_whole(folder)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    assert_whole(export(bench))
    assert not list(folder.glob(".*"))
    assert not new(folder).exists()


def killed_when(bench: Bench, moment: Callable[[], bool]) -> bool:
    """An export that gets SIGKILL at that moment; whether it did."""
    process = subprocess.Popen(
        [*COMMAND, str(bench.workspace)],
        cwd=ROOT, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None and not moment():
        time.sleep(0.0002)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def assert_whole(folder: Path) -> None:
    assert len(pd.read_parquet(folder / "index.parquet")) == FILMS * CLIPS_EACH
    for name in ALL:
        assert_readable(folder, name)


def assert_readable(folder: Path, name: str) -> None:
    """A format says of every clip what is so: its file is there, and it is the one that was encoded."""
    encoded = {path.stem: path for path in (folder.parents[1] / "encoded").rglob("*.mp4")}
    if name == "huggingface":
        table = pd.read_parquet(folder / "metadata.parquet")
        files = {row.clip_id: folder / row.file_name for row in table.itertuples()}
    elif name == "fiftyone":
        assert json.loads((folder / "fiftyone" / "metadata.json").read_text())["media_type"] == "video"
        samples = json.loads((folder / "fiftyone" / "samples.json").read_text())["samples"]
        files = {sample["clip_id"]: folder / "fiftyone" / sample["filepath"] for sample in samples}
    else:
        import lance

        clips = lance.dataset(str(folder / "clips.lance"))
        ids = clips.to_table(columns=["clip_id"])["clip_id"].to_pylist()
        blobs = clips.take_blobs("video", indices=list(range(len(ids))))
        assert {key: blob.read() for key, blob in zip(ids, blobs, strict=True)} == {
            key: path.read_bytes() for key, path in encoded.items()
        }
        return
    assert set(files) == set(encoded)
    assert all(path.samefile(encoded[key]) for key, path in files.items())
