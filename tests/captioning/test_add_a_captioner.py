"""docs/add-a-captioner.md, followed to the letter."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from longtake.captioning import registry, settings
from longtake.curation.cli.progress import Progress
from longtake.curation.pipeline import run
from longtake.curation.recipe import parse_recipe
from longtake.curation.stages.stage import Options
from longtake.curation.workspace import Workspace
from tests.corpus import SMALL, Encoding, film, pan

PAGE = (Path(__file__).parents[2] / "docs" / "add-a-captioner.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """The code of the page below a comment with this name."""
    found = re.search(rf"^<!-- {name} -->\n```\w+\n(.*?)^```", PAGE, re.M | re.S)
    assert found, name
    return found[1]


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The captioner of the page is one of the built-in ones."""
    scope = dict(vars(settings))
    exec(block("settings"), scope)
    monkeypatch.setattr(settings, "BrightnessSettings", scope["BrightnessSettings"], raising=False)
    for name, model in eval(block("model"), scope).items():
        monkeypatch.setitem(settings.MODELS, name, model)
    for name, place in eval(block("registry")).items():
        monkeypatch.setitem(registry.BUILT_IN, name, place)
    module = types.ModuleType("longtake.captioning.brightness")
    exec(block("captioner"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.usefixtures("followed")
def test_the_test_of_the_page_passes() -> None:
    tests: dict[str, Callable[[], None]] = {}
    exec(block("captioner test"), tests)
    called = [function() for name, function in tests.items() if name.startswith("test_")]
    assert len(called) == 3


@pytest.mark.usefixtures("followed")
def test_the_recipe_of_the_page_captions_a_film(tmp_path: Path) -> None:
    plain: dict[str, Any] = {
        "name": "brightness",
        "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2},
        "sampling": {"partner_seconds": 0.1},
        "filters": {"grayscale": {}},
        "tiers": {"pretrain": {"grayscale": "[1, 254]"}},
    }
    film(tmp_path / "pan.mp4", pan("table", (2, 0), (200, 60), SMALL, 50), Encoding(size=SMALL))
    workspace = Workspace(str(tmp_path / "workspace"))
    # The sandbox of the scan is a process of its own, which does not know the captioner.
    for stage, more in (("scan", {}), ("caption", yaml.safe_load(block("recipe")))):
        recipe = parse_recipe({**plain, **more}, source="the page")
        with Progress(Console(quiet=True)) as progress:
            options = Options(stages=(stage,), engine="inline")
            run(workspace, recipe, [str(tmp_path / "pan.mp4")], options, progress)
    (row,) = workspace.captions.read().to_pylist()
    assert (row["status"], row["model"], row["caption_protocol"]) == ("ok", "brightness", "brightness/1/100")
    levels = [float(re.search(r"level of (\d+)", text)[1]) for text in row["sub_captions"]]  # type: ignore[index]
    grey = workspace.clips.read(["grayscale"])["grayscale"][0].as_py()
    assert sum(levels) / 5 == pytest.approx(grey, abs=8)
    assert row["caption"].startswith("A clip that is ")
