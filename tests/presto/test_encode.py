"""encode: one row in, one row out, over kills; and what the trainer reads is what the encoders give."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from longtake.presto import encoded
from longtake.presto.cli import app
from longtake.presto.config import Bucket, Encoding
from longtake.presto.dataset import read_dataset
from longtake.presto.encode import EncodeWorker, compact, encode_here, left, plan
from longtake.presto.errors import PrestoError
from longtake.presto.frames import read_frames
from longtake.presto.launch import _Encode, encode_on_ray
from longtake.presto.model import load_text_encoder, load_vae
from longtake.presto.prepare import Run, prepare
from longtake.presto.progress import Progress
from longtake.presto.progress import left as what_is_left
from longtake.presto.text import encode_captions
from longtake.presto.vae import encode_moments
from tests.curation.workbench import RunningRay
from tests.presto.made import BUCKET, config, dataset, row
from tests.presto.ranks import CONTEXT, wait_until

BUCKETS = [Bucket(**BUCKET)]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips: one damaged, one without all captions."""
    folder = tmp_path_factory.mktemp("dataset")
    rows = [row(i, folder) for i in range(7)]
    rows[2] |= {"sub_captions": ["a", "b", "", "d", "e"]}
    bad = folder / rows[4]["path"]
    bad.write_bytes(bad.read_bytes()[:900])
    return dataset(folder, rows)


def todo(shards: Path, model: Path, output: Path, **more: Any) -> Any:
    return plan(shards, model, output, BUCKETS, 1.6, more.pop("encoding", Encoding()), **more)


def by_id(output: Path) -> dict[str, dict[str, Any]]:
    return {r["clip_id"]: r for r in encoded.manifest(output).read().to_pylist()}


def test_one_row_in_one_row_out(shards: Path, model: Path, tmp_path: Path) -> None:
    first = todo(shards, model, tmp_path)
    assert (first.total, first.done, first.unusable) == (7, 0, 1)
    assert encode_here(first) == (6, 1)
    compact(tmp_path)
    rows = by_id(tmp_path)
    kinds = {row(i, shards)["clip_id"]: None for i in range(7)}
    kinds |= {row(2, shards)["clip_id"]: "captions", row(4, shards)["clip_id"]: "unreadable"}
    assert {clip: r["error_kind"] for clip, r in rows.items()} == kinds
    assert encode_here(todo(shards, model, tmp_path)) == (0, 0)
    assert encode_here(todo(shards, model, tmp_path, retry_errors=True)) == (1, 1)


def test_a_dataset_of_which_nothing_can_be_encoded_says_why(shards: Path, model: Path, tmp_path: Path) -> None:
    """Nothing was encoded with exit code 0, and the training was then told that the latents are no dataset."""
    table = read_dataset(shards)
    for rows, told in (
        (table.slice(0, 0), "holds no clip"),
        (table.slice(0, 2), r"can be encoded \(2 missing: its file"),
    ):
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(rows, tmp_path / "data" / "index.parquet")
        with pytest.raises(PrestoError, match=told):
            todo(tmp_path / "data", model, tmp_path / "latents")
    assert not (tmp_path / "latents").exists()


def test_what_is_stored_is_what_the_encoders_give(shards: Path, model: Path, tmp_path: Path) -> None:
    encode_here(todo(shards, model, tmp_path))
    wanted = row(0, shards)
    found = load_file(encoded.latents_path(tmp_path, wanted["clip_id"]))
    captions = torch.split(found["text"], found["lengths"].tolist())
    frames = torch.from_numpy(read_frames(shards / wanted["path"], 24, 64, 64))[None]
    torch.testing.assert_close(found["moments"], encode_moments(load_vae(model), frames)[0].half())
    texts = encode_captions(*load_text_encoder(model), [wanted["caption"], *wanted["sub_captions"]], clean=True)
    assert len(captions) == 6
    for mine, theirs in zip(captions, texts, strict=True):
        torch.testing.assert_close(mine, theirs)
    run = Run(config(data={"max_dropped": 0.5}), model, tmp_path, tmp_path / "run")
    prepared = prepare(run)
    assert (len(prepared.clips), len(prepared.drops)) == (5, 2)
    assert prepared.null is not None
    torch.testing.assert_close(prepared.null, encode_captions(*load_text_encoder(model), [""], clean=True)[0])


def test_other_weights_captions_or_files_are_encoded_again(
    shards: Path, model: Path, other_model: Path, tmp_path: Path
) -> None:
    encode_here(todo(shards, model, tmp_path / "out"))
    assert sum(b.num_rows for b in todo(shards, other_model, tmp_path / "out").batches) == 6
    rows = [row(i, shards) for i in (0, 1)]
    rows[0]["caption"] = "other words"
    changed = tmp_path / "changed"
    changed.mkdir()
    os.symlink(shards / "clips", changed / "clips")
    again = todo(dataset(changed, rows), model, tmp_path / "out")
    assert [b["clip_id"].to_pylist() for b in again.batches] == [[rows[0]["clip_id"]]]
    encoded.latents_path(tmp_path / "out", rows[1]["clip_id"]).unlink()
    assert sum(b.num_rows for b in todo(changed, model, tmp_path / "out").batches) == 2


