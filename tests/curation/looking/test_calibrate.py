"""Two scales on the same clips: statistics with known answers, and backends whose relation is known."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from scipy.stats import spearmanr

from longtake.curation.clip_table import rows_table
from longtake.curation.errors import SetupError
from longtake.curation.looking.calibrate import calibrate, parse_backend, rank_correlation, same_share
from longtake.curation.reading.samples import store_sample
from longtake.curation.recipe import parse_recipe
from longtake.curation.workspace import Workspace
from longtake.filters import registry
from longtake.filters.base import Filter, FilterSettings, Needs, Sample
from longtake.manifests import schemas
from longtake.manifests.frames import frames_writer
from tests.curation.workbench import longtake
from tests.filters.pictures import crop, resized, sample, world

SHARED = Path(__file__).parents[4] / "shared" / "models"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/models")
RECIPE = parse_recipe(
    {
        "name": "moving",
        "filters": {"flow": {"backend": "dis"}},
        "tiers": {"pretrain": {"flow": ">= 40"}, "finetune": {"flow": "[50, 300]"}},
    },
    "the test",
)
CLIPS = 12


# ── statistics ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 8, (2, 30)).astype(float)  # The numbers have many ties.
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    a = rng.normal(size=50)
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert rank_correlation(a, -(a**3)) == pytest.approx(-1)
    assert math.isnan(rank_correlation(a, np.ones(50)))


def test_the_same_share_passes_on_the_other_scale() -> None:
    a = np.arange(100.0)
    b = 3 * a + 7
    assert same_share(40, True, a, b) == pytest.approx(3 * 39.5 + 7)
    assert same_share(40, False, a, b) == pytest.approx(3 * 40.5 + 7)
    assert same_share(-1, True, a, b) is None
    assert same_share(100, True, a, b) is None
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 57))
    for end in (-1.0, 0.0, 1.5):
        for at_least in (True, False):
            found = same_share(end, at_least, a, b)
            assert found is not None
            passes = [(x >= t if at_least else x <= t).sum() for x, t in ((a, end), (b, found))]
            assert passes[0] == passes[1]


def test_backends_are_written_in_one_word() -> None:
    assert parse_backend(" dis ") == {"backend": "dis"}
    assert parse_backend("raft:variant=small:batch=2") == {"backend": "raft", "variant": "small", "batch": 2}
    with pytest.raises(SetupError, match="KEY=VALUE"):
        parse_backend("raft:small")


# ── a workspace ──────────────────────────────────────────────────────────────────────────────────────────────────────


class ShiftSettings(FilterSettings):
    factor: float = 1.0


class Shift(Filter[Sample]):
    """Motion as the test made it, which it wrote into the times: twice `factor` of it, with a sign."""

    name = "flow"
    backend = "shift"
    unit = "px"
    needs = Needs.FRAMES
    settings_model = ShiftSettings

    settings: ShiftSettings

    @property
    def method(self) -> str:
        return f"times{self.settings.factor:g}"

    def measure_one(self, item: Sample) -> Sequence[float]:
        shift = 100 * (float(item.times[0]) % 1)
        return [self.settings.factor * shift * 960 / item.keyframes.shape[2]]


@pytest.fixture
def shift(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(registry.BUILT_IN["flow"], "shift", f"{__name__}:Shift")
    registry.available.cache_clear()
    yield
    registry.available.cache_clear()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Twelve clips of a pan by 1 to 12 px at 144 px of width, 6.7 to 80 px at 960; and one that cannot be read."""
    workspace = Workspace(str(tmp_path_factory.mktemp("calibrate") / "ws"))
    picture = resized(world(), 1450, 380)
    rows = []
    for number in range(CLIPS + 1):
        video_id = f"{number:032x}"
        item = sample([crop(300, 100, 144, 128, picture), crop(301 + number, 100, 144, 128, picture)])
        item.times[:] += (number + 1) / 100
        item.partner_times[:] += (number + 1) / 100
        if number < CLIPS:
            with frames_writer(workspace.path, video_id) as writer:
                writer.write(store_sample(video_id, item, 95))
        rows.append(
            {
                "clip_id": video_id, "video_id": video_id, "uri": f"{number}.mp4", "start": 0.0, "end": 15.0,
                "status": "ok", "has_frames": True, "scan_id": "a scan", "protocols": "{}",
            }
        )  # fmt: skip
    workspace.clips.append(rows_table(rows, schemas.CLIPS, []))
    inputs = [{"video_id": row["video_id"], "uri": row["uri"]} for row in rows]
    workspace.inputs.append(pa.Table.from_pylist(inputs, schema=schemas.INPUTS))
    workspace.save_recipe(RECIPE)
    return workspace


