"""The score stage with real models on stored frames: no video, no wrong clip, no score where something went wrong.

AlexNet and CLIP have random weights, RAFT small and LPIPS's SqueezeNet the real ones of ../shared/models.
"""

from __future__ import annotations

import json
import shutil
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from longtake.curation.clip_table import rows_table
from longtake.curation.errors import SetupError
from longtake.curation.looking.stats import statistics
from longtake.curation.pipeline import run
from longtake.curation.reading.samples import load_sample, store_sample
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.curation.running.jobs import Report
from longtake.curation.stages import score
from longtake.curation.stages.stage import Options
from longtake.curation.workspace import Workspace
from longtake.filters import registry
from longtake.filters.base import MeasureError, Sample, Score, reduce_detail
from longtake.filters.batches import ModelFilter
from longtake.filters.weights import WEIGHTS
from longtake.manifests import schemas
from longtake.manifests.frames import StoredFrames, frames_writer, read_frames
from tests.filters.pictures import crop, resized, sample, world

torch = pytest.importorskip("torch")
pytest.importorskip("lpips")

SHARED = Path(__file__).parents[4] / "shared" / "models"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/models")
PICTURE = resized(world(), 1450, 380)
torch.set_num_threads(1)  # Ray's workers have one thread, too; on a busy machine several threads wait for each other.


class Glance:
    """Watches a run and says nothing."""

    def begin(self, stage: str, rows: int) -> None: ...

    def advance(self, report: Report) -> None: ...

    def end(self, stage: str, total: Report, seconds: float) -> None: ...


def clip_sample(number: int) -> Sample:
    """Two keyframes of a world that moves by 4 + number px in half a second."""
    frames = []
    for keyframe in range(2):
        x = 100 + 150 * number + 200 * keyframe
        frames += [crop(x, 100, 144, 128, PICTURE), crop(x + 4 + number, 100, 144, 128, PICTURE)]
    return sample(frames)


def recipe(**filters: Any) -> Recipe:
    tier = dict.fromkeys(filters, ">= -1e9")
    return parse_recipe({"name": "models", "filters": filters, "tiers": {"pretrain": tier}}, "the test")


LPIPS: dict[str, Any] = {"backend": "squeeze", "device": "cpu"}
FLOW: dict[str, Any] = {"backend": "raft", "variant": "small", "source": "princeton", "device": "cpu"}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Three videos of two scanned clips each; there is no file of a video."""
    monkeypatch.setenv("LONGTAKE_MODELS", str(SHARED))
    workspace = Workspace(str(tmp_path / "ws"))
    inputs, rows = [], []
    for video in range(3):
        video_id = f"{video:032x}"
        uri = str(tmp_path / "gone" / f"{video}.mp4")
        inputs.append({"video_id": video_id, "uri": uri})
        with frames_writer(workspace.path, video_id) as writer:
            for part in range(2):
                number = 2 * video + part
                writer.write(store_sample(f"{number:032x}", clip_sample(number), 95))
                rows.append(
                    {
                        "clip_id": f"{number:032x}", "video_id": video_id, "uri": uri, "start": 15.0 * part,
                        "end": 15.0 * part + 15, "status": "ok", "has_frames": True, "scan_id": f"scan {video}",
                        "protocols": "{}",
                    }
                )  # fmt: skip
    workspace.inputs.append(pa.Table.from_pylist(inputs, schema=schemas.INPUTS))
    workspace.clips.append(rows_table(rows, schemas.CLIPS, []))
    videos = [{**row, "status": "ok", "scan_id": f"scan {n}"} for n, row in enumerate(inputs)]
    workspace.videos.append(pa.Table.from_pylist(videos, schema=schemas.VIDEOS))
    return workspace


def scored(workspace: Workspace, recipe: Recipe) -> pd.DataFrame:
    """The clips after `longtake score`, by number."""
    run(workspace, recipe, [], Options(stages=("score",), engine="inline"), Glance())
    table = workspace.clips.read(optional=["embedding"], columns=workspace.clips.read().column_names).to_pandas()
    return table.assign(number=[int(clip_id, 16) for clip_id in table["clip_id"]]).set_index("number").sort_index()


def rewrite(workspace: Workspace, video: int, change: Any) -> None:
    """The frames of a video, each clip's through `change(number, frames)` (None: left out)."""
    video_id = f"{video:032x}"
    clips = [f"{2 * video + part:032x}" for part in range(2)]
    old = read_frames(workspace.path, video_id, clips)
    with frames_writer(workspace.path, video_id) as writer:
        for clip_id in clips:
            if (new := change(int(clip_id, 16), old[clip_id])) is not None:
                writer.write(new)


