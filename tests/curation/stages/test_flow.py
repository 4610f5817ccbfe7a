"""Which stages run at once, and what follows from clips that a stage has done."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from longtake.curation.recipe import load_recipe, parse_recipe
from longtake.curation.stages.flow import Flow, groups
from longtake.curation.stages.stage import Options, Run
from longtake.curation.workspace import Workspace

PLAIN: dict[str, Any] = {
    "name": "flow",
    "filters": {"grayscale": {}, "flow": {"backend": "dis"}},
    "tiers": {"pretrain": {"grayscale": "[1, 254]"}},
}


def run_of(folder: Path, options: Options | None = None, **changes: Any) -> Run:
    return Run(Workspace(str(folder)), parse_recipe({**PLAIN, **changes}, source="the test"), options or Options())


def test_stages_are_cut_where_one_needs_the_whole_corpus(tmp_path: Path) -> None:
    assert groups(run_of(tmp_path)) == [["scan", "score", "caption", "export"]]
    assert groups(run_of(tmp_path, Options(("scan", "caption", "export")))) == [["scan"], ["caption", "export"]]
    assert groups(run_of(tmp_path, Options(("caption",), sample=5))) == [["caption"]]
    copies = run_of(tmp_path, captioning={"captioner": "descriptors", "max_copies": 3})
    assert groups(copies) == [["scan", "score", "caption"], ["export"]]


@pytest.mark.parametrize("name", ["embedded", "longtake-hd"])
def test_near_duplicates_are_not_captioned(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    cut = groups(Run(Workspace(str(tmp_path)), recipe, Options()))
    first = ["scan", "score"] if "duplicates" in recipe.filters else ["scan", "score", "caption"]
    assert cut[0][:3] == first


def test_a_flow_travels_as_plain_data(tmp_path: Path) -> None:
    flow = Flow.of(["scan", "score"], run_of(tmp_path))
    assert pickle.loads(pickle.dumps(flow)) == flow
