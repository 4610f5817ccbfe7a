"""A stage is an object with a plan and a worker; a run reads each manifest little."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from longtake.curation.cli.progress import Progress
from longtake.curation.looking.stats import statistics
from longtake.curation.pipeline import run
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.curation.stages.stage import STAGES, Options, stage
from longtake.curation.workspace import Workspace
from longtake.manifests.store import Manifest
from tests.corpus import SMALL, Encoding, film, pan

ROOT = Path(__file__).parents[3]


def recipe(**changes: Any) -> Recipe:
    plain = {
        "name": "stages",
        "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2},
        "sampling": {"partner_seconds": 0.1},
        "filters": {"grayscale": {}, "flow": {"backend": "dis"}},
        "tiers": {"pretrain": {"grayscale": "[1, 254]", "flow": ">= 0"}, "finetune": {"flow": ">= 1"}},
        "export": {"frames": 60, "preset": "ultrafast", "crf": 30},
    }
    return parse_recipe({**plain, **changes}, source="the test")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which all is done: one film, one file that is none."""
    folder = tmp_path_factory.mktemp("stages")
    film(folder / "pan.mp4", pan("table", (2, 0), (200, 60), SMALL, 50), Encoding(size=SMALL))
    (folder / "broken.mp4").write_bytes(b"not a video" * 100)
    curate(Workspace(str(folder / "workspace")), [str(folder / "pan.mp4"), str(folder / "broken.mp4")])
    return folder / "workspace"


def curate(workspace: Workspace, inputs: list[str], options: Options | None = None) -> Any:
    with Progress(Console(quiet=True)) as progress:
        return run(workspace, recipe(), inputs, options or Options(engine="inline"), progress)


def test_each_stage_is_listed_once_and_loads() -> None:
    names = [listed.name for listed in STAGES]
    assert names == ["scan", "score", "caption", "export"]
    for name in names:
        assert stage(name).name == name
    with pytest.raises(KeyError):
        stage("nonsense")


def test_each_filter_is_measured_by_one_stage() -> None:
    from longtake.filters.base import Needs

    measured = Counter(need for listed in STAGES for need in stage(listed.name).measures)
    assert measured == dict.fromkeys(Needs, 1)


def test_a_finished_workspace_reads_each_manifest_at_most_twice(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted are readings of rows from files: those of `read`, and the keys that `compact` reads."""
    reads: Counter[str] = Counter()
    load_all: Callable[..., Any] = Manifest._load_all

    def counted(self: Manifest, *arguments: Any, **words: Any) -> Any:
        reads[self.name] += 1
        return load_all(self, *arguments, **words)

    monkeypatch.setattr(Manifest, "_load_all", counted)
    workspace = Workspace(str(finished), remembers=True)
    films = [str(finished.parent / "pan.mp4"), str(finished.parent / "broken.mp4")]
    result = curate(workspace, films)
    assert {name: report.rows for name, report in result.stages.items()} == dict.fromkeys(result.stages, 0)
    statistics(workspace, recipe())
    assert set(reads) == {"inputs", "videos", "clips", "captions", "exports", "runs", "forgotten"}
    assert not {name: count for name, count in reads.items() if count > 2}, reads


def test_what_is_remembered_is_what_is_there(finished: Path) -> None:
    plain, remembering = Workspace(str(finished)), Workspace(str(finished), remembers=True)
    for manifest in ("inputs", "videos", "clips", "captions", "exports", "runs"):
        one, other = getattr(plain, manifest), getattr(remembering, manifest)
        assert other.read().equals(one.read())
    columns = ["clip_id", "status", "protocols"]
    asked: dict[str, Any] = {"optional": ["flow", "nothing"], "encoded": ["status", "protocols"]}
    one, other = plain.clips.read(columns, **asked), remembering.clips.read(columns, **asked)
    assert other.schema == one.schema
    assert other.to_pylist() == one.to_pylist()
    before = remembering.clips.read()
    plain.clips.append(before.slice(0, 1).set_column(before.column_names.index("start"), "start", [[7.5]]))
    assert 7.5 in remembering.clips.read()["start"].to_pylist()
    remembering.clips.compact()
    assert plain.clips.rows() == before.num_rows
    assert remembering.clips.read().num_rows == before.num_rows


FOLLOWED = """
import sys, types
page = open(sys.argv[1], encoding="utf-8").read()
def block(name):
    return page.split(f"<!-- {name} -->\\n```python\\n")[1].split("```")[0]
module = types.ModuleType("longtake.curation.stages.palette")
exec(compile(block("stage"), "palette.py", "exec"), module.__dict__)
sys.modules[module.__name__] = module
from longtake.curation.stages import stage
line = eval(block("line"), {"Listed": stage.Listed})
stage.STAGES = (*stage.STAGES[:2], line, *stage.STAGES[2:])
from longtake.curation.cli.main import app
app(sys.argv[2:])
"""


def follow(*arguments: str) -> str:
    """`longtake …` with the stage that docs/add-a-stage.md adds."""
    page = ROOT / "docs" / "add-a-stage.md"
    done = subprocess.run(
        [sys.executable, "-c", FOLLOWED, str(page), *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_stage_to_add_works(finished: Path) -> None:
    assert "Find the mean colour of each clip." in follow("--help")
    assert "palette: 1 computed" in follow("palette", str(finished), "--engine", "inline")
    row = pd.read_parquet(finished / "palette").iloc[0]
    (frames,) = Path(finished, "frames").rglob("*.parquet")
    pictures = pd.read_parquet(frames)["keyframes"][0]
    mean = np.mean([cv2.imdecode(np.frombuffer(p, np.uint8), 1)[..., ::-1].mean((0, 1)) for p in pictures], axis=0)
    assert [row["red"], row["green"], row["blue"]] == pytest.approx(mean.tolist(), abs=0.01)
    assert "palette: nothing to compute" in follow("palette", str(finished), "--engine", "inline")
    stages = json.loads(follow("stats", str(finished), "--json"))["stages"]
    assert stages["palette"]["rows"] == 1
    assert "--until" in follow("curate", "--help")
    assert "palette" in follow("curate", "--help")