# ── scores ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@needs_shared
def test_every_clip_has_its_own_scores_and_no_video_is_opened(workspace: Workspace) -> None:
    """The motion is known, and every clip has another: a score on the wrong clip would show."""
    chosen = recipe(lpips=LPIPS, flow=FLOW)
    table = scored(workspace, chosen)
    assert table["status"].tolist() == ["ok"] * 6
    for number, row in table.iterrows():
        assert row["flow"] == pytest.approx((4 + int(str(number))) * 960 / 144, rel=0.12)
        stored = read_frames(workspace.path, row["video_id"], [row["clip_id"]])[row["clip_id"]]
        alone = chosen.built["lpips"].measure([load_sample(stored)])[0]
        assert isinstance(alone, Score)
        assert row["lpips"] == pytest.approx(alone.value, abs=1e-4)
        assert list(row["lpips_detail"]) == pytest.approx(alone.detail, abs=1e-4)
        assert json.loads(row["protocols"]) == {name: chosen.built[name].protocol for name in ("lpips", "flow")}
    parts = workspace.clips.parts()
    assert scored(workspace, chosen).equals(table)
    assert workspace.clips.parts() == parts


@needs_shared
def test_random_alexnet_through_the_whole_stage(workspace: Workspace, tmp_path: Path) -> None:
    """The paper's LPIPS network, whose weights are not to be had here: what the package makes of the same trunk."""
    import lpips
    import torchvision

    models = tmp_path / "models"
    (models / "lpips").mkdir(parents=True)
    torch.manual_seed(0)
    trunk = torchvision.models.alexnet(weights=None).features
    torch.save({f"features.{k}": v for k, v in trunk.state_dict().items()}, models / WEIGHTS["alexnet"].filename)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGTAKE_MODELS", str(models))
        patch.setitem(WEIGHTS, "alexnet", replace(WEIGHTS["alexnet"], sha256=None))
        table = scored(workspace, recipe(lpips={"backend": "alex", "device": "cpu"}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # The package passes old arguments.
        package = lpips.LPIPS(pretrained=False, pnet_rand=True, net="alex", verbose=False)
    heads = Path(lpips.__file__).parent / "weights/v0.1/alex.pth"
    package.load_state_dict(torch.load(heads, map_location="cpu", weights_only=True), strict=False)
    # The parameter slice1.0.weight of the package is features.0.weight of the trunk.
    for key, value in package.net.named_parameters():
        value.data = dict(trunk.named_parameters())[key.partition(".")[2]].data
    for number, found in table["lpips"].items():
        first, second = torch.from_numpy(load(workspace, int(str(number))).keyframes).permute(0, 3, 1, 2) / 127.5 - 1
        assert found == pytest.approx(package(first[None], second[None]).item(), rel=1e-4)


# ── faults of one row ────────────────────────────────────────────────────────────────────────────────────────────────


@needs_shared
def test_a_frame_that_does_not_decode_is_an_error_of_its_clip_alone(workspace: Workspace) -> None:
    def harm(number: int, frames: StoredFrames) -> StoredFrames | None:
        broken = [frames.keyframes[0], frames.keyframes[1][:40]]
        return {2: replace(frames, keyframes=broken), 3: frames, 5: None}.get(number, frames)

    rewrite(workspace, 1, harm)
    rewrite(workspace, 2, harm)
    table = scored(workspace, recipe(lpips=LPIPS))
    assert table["status"].tolist() == ["ok", "ok", "error", "ok", "ok", "error"]
    assert table["error_kind"].dropna().to_dict() == {2: "frames", 5: "frames"}
    assert f"{2:032x}" in table["error"][2]
    assert table["lpips"].isna().tolist() == [False, False, True, False, False, True]


@needs_shared
def test_frames_that_are_missing_or_damaged_as_a_whole(workspace: Workspace) -> None:
    shutil.rmtree(Path(workspace.path) / "frames" / "00")
    rewrite_all = [clip_sample(number) for number in range(2)]
    with frames_writer(workspace.path, f"{0:032x}") as writer:
        for number, item in enumerate(rewrite_all):
            writer.write(store_sample(f"{number:032x}", item, 95))
    other = Path(workspace.path) / "frames" / "00" / f"{1:032x}.parquet"
    other.write_bytes(b"no Parquet")
    table = scored(workspace, recipe(lpips=LPIPS))
    assert table["status"].tolist() == ["ok", "ok", "error", "error", "error", "error"]
    assert set(table["error_kind"].dropna()) == {"frames"}
    assert table["lpips"].isna().tolist() == [False, False, True, True, True, True]


@needs_shared
def test_a_partner_that_is_not_later_is_an_error_and_other_scores_stay(workspace: Workspace) -> None:
    rewrite(workspace, 0, lambda number, frames: replace(frames, partner_times=frames.times) if number else frames)
    rewrite(workspace, 1, lambda number, frames: None if number == 2 else frames)
    rewrite(workspace, 2, lambda number, frames: None if number == 4 else frames)
    table = scored(workspace, recipe(lpips=LPIPS, flow=FLOW))
    assert table["error_kind"].dropna().to_dict() == {1: "measure", 2: "frames", 4: "frames"}
    assert "flow: the partner of the keyframe" in table["error"][1]
    assert np.isnan(table["flow"][1])
    assert table["lpips"].notna().tolist() == [True, True, False, True, False, True]  # Measured values are kept.
    assert table["flow"].notna().tolist() == [True, False, False, True, False, True]


# ── embeddings ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Look(registry.Filter[Sample]):
    """A stranger's filter that leaves embeddings behind; of a clip with a bright corner, no number."""

    name = "aesthetic"
    backend = "look"
    unit = ""
    needs = score.Needs.FRAMES
    embeds: ClassVar[bool] = True

    def __init__(self, *, reduce: Any = "mean", corner: float = 300, fault: str = "nan", version: int = 1) -> None:
        super().__init__(reduce=reduce)
        self.corner, self.fault, self.version = corner, fault, version

    @property
    def method(self) -> str:
        return f"look{self.version}"

    def measure_one(self, item: Sample) -> Sequence[float]:
        value = float(item.keyframes[0, :8, :8].mean())
        if value >= self.corner:
            return [float(self.fault), 1.0]
        return [value, value]

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        scores = super().measure(items)
        for i, (found, item) in enumerate(zip(scores, items, strict=True)):
            if isinstance(found, Score):
                small = item.keyframes.mean(axis=0)[::24, ::20].ravel()
                scores[i] = replace(found, embedding=(small / np.linalg.norm(small)).astype(np.float16))
        return scores


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(registry.BUILT_IN["aesthetic"], "look", f"{__name__}:Look")
    registry.available.cache_clear()
    yield
    registry.available.cache_clear()


@pytest.mark.usefixtures("look")
@pytest.mark.parametrize("fault", ["nan", "inf"])
def test_what_is_no_number_is_an_error_and_never_a_score(workspace: Workspace, fault: str) -> None:
    corners = {n: float(load(workspace, n).keyframes[0, :8, :8].mean()) for n in range(6)}
    bad = max(corners, key=lambda n: corners[n])
    table = scored(workspace, recipe(aesthetic={"backend": "look", "corner": corners[bad], "fault": fault}))
    assert table["error_kind"].dropna().to_dict() == {bad: "measure"}
    assert "aesthetic: not a finite number" in table["error"][bad]
    assert table["aesthetic"].isna().sum() == table["embedding"].isna().sum() == 1


def load(workspace: Workspace, number: int) -> Sample:
    clip_id = f"{number:032x}"
    return load_sample(read_frames(workspace.path, f"{number // 2:032x}", [clip_id])[clip_id])


@needs_shared
@pytest.mark.usefixtures("look")
def test_embeddings_stay_when_rows_are_written_again(workspace: Workspace) -> None:
    table = scored(workspace, recipe(aesthetic={"backend": "look"}))
    small = load(workspace, 3).keyframes.mean(axis=0)[::24, ::20].ravel()
    assert table["embedding"][3].dtype == np.float16
    assert table["embedding"][3] == pytest.approx(small / np.linalg.norm(small), abs=1e-3)
    before = table["embedding"]
    again = scored(workspace, recipe(aesthetic={"backend": "look"}, lpips=LPIPS, duplicates={"threshold": 1.0}))
    assert again["lpips"].notna().all()
    assert all((a == b).all() for a, b in zip(before, again["embedding"], strict=True))
    assert (again["duplicates"] == 0).all()


@pytest.mark.usefixtures("look")
def test_near_duplicates_of_a_run(workspace: Workspace) -> None:
    """Video 2 is video 0 once more, a little noisier."""

    def copy(number: int, frames: StoredFrames) -> StoredFrames:
        noisy = clip_sample(number - 4)
        rng = np.random.default_rng(number)
        pixels = np.clip(noisy.keyframes + rng.normal(0, 2, noisy.keyframes.shape), 0, 255).astype(np.uint8)
        return store_sample(frames.clip_id, replace(noisy, keyframes=pixels), 80)

    rewrite(workspace, 2, copy)
    chosen = recipe(aesthetic={"backend": "look"}, duplicates={"threshold": 0.999})
    table = scored(workspace, chosen)
    groups = {frozenset((int(n), int(of, 16))) for n, of in table["duplicate_of"].dropna().items()}
    assert groups == {frozenset((0, 4)), frozenset((1, 5))}
    for number, of in table["duplicate_of"].dropna().items():
        assert table["aesthetic"][int(of, 16)] >= table["aesthetic"][number]
        assert table["duplicates"][number] >= 0.999
    assert scored(workspace, chosen).equals(table)


# ── ahead of the models ──────────────────────────────────────────────────────────────────────────────────────────────


class Early(registry.Filter[Sample]):
    """Needs no device, so that it is measured ahead: counts the clips that it has seen."""

    name = "psnr"
    backend = "early"
    unit = ""
    needs = score.Needs.FRAMES
    cost: ClassVar[float] = 1
    method = "early"
    seen: ClassVar[int] = 0
    changed: ClassVar[threading.Condition] = threading.Condition()

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        with Early.changed:
            Early.seen += len(items)
            Early.changed.notify_all()
        return [Score(1.0, (1.0,)) for _ in items]


class Late(ModelFilter):
    """A model that waits until the part after its own is ready, and notes how many clips were, before and after."""

    name = "lpips"
    backend = "late"
    unit = ""
    cost: ClassVar[float] = 2
    method = "late"
    weights = ()
    saw: ClassVar[list[tuple[int, int]]] = []
    total: ClassVar[int] = 0

    def __init__(self, *, reduce: Any = "mean") -> None:
        super().__init__(reduce=reduce, batch=100, device="cpu", precision="float32", memory=None)

    def load(self) -> Any:
        return torch.nn.Identity()

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        rows = self.run_each([[item] for item in items], lambda item: item.keyframes, self.forward)
        return [row if isinstance(row, MeasureError) else self.score(row[0]) for row in rows]

    def forward(self, batch: Any) -> Any:
        done = sum(count for count, _ in Late.saw) + len(batch)
        with Early.changed:
            assert Early.changed.wait_for(lambda: Early.seen >= min(Late.total, done + score._PART), timeout=60)
            Late.saw.append((len(batch), Early.seen))
        return batch.reshape(len(batch), -1)[:, :1].astype(float)


def test_the_next_part_is_ready_while_the_models_are_at_this_one(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no more than that: memory is bounded."""
    monkeypatch.setitem(registry.BUILT_IN["psnr"], "early", f"{__name__}:Early")
    monkeypatch.setitem(registry.BUILT_IN["lpips"], "late", f"{__name__}:Late")
    monkeypatch.setattr(score, "_PART", 2)
    registry.available.cache_clear()
    Early.seen, Late.total = 0, 6
    Late.saw.clear()
    reports: list[Report] = []

    class Notes(Glance):
        def advance(self, report: Report) -> None:
            reports.append(report)

    chosen = recipe(lpips={"backend": "late"}, psnr={"backend": "early"})
    run(workspace, chosen, [], Options(stages=("score",), engine="inline"), Notes())
    registry.available.cache_clear()
    assert Late.saw == [(2, 4), (2, 6), (2, 6)]
    table = workspace.clips.read()
    first = {int(row["clip_id"], 16): row["lpips"] for row in table.to_pylist()}
    assert first == {number: float(load(workspace, number).keyframes.ravel()[0]) for number in range(6)}
    (report,) = reports
    assert 0 < report.busy_seconds < report.seconds
    assert statistics(workspace, chosen).summary["stages"]["score"]["busy_share"] == report.busy_share


# ── nothing is measured twice ────────────────────────────────────────────────────────────────────────────────────────


class Counted(registry.Filter[Sample]):
    """Notes how many clips it measured; the detail of each is 1 and 3."""

    name = "psnr"
    backend = "counted"
    unit = ""
    needs = score.Needs.FRAMES
    measured: ClassVar[int] = 0
    bound: ClassVar[bool] = False

    @property
    def method(self) -> str:
        return "counted"

    @property
    def lower_bound(self) -> registry.Filter[Sample] | None:
        return CountedBound(reduce=self.reduce) if type(self).bound else None

    def measure(self, items: Sequence[Sample]) -> list[Score | MeasureError]:
        type(self).measured += len(items)
        return [Score(reduce_detail(detail, self.reduce), detail) for detail in [(1.0, 3.0)] * len(items)]


class CountedBound(Counted):
    backend = "counted_bound"


class CountedToo(Counted):
    name = "ssim"
    backend = "counted_too"
    measured: ClassVar[int] = 0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in (Counted, CountedToo):
        monkeypatch.setitem(registry.BUILT_IN[kind.name], kind.backend, f"{__name__}:{kind.__name__}")
        monkeypatch.setattr(kind, "measured", 0)
    registry.available.cache_clear()
    yield
    registry.available.cache_clear()


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("reduce", ["min", "max", "every"])
def test_another_filter_does_not_make_a_score_of_another_reduction_be_measured_again(
    workspace: Workspace, reduce: str
) -> None:
    """Its detail is stored: the planner takes the score from it, and so must the worker."""
    scored(workspace, recipe(psnr={"backend": "counted"}))
    assert (Counted.measured, CountedToo.measured) == (6, 0)
    changed = recipe(psnr={"backend": "counted", "reduce": reduce}, ssim={"backend": "counted_too"})
    table = scored(workspace, changed)
    assert (Counted.measured, CountedToo.measured) == (6, 6)
    assert table["ssim"].notna().all()
    assert statistics(workspace, changed).summary["tiers"]["pretrain"]["kept"] == 6
    scored(workspace, changed)
    assert (Counted.measured, CountedToo.measured) == (6, 6)


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(("reduce", "gate", "measured"), [("min", ">= 2", 0), ("max", ">= 2", 6), ("every", ">= 2", 0)])
def test_a_score_of_another_reduction_spares_a_clip_the_next_filter(
    workspace: Workspace, reduce: str, gate: str, measured: int
) -> None:
    """By its mean, 2, the clip would be kept; by its least value, 1, no tier can keep it."""
    scored(workspace, recipe(psnr={"backend": "counted"}))
    filters = {"psnr": {"backend": "counted", "reduce": reduce}, "ssim": {"backend": "counted_too"}}
    tiers = {"pretrain": {"psnr": gate, "ssim": ">= 0"}}
    scored(workspace, parse_recipe({"name": "changed", "filters": filters, "tiers": tiers}, "the test"))
    assert (Counted.measured, CountedToo.measured) == (6, measured)


@pytest.mark.usefixtures("counted")
def test_a_worker_asks_for_what_is_a_bound_and_not_for_what_is_rejected(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of six clips, two have the score, two a lower bound that says nothing yet, two one that rejects them."""
    monkeypatch.setattr(Counted, "bound", True)
    chosen = parse_recipe(
        {
            "name": "bounds",
            "filters": {"psnr": {"backend": "counted"}, "ssim": {"backend": "counted_too"}},
            "tiers": {"pretrain": {"psnr": "<= 5", "ssim": ">= 0"}},
        },
        "the test",
    )
    filter_ = chosen.built["psnr"]
    assert filter_.lower_bound is not None
    kinds = [(filter_.protocol, 2.0), (filter_.lower_bound.protocol, 0.5), (filter_.lower_bound.protocol, 9.0)]
    rows = workspace.clips.read().to_pylist()
    for number, row in enumerate(rows):
        protocol, value = kinds[number % 3]
        row |= {"psnr": value, "psnr_detail": [value], "protocols": json.dumps({"psnr": protocol})}
    table = rows_table(rows, schemas.CLIPS, ["psnr"])
    job_args = (workspace.path, chosen.model_dump(mode="json"), False)
    score.ScoreWorker(*job_args)(table)  # The worker measures all of them, even those that the planner leaves out.
    assert (Counted.measured, CountedToo.measured) == (2, 4)
    Counted.measured = CountedToo.measured = 0
    score.ScoreWorker(*job_args[:2], True)(table)
    assert (Counted.measured, CountedToo.measured) == (4, 6)


# ── set-up ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@needs_shared
def test_a_device_that_is_not_there_stops_the_run(workspace: Workspace) -> None:
    if torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(SetupError, match="filter lpips: device is cuda"):
        scored(workspace, recipe(lpips={**LPIPS, "device": "cuda"}))
    assert "lpips" not in workspace.clips.read().column_names


@needs_shared
def test_settings_of_a_recipe_reach_the_filters(workspace: Workspace) -> None:
    chosen = recipe(lpips={**LPIPS, "precision": "bfloat16", "batch": 2})
    half = scored(workspace, chosen)
    assert chosen.built["lpips"].protocol.endswith(",bfloat16/mean")
    whole = scored(workspace, recipe(lpips=LPIPS))  # The protocol differs, so the clips are measured again.
    assert half["lpips"].tolist() == pytest.approx(whole["lpips"].tolist(), abs=0.01)
    assert half["lpips"].tolist() != whole["lpips"].tolist()


# ── where it is measured ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("at_the_driver", [False, True], ids=["a driver without a GPU", "a driver with one"])
def test_how_many_clips_are_taken_at_a_time_is_decided_where_they_are_measured(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, at_the_driver: bool
) -> None:
    """The aesthetic model takes 7 s of CPU to a clip: two clips at a time without a GPU, and whole batches with one."""
    chosen = recipe(aesthetic={})
    monkeypatch.setattr(score, "_on_gpu", lambda filter_: at_the_driver)
    batches = score._batches(pa.table({"row": list(range(40))}))
    assert [batch.num_rows for batch in batches] == [32, 8], "whatever the driver's machine is"
    job = score.job(workspace, chosen, batches, all_scores=False)
    assert job.on_gpu
    worker = score.ScoreWorker(*job.args)
    for at_the_worker, sizes in ((True, [32]), (False, [2] * 16)):
        monkeypatch.setattr(score, "_on_gpu", lambda filter_, gpu=at_the_worker: gpu)
        assert [part.num_rows for part in worker.parts(batches[0])] == sizes
