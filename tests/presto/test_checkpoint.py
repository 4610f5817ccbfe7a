"""Checkpoints that are damaged, and what a resumed run may change."""

from __future__ import annotations

import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.checkpoint.api import CheckpointException

from longtake.presto import checkpoint
from longtake.presto.config import changes
from longtake.presto.errors import PrestoError
from longtake.presto.export import export
from longtake.presto.logs import read_log
from longtake.presto.prepare import Run
from longtake.presto.train import fit
from tests.presto.made import BUCKET, config, encoded_folder
from tests.presto.ranks import finish, losses, start


@pytest.fixture(scope="module")
def data(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoded_folder(tmp_path_factory.mktemp("encoded"), model, 8)


@pytest.fixture(scope="module")
def done(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four steps, checkpoints at 2 and 4."""
    run = Run(config(), model, data, tmp_path_factory.mktemp("done") / "run")
    fit(run)
    return run


@pytest.fixture
def run(done: Run, tmp_path: Path) -> Run:
    """A copy of `done` that may be damaged."""
    shutil.copytree(done.output, tmp_path / "run")
    return replace(done, output=tmp_path / "run")


def flip(path: Path, count: int = 16) -> None:
    """Change bytes in the middle of a file, and not its size."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + count] = bytes(b ^ 0xFF for b in data[middle : middle + count])
    path.write_bytes(data)


def newest_folder(run: Run) -> Path:
    return sorted((run.output / checkpoint.FOLDER).glob("step-*"))[-1]


def cut(folder: Path) -> None:
    part = next(folder.glob("*.distcp"))
    os.truncate(part, part.stat().st_size - 7)


DAMAGE: list[tuple[Any, str]] = [
    (lambda folder: flip(next(folder.glob("*.distcp"))), r"\.distcp is not what was written"),
    (lambda folder: flip(folder / ".metadata", 3), r"\.metadata is not what was written"),
    (cut, r"\.distcp has \d+ bytes, not \d+"),
    (lambda folder: next(folder.glob("*.distcp")).unlink(), r"\.distcp is missing"),
    (lambda folder: (folder / checkpoint.MANIFEST).write_text("{"), r"checkpoint\.json cannot be read"),
    (lambda folder: (folder / checkpoint.MANIFEST).write_text("[]"), r"checkpoint\.json cannot be read"),
]


@pytest.mark.parametrize(("damage", "told"), DAMAGE)
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_it_taken(
    run: Run, caplog: pytest.LogCaptureFixture, damage: Any, told: str
) -> None:
    damage(newest_folder(run))
    found = checkpoint.newest(run.output)
    assert found is not None
    assert found.step == 2
    (record,) = (r for r in caplog.records if "is now called damaged-00000004" in r.getMessage())
    assert re.search(told, record.getMessage())
    assert sorted(p.name for p in found.path.parent.iterdir()) == ["damaged-00000004", "step-00000002"]


def test_a_run_that_has_done_more_steps_than_are_asked_for_says_so(run: Run) -> None:
    """It said that so many steps are done, and its export was of others."""
    few = replace(run, config=run.config.model_copy(update={"steps": 3}))
    with pytest.raises(PrestoError, match=r"has done 4 steps, and steps is 3: resume with as many"):
        fit(few)


def test_a_run_goes_on_from_the_one_before_and_is_the_same(done: Run, run: Run) -> None:
    before = {path.name: path.read_bytes() for path in newest_folder(run).glob("*.distcp")}
    flip(next(newest_folder(run).glob("*.distcp")))
    fit(run)
    (note,) = (line for line in read_log(run.output) if line["kind"] == "damaged")
    assert note["step"] == 2
    assert "is not what was written" in note["told"][0]
    assert losses(run.output) == losses(done.output)
    assert {path.name: path.read_bytes() for path in newest_folder(run).glob("*.distcp")} == before


def test_a_worker_of_ray_train_does_the_same(done: Run, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray Train calls, in a thread as there, without Ray: the damaged checkpoint is left; what torch raises comes out
    as an Exception, which Ray reports, and not as a BaseException."""
    import ray.train

    from longtake.presto.launch import _fit

    reported: list[float] = []
    monkeypatch.setattr(ray.train, "report", lambda values: reported.append(values["step"]))
    flip(next(newest_folder(run).glob("*.distcp")))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_fit, {"run": run}).result()
        assert losses(run.output) == losses(done.output)
        assert reported == [4.0]

        def fails(*_: Any, **__: Any) -> None:
            raise CheckpointException("failed", {0: (ValueError("a bad file"), [])})  # type: ignore[dict-item,list-item]

        monkeypatch.setattr(checkpoint, "dcp_load", fails)
        error = pool.submit(_fit, {"run": run}).exception()
    assert isinstance(error, PrestoError)
    assert "ValueError: a bad file" in str(error)


def test_where_none_is_whole_nothing_is_thrown_away(run: Run) -> None:
    for folder in (run.output / checkpoint.FOLDER).iterdir():
        flip(next(folder.glob("*.distcp")))
    for again in (lambda: fit(run), lambda: export(run.output, run.model, run.output / "out")):
        with pytest.raises(
            PrestoError, match=r"no checkpoint is whole \(.*step-00000004.*; .*step-00000002.*delete them"
        ):
            again()
    assert len(list((run.output / checkpoint.FOLDER).glob("step-*"))) == 2


def test_what_torch_raises_is_told_in_a_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's CheckpointException is no Exception, and its text the traceback of each rank."""
    found = checkpoint.newest(run.output)
    assert found is not None

    def fails(*_: Any, **__: Any) -> None:
        raise CheckpointException("failed", {0: (ValueError("a bad file"), [])})  # type: ignore[dict-item,list-item]

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "dcp_load", fails)
        for load in (lambda: checkpoint.load(found, {}), lambda: checkpoint.load_weights(found, {}, "model")):
            with pytest.raises(PrestoError, match="ValueError: a bad file") as error:
                load()
            assert "\n" not in str(error.value)
    monkeypatch.setattr(checkpoint, "dcp_save", fails)
    with pytest.raises(PrestoError, match="step-00000005 cannot be written: ValueError: a bad file"):
        fit(replace(run, config=config(steps=5, checkpoints={"every": 9, "keep": 9})), None)


def test_a_checkpoint_of_another_version_is_named(run: Run) -> None:
    path = newest_folder(run) / checkpoint.MANIFEST
    path.write_text(path.read_text().replace('"version": 2', '"version": 1'))
    with pytest.raises(PrestoError, match=r"checkpoint\.json: version 1, and this program knows 2"):
        checkpoint.newest(run.output)


@pytest.mark.slow
def test_two_ranks_hash_their_parts_and_agree(model: Path, data: Path, tmp_path: Path) -> None:
    """Slow: two times two processes. Either rank's part is damaged; both go on from the one before."""
    run = Run(config(), model, data, tmp_path / "run")
    assert finish(start(run, 2), timeout=300) == [0, 0]
    whole = losses(run.output)
    parts = sorted(newest_folder(run).glob("*.distcp"))
    assert {part.name.split("_")[2] for part in parts} == {"0", "1"}
    flip(parts[-1])
    assert finish(start(run, 2), timeout=300) == [0, 0]
    assert (run.output / checkpoint.FOLDER / "damaged-00000004").is_dir()
    assert losses(run.output) == whole


def test_leftovers_of_a_kill_are_no_checkpoint_and_only_the_newest_are_kept(run: Run) -> None:
    shutil.rmtree(newest_folder(run))
    (run.output / checkpoint.FOLDER / ".step-00000003").mkdir()
    fit(replace(run, config=config(steps=5, checkpoints={"every": 1, "keep": 2})))
    names = [p.name for p in sorted((run.output / checkpoint.FOLDER).glob("step-*"))]
    assert names == ["step-00000004", "step-00000005"]
    assert list(losses(run.output)) == [1, 2, 3, 4, 5]


# ── what a resumed run may change ────────────────────────────────────────────────────────────────────────────────────


def test_what_the_past_rests_on_is_refused_and_the_rest_is_not() -> None:
    def told(**changed: Any) -> tuple[list[str], list[str]]:
        return changes(config().model_dump(mode="json"), config(**changed).model_dump(mode="json"))

    past: list[dict[str, Any]] = [
        {"seed": 4},
        {"global_batch": 4},
        {"tier": "finetune"},
        {"attention": {"variant": "sequential"}},
        {"encoding": {"clean_captions": False}},
        {"data": {"aspect_tolerance": 2.0}},
        {"data": {"buckets": [{**BUCKET, "height": 80}]}},
        {"validation": {"clips": 2}},
        {"loss": {"objective": "flow"}},
        {"lora": {"rank": 4}},
    ]
    for each in past:
        refused, allowed = told(**each)
        assert (len(refused), allowed) == (1, []), each
    future: list[dict[str, Any]] = [
        {"optimizer": {"rate": 5e-4}},
        {"optimizer": {"weight_decay": 0.0}},
        {"optimizer": {"ema": None}},
        {"data": {"max_dropped": 0.5}},
        {"data": {"buckets": [{**BUCKET, "micro_batch": 2}]}},
        {"activation_checkpointing": False},
        {"compile": True},
        {"precision": "bf16"},
        {"loss": {"gamma": None}},
        {"optimizer": {"decay": "cosine"}},
        {"activation_checkpointing": "selective"},
        {"parallel": {"sequence": 2}},
        {"checkpoints": {"in_background": True}},
        {"steps": 9},
    ]
    for each in future:
        refused, allowed = told(**each)
        assert (refused, len(allowed)) == ([], 1), each
    start_averaging = changes(config(optimizer={"ema": None}).model_dump(mode="json"), config().model_dump(mode="json"))
    assert start_averaging == (["optimizer.ema: None → 0.9"], [])


def test_settings_that_a_checkpoint_does_not_know_were_as_they_are_by_default(run: Run) -> None:
    path = newest_folder(run) / checkpoint.MANIFEST
    kept = json.loads(path.read_text())
    del kept["config"]["lora"], kept["config"]["parallel"], kept["config"]["loss"]["objective"], kept["base"]
    path.write_text(json.dumps(kept))
    fit(replace(run, config=config(steps=5)))
    assert list(losses(run.output)) == [1, 2, 3, 4, 5]
    (note,) = (line for line in read_log(run.output) if line["kind"] == "changed")
    assert note["told"] == ["steps: 4 → 5"]


def test_the_advice_of_the_trainer_is_followed_and_logged(run: Run) -> None:
    """A lower rate, more drops, micro-batches, without recomputation and without average: all on one run."""
    settings = config(
        steps=6,
        optimizer={"rate": 5e-4, "ema": None, "weight_decay": 0.5, "betas": (0.8, 0.99)},
        data={"max_dropped": 0.4, "buckets": [{**BUCKET, "micro_batch": 2}]},
        activation_checkpointing=False,
    )
    exported = fit(replace(run, config=settings))
    lines = read_log(run.output)
    assert [line["rate"] for line in lines if line["kind"] == "train"] == [1e-3] * 4 + [5e-4] * 2
    (note,) = (line for line in lines if line["kind"] == "changed")
    assert note["step"] == 4
    assert "optimizer.rate: 0.001 → 0.0005" in note["told"]
    assert "data.max_dropped: 0.05 → 0.4" in note["told"]
    assert '"last"' in (exported / "weights.json").read_text()


def test_a_resume_on_other_clips_or_another_model_is_refused(
    run: Run, model: Path, other_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(PrestoError, match=r"is of another recipe: seed: 3 → 4\. What the run has done rests on this"):
        fit(replace(run, config=config(steps=6, seed=4, log_every=2)))
    more = encoded_folder(tmp_path / "more", model, 9)
    with pytest.raises(PrestoError, match="the clips of the data changed"):
        fit(replace(run, data=more))
    again = encoded_folder(tmp_path / "other", other_model, 8)
    with pytest.raises(PrestoError, match="the VAE of the model changed"):
        fit(replace(run, data=again, model=other_model))
    fit(replace(run, config=config(steps=5)))  # A run with more steps is the same run.
    assert list(losses(run.output)) == [1, 2, 3, 4, 5]
