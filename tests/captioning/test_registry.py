"""Captioners by name, ours and other people's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from longtake.captioning import registry
from longtake.captioning.descriptors import Descriptors
from longtake.captioning.sidecar import Sidecar


def test_the_built_in_captioners_are_made_by_name() -> None:
    assert isinstance(registry.make_captioner("descriptors"), Descriptors)
    assert isinstance(registry.make_captioner("sidecar", {}), Sidecar)
    assert {"descriptors", "sidecar"} <= set(registry.names())
    for name in registry.BUILT_IN:
        assert registry.captioner_class(name).name == name


def test_an_unknown_name_or_setting_names_the_nearest_known_one() -> None:
    with pytest.raises(ValueError, match=r"'descriptor'; did you mean 'descriptors'\?"):
        registry.make_captioner("descriptor")
    with pytest.raises(ValueError, match="there are: descriptors, openai, sidecar"):
        registry.make_captioner("zzz")
    with pytest.raises(ValueError, match="'descriptors': colours: unknown setting"):
        registry.make_captioner("descriptors", {"colours": 3})
    with pytest.raises(
        ValueError, match=r"path: must be given .*; batch_size: must be .*; tries: must be .* from 1 to 10"
    ):
        registry.make_captioner("transformers", {"batch_size": 0, "tries": 11})


PLUGIN = """
from pydantic import BaseModel, Field
from longtake.captioning.base import Captioner, Captions

class Poet(Captioner):
    name = "poet"
    protocol = "poet/1"
    def __init__(self, *, metre: str = "iambic") -> None:
        if metre not in ("iambic", "free"):
            raise ValueError(f"no metre {metre}")
        self.metre = metre

class BardSettings(BaseModel, extra="forbid"):
    verses: int = Field(3, ge=1)

class Bard(Captioner):
    name = "bard"
    protocol = "bard/1"
    settings_model = BardSettings
    def __init__(self, **settings) -> None:
        self.verses = BardSettings(**settings).verses

not_a_captioner = 3
"""


def test_another_package_adds_a_captioner_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "poetry_plugin.py").write_text(PLUGIN)
    info = tmp_path / "poetry_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: poetry-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[longtake.captioners]\npoet = poetry_plugin:Poet\nbard = poetry_plugin:Bard\nnumber = poetry_plugin:not_a_captioner\n"
        "gone = poetry_plugin_gone:Poet\nsidecar = poetry_plugin:Poet\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "poet" in registry.names()
    poet = registry.make_captioner("poet", {"metre": "free"})
    assert (poet.name, poet.metre) == ("poet", "free")  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="did you mean 'metre'"):
        registry.make_captioner("poet", {"meter": "free"})
    with pytest.raises(ValueError, match="no metre blank"):
        registry.make_captioner("poet", {"metre": "blank"})
    assert registry.make_captioner("bard", {"verses": 4}).verses == 4  # type: ignore[attr-defined]
    with pytest.raises(
        ValueError, match="verses: must be a whole number from 1; rhyme: unknown setting; there are: verses"
    ):
        registry.make_captioner("bard", {"verses": 0, "rhyme": True})
    with pytest.raises(ValueError, match="'number' is no"):
        registry.make_captioner("number")
    with pytest.raises(ValueError, match=r"'gone' \(poetry_plugin_gone:Poet\) does not load"):
        registry.make_captioner("gone")
    # A plugin cannot replace a captioner of longtake unseen.
    assert isinstance(registry.make_captioner("sidecar"), Sidecar)


def test_captioning_loads_no_pipeline_and_no_heavy_library() -> None:
    code = (
        "import sys, longtake.captioning.registry as r; "
        "[r.make_captioner(n, {'path': 'x'} if n in ('transformers', 'vllm') else {}) for n in r.BUILT_IN]; "
        "unwanted = ('longtake.curation', 'longtake.manifests.store', 'ray', 'torch', 'transformers'); "
        "print([m for m in unwanted if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