@pytest.mark.usefixtures("shift")
def test_scales_of_known_relation(workspace: Workspace) -> None:
    found = calibrate(workspace, RECIPE, "flow", ({"backend": "shift"}, {"backend": "shift", "factor": 0.1}))
    assert (found.clips, found.failed) == (CLIPS, 1)
    assert found.rank_correlation == pytest.approx(1)
    for _, a, b in found.quantiles:
        assert b == pytest.approx(a / 10)
    # ≥ 40 px at 960 is ≥ 6 px at this size: 7 of 12 clips; one end on each scale, then the ends of the other tier.
    assert [match.gate for match in found.matches] == [">= 40", ">= 40", ">= 50", ">= 50", "<= 300", "<= 300"]
    first, back = found.matches[:2]
    assert (first.kept, first.agree) == (pytest.approx(7 / 12), 1)
    assert first.match == f">= {(5 + 6) / 2 * 960 / 144 / 10:.4g}"
    assert (back.kept, back.match) == (0, None)  # Nothing moves 40 px on the smaller scale.
    assert found.matches[4].kept == 1


@pytest.mark.usefixtures("shift")
def test_dis_against_the_truth(workspace: Workspace) -> None:
    said = longtake("calibrate", "flow", "-o", workspace.path, "--backends", "shift,dis", "--json")
    found = json.loads(said)
    assert found["rank_correlation"] > 0.97
    for _, truth, dis in found["quantiles"]:
        assert dis == pytest.approx(truth, rel=0.15, abs=1)
    said = longtake("calibrate", "flow", "-o", workspace.path, "--backends", "shift,dis", "--at", "42")
    assert "12 clips; 1 could not be measured by both" in said
    assert "shift >= 42 keeps 50.0%, as dis >= " in said
    assert said.count("keeps") == 2


@needs_shared
def test_dis_against_raft(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    monkeypatch.setenv("LONGTAKE_MODELS", str(SHARED))
    raft = "raft:variant=small:source=princeton:device=cpu"
    found = json.loads(longtake("calibrate", "flow", "-o", workspace.path, "--backends", f"dis,{raft}", "--json"))
    assert [protocol.partition("/")[0] for protocol in found["protocols"]] == ["dis", "raft"]
    assert found["rank_correlation"] > 0.9
    for _, dis, by_raft in found["quantiles"]:
        assert by_raft == pytest.approx(dis, rel=0.25, abs=3)
    assert found["matches"][0]["agree"] > 0.8


def test_faults_are_said_before_anything_is_measured(workspace: Workspace, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("LONGTAKE_MODELS", str(tmp_path))
    arguments = ("calibrate", "flow", "-o", workspace.path, "--backends")
    assert "longtake models pull unimatch" in longtake(*arguments, "dis,unimatch", code=3)
    assert "not 'disk'; did you mean 'dis'?" in longtake(*arguments, "dis,disk", code=3)
    assert "size: unknown setting" in longtake(*arguments, "dis,raft:size=3", code=3)
    longtake(*arguments, "dis", code=2)
    nothing = tmp_path / "empty"
    assert "not a workspace" in longtake("calibrate", "flow", "-o", str(nothing), "--backends", "dis,raft", code=3)
    assert "not measured on frames" in longtake(
        "calibrate", "fps", "-o", workspace.path, "--backends", "probe,probe", code=3
    )
    few = Workspace(str(tmp_path / "few"))
    few.inputs.append(pa.Table.from_pylist([{"video_id": "a", "uri": "a"}], schema=schemas.INPUTS))
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(RECIPE.model_dump(mode="json")))
    arguments = ("calibrate", "flow", "-o", few.path, "-r", str(tmp_path / "r.yaml"), "--backends", "dis,dis")
    assert "10 are needed" in longtake(*arguments, code=3)
