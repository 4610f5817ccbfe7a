"""A stage is an object with a plan and a worker; a run reads each manifest little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
        return run(workspace, recipe(), inputs, options or Options(inline=True), progress)


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
    assert set(reads) == {"inputs", "videos", "clips", "captions", "exports", "runs"}
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