def test_what_ends_whoever_takes_it_is_an_error_and_what_is_left_is_known(
    shards: Path, model: Path, tmp_path: Path
) -> None:
    """As on a cluster that loses its machines."""
    work = todo(shards, model, tmp_path)
    worker = _Encode(work.settings)
    first = work.batches[0].slice(0, 1)
    assert worker(first).rows == 1
    rest = left(work)
    assert sum(batch.num_rows for batch in rest.batches) == sum(batch.num_rows for batch in work.batches) - 1
    deadly = rest.batches[0].slice(0, 1)
    assert worker.give_up(deadly, "it ended two workers").errors == 1
    found = by_id(tmp_path)[deadly["clip_id"][0].as_py()]
    assert (found["status"], found["error_kind"], found["error"]) == ("error", "crash", "it ended two workers")
    assert sum(batch.num_rows for batch in left(rest).batches) == sum(batch.num_rows for batch in rest.batches) - 1


def test_a_folder_that_is_no_model_stops_before_any_work(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(PrestoError, match="no Allegro model folder"):
        todo(shards, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _slowly(shards: Path, model: Path, output: Path) -> None:
    torch.set_num_threads(1)
    work = todo(shards, model, output)
    worker = EncodeWorker(work.settings)
    for batch in work.batches:
        for i in range(batch.num_rows):
            worker(batch.slice(i, 1))
            time.sleep(0.2)


def test_a_kill_loses_nothing_and_nothing_is_done_twice(shards: Path, model: Path, tmp_path: Path) -> None:
    process = CONTEXT.Process(target=_slowly, args=(shards, model, tmp_path))
    process.start()
    wait_until(lambda: [r["status"] for r in by_id(tmp_path).values()].count("ok") >= 2)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    stopped = by_id(tmp_path)
    before = {clip: r for clip, r in stopped.items() if r["status"] == "ok"}
    assert len(stopped) == 7  # The clips that the run did not reach are counted as dropped.
    assert "not_encoded" in {r["error_kind"] for r in stopped.values()}
    times = {clip: encoded.latents_path(tmp_path, clip).stat().st_mtime_ns for clip in before}
    rest = todo(shards, model, tmp_path)
    left = {clip for batch in rest.batches for clip in batch["clip_id"].to_pylist()}
    assert not left & set(before)
    encode_here(rest)
    assert len(by_id(tmp_path)) == 7
    assert {clip: encoded.latents_path(tmp_path, clip).stat().st_mtime_ns for clip in before} == times


@pytest.mark.campaign
@pytest.mark.slow
@pytest.mark.cluster
def test_on_ray_it_is_the_same(shards: Path, model: Path, running_ray: RunningRay, tmp_path: Path) -> None:
    """As a Ray Data job."""
    assert encode_on_ray(todo(shards, model, tmp_path / "ray"), running_ray.address, workers=1) == (6, 1)
    encode_here(todo(shards, model, tmp_path / "here"))
    found, peer = by_id(tmp_path / "ray"), by_id(tmp_path / "here")
    assert {clip: (r["status"], r["content"], r["tokens"]) for clip, r in found.items()} == {
        clip: (r["status"], r["content"], r["tokens"]) for clip, r in peer.items()
    }
    for clip in (c for c, r in peer.items() if r["status"] == "ok"):
        a, b = (load_file(encoded.latents_path(tmp_path / name, clip)) for name in ("ray", "here"))
        torch.testing.assert_close(a["moments"], b["moments"], rtol=2e-3, atol=2e-3)


def test_what_is_left_is_said_and_nothing_is_written(shards: Path, model: Path, tmp_path: Path) -> None:
    found = todo(shards, model, tmp_path / "latents", note=False)
    said = what_is_left(found)
    assert said.splitlines()[0] == "7 clips: 0 done, 1 cannot be used, 6 to encode"
    assert (
        said.splitlines()[1]
        == f"  24x64x64: 6 clips, {6 * 2 * 8 * 6 * 8 * 8 / 2**30:.2f} GiB of latents, and their text"
    )
    assert not (tmp_path / "latents").exists()


def test_progress_is_a_line_now_and_then_with_the_time_left() -> None:
    said: list[str] = []
    now = [0.0]
    progress = Progress(4000, said.append, clock=lambda: now[0])
    for now[0] in (4.0, 9.0, 20.0, 25.0, 31.0):
        progress.add(20, 1)
    assert said == [
        "60 of 4,000 clips, 3 failed, 3 clips per second, 22 min left",
        "100 of 4,000 clips, 5 failed, 3.23 clips per second, 20 min left",
    ]
    now[0] = 50.0
    progress.add(3900, 0)
    assert len(said) == 2  # The outcome reports the end.


def test_the_command_reports_as_a_stage_does(shards: Path, model: Path, tmp_path: Path) -> None:
    """From what is left to what came of it; a second time there is nothing to do, and the outcome is the same."""
    given = ["encode", str(shards), "-m", str(model), "-o", str(tmp_path / "latents"), "--engine", "inline"]
    changes = (
        "data.buckets=[{frames: 24, height: 64, width: 64}]",
        "data.aspect_tolerance=1.6",
        "attention.variant=isolated",
    )
    given += ["-r", "tiny", *(part for change in changes for part in ("--set", change))]
    dry, first, second = (
        CliRunner().invoke(app, [*given, *more]).stdout.splitlines() for more in (["--dry-run"], [], [])
    )
    assert dry == ["7 clips: 0 done, 1 cannot be used, 6 to encode", dry[1]]
    assert first[:2] == dry
    assert first[2].startswith("5 encoded, 1 failed → ")
    outcome = ["5 encoded, 2 not", "  1 captions: a caption is missing or empty", first[-1]]
    assert first[3:] == outcome
    assert first[-1].startswith("  1 unreadable: ")
    assert second[0] == "7 clips: 6 done, 1 cannot be used, 0 to encode"
    assert second[-3:] == outcome
