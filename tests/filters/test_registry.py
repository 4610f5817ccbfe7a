"""Filters by name and backend, ours and other people's."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.filters import registry
from longtake.filters.base import Filter, Needs

BACKENDS = [(name, backend) for name, backends in registry.BUILT_IN.items() for backend in backends]


@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_each_built_in_filter_is_what_it_is_listed_as(name: str, backend: str) -> None:
    cls = registry.filter_class(name, backend)
    assert issubclass(cls, Filter)
    assert cls.name == name
    # The backends `pixels` and `probe` name the source; the measurement itself has a name of its own in protocols.
    assert cls.backend == backend
    assert cls.needs in Needs
    assert cls.unit
    assert not inspect.isabstract(cls)
    # A protocol is split at its slashes: the backend comes first, and the reduction last.
    assert "/" not in cls.backend
    assert "Cost:" in (sys.modules[cls.__module__].__doc__ or ""), f"{cls.__module__} does not state its cost"


def test_gates_come_in_the_order_of_their_cost() -> None:
    names = list(registry.BUILT_IN)
    assert names[:4] == ["width", "height", "fps", "duration"]
    assert names[-2:] == ["text_similarity", "alignment"]


def test_a_recipe_entry_becomes_a_filter() -> None:
    borders = registry.build("artifacts", {"backend": "borders", "reduce": "mean"})
    assert (borders.backend, borders.reduce) == ("borders", "mean")
    assert registry.build("psnr", {}).reduce == "mean"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("widht", {}, r"no filter is called 'widht'; did you mean 'width'\?"),
        ("zzz", {}, r"no filter is called 'zzz'; there are: width, height"),
        (
            "artifacts",
            {"backend": "tesseract"},
            "'artifacts': backend: must be rapidocr or borders, not 'tesser",
        ),
        ("flow", {"backend": "rafft"}, r"'flow': backend: must be .*, not 'rafft'; did you mean 'raft'\?"),
        ("psnr", {"reducer": "min"}, r"'psnr': reducer: unknown setting; did you mean 'reduce'\?"),
        ("psnr", {"zzz": "min"}, r"'psnr': zzz: unknown setting; there are: reduce"),
        (
            "psnr",
            {"reduce": "median"},
            r"reduce: must be one of mean, min, max or every, not 'median'; did you mean 'mean'",
        ),
        ("psnr", {"self": 1}, r"'psnr': self: unknown setting"),
        ("psnr", {"backend": 3}, r"'psnr': backend: must be grey, not 3"),
        ("psnr", {"reduce": ["mean"]}, r"'psnr': reduce: must be one of .*, not a list"),
        (
            "flow",
            {"backend": "unimatch", "variant": "scale9"},
            r"variant: must be .*, not 'scale9'; did you mean 'scale",
        ),
        (
            "lpips",
            {"device": "tpu"},
            r"'lpips': device: must be one of auto, cpu or cuda, not 'tpu'; did you mean 'cpu'\?",
        ),
        ("lpips", {"precision": "float8"}, "precision: must be one of float32, float16 or bfloat16, not 'float8'"),
        ("lpips", {"batch": 2.5}, "batch: must be a whole number from 1, not 2.5"),
        ("lpips", {"batch": True}, "batch: must be a whole number from 1, not true"),
        ("lpips", {"batch": "4"}, "batch: must be a whole number from 1, not '4'"),
        ("lpips", {"batch": 0}, "batch: must be a whole number from 1, not 0"),
        ("lpips", {"memory": 0.5}, "memory: must be a whole number from 1, or null, not 0.5"),
        ("lpips", {"device": "cpu", "precision": "float16"}, "precision: float16 needs a CUDA device"),
        ("duplicates", {"threshold": 1.5}, "threshold: must be a number above 0 and up to 1, not 1.5"),
        ("duplicates", {"threshold": float("nan")}, "threshold: must be a number above 0 and up to 1, not nan"),
        ("duplicates", {"exact_up_to": -1}, "exact_up_to: must be a whole number from 0, not -1"),
        ("duplicates", {"exact_up_to": -(10**5000)}, "exact_up_to: must be .*, not a number with thousands of digits"),
        ("text_similarity", {"device": "tpu"}, "device: must be one of auto, cpu, cuda or mps, not 'tpu'"),
        ("text_similarity", {"model_path": 3}, "model_path: must be a text, or null, not 3"),
    ],
)
def test_what_is_not_there_is_an_error_with_the_nearest_name(
    name: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(registry.UnknownFilter, match=message):
        registry.build(name, settings)


def test_all_faults_of_a_filter_are_told_together() -> None:
    entry = {"backend": "raft", "device": "tpu", "precision": "float8", "batch": 2.5, "varient": "small"}
    with pytest.raises(registry.UnknownFilter) as caught:
        registry.build("flow", entry)
    assert [fault.path for fault in caught.value.faults] == ["batch", "device", "precision", "varient"]
    assert str(caught.value).count("; did you mean") == 3
    assert str(caught.value).startswith("filter 'flow': batch: must be a whole number from 1, not 2.5; device: ")
    # A misspelt backend is no obstacle: the other settings are taken for those of the one that it resembles.
    with pytest.raises(registry.UnknownFilter) as caught:
        registry.build("flow", {**entry, "backend": "rafft"})
    assert [fault.path for fault in caught.value.faults] == ["backend", "batch", "device", "precision", "varient"]


@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_each_built_in_filters_settings_are_described_and_annotated(name: str, backend: str) -> None:
    cls = registry.filter_class(name, backend)
    for key, field in cls.settings_model.model_fields.items():
        assert field.description, key
        assert not field.is_required(), key
    assert typing.get_type_hints(cls)["settings"] in cls.settings_model.__mro__
    assert registry.build(name, {"backend": backend}).settings == cls.settings_model()
    assert cls.settings_model.without_effect <= set(cls.settings_model.model_fields)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def entries(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A filter, and what a recipe might say of it: known and unknown keys, good and bad values."""
    name, backend = draw(st.sampled_from(BACKENDS))
    model = registry.filter_class(name, backend).settings_model
    keys = st.sampled_from(["backend", *model.model_fields]) | st.text(max_size=8)
    good = [field.default for field in model.model_fields.values()]
    entry = draw(st.dictionaries(keys, st.sampled_from([backend, "float16", "cuda", *good]) | JSON, max_size=4))
    return name, draw(st.sampled_from([entry, {**entry, "backend": backend}]))


@given(entries())
@settings(deadline=None, max_examples=200)
def test_any_settings_make_a_filter_or_are_refused_in_words(given_entry: tuple[str, dict[str, Any]]) -> None:
    name, entry = given_entry
    try:
        filter_ = registry.build(name, entry)
    except registry.UnknownFilter:
        return
    kept = filter_.settings.model_dump(mode="json")
    assert {key: kept[key] for key in entry if key != "backend"} == {k: v for k, v in entry.items() if k != "backend"}
    again = registry.build(name, {"backend": filter_.backend, **json.loads(json.dumps(kept))})
    assert again.settings == filter_.settings


PLUGIN = """
from typing import ClassVar

from pydantic import Field
from longtake.filters.base import Filter, FilterSettings, Needs

class SmellSettings(FilterSettings):
    strength: int = Field(1, ge=1, description="of the nose")

class Smell(Filter):
    name, backend, unit, needs = "smell", "nose", "1", Needs.SAMPLE
    method = "sniff"
    settings_model = SmellSettings
    def measure_one(self, item):
        return [float(self.settings.strength)]

class Psnr(Smell):
    name, backend = "psnr", "mine"

class Old(Filter):
    name, backend, unit, needs = "old", "bare", "1", Needs.SAMPLE
    method = "bare"
    def __init__(self, *, reduce="mean", strength: int = 1):
        super().__init__(reduce=reduce)
        self.strength = strength
    def measure_one(self, item):
        return [float(self.strength)]

number = 3
"""
ENTRY_POINTS = """[longtake.filters]
smell.nose = smells:Smell
psnr.mine = smells:Psnr
psnr.pixels = smells:Psnr
old.bare = smells:Old
gone.away = smells_gone:Gone
wrong.number = smells:number
"""
USE = """
from longtake.filters import registry
smell = registry.build("smell", {"strength": 4})
print(smell.protocol, smell.measure([None])[0].value)
print(registry.build("psnr", {"backend": "mine"}).protocol)
print(registry.build("psnr", {}).backend, registry.build("psnr", {"backend": "grey"}).__class__.__module__)
print(registry.build("old", {"strength": 2}).measure([None])[0].value)
smells = ("smell", {"strenght": 0}), ("smell", {"strength": 0})
for name, settings in (*smells, ("old", {"weight": 0}), ("gone", {}), ("wrong", {})):
    try:
        registry.build(name, settings)
    except registry.UnknownFilter as error:
        print(error)
from longtake.curation.recipe import Recipe
print(Recipe.model_json_schema()["properties"]["filters"]["properties"]["smell"]["properties"]["strength"]["description"])
"""


def test_other_packages_add_filters_and_replace_none(tmp_path: Path) -> None:
    (tmp_path / "smells.py").write_text(PLUGIN)
    info = tmp_path / "smells-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: smells\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    root = Path(registry.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", USE],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{tmp_path}:{root}", "PATH": ""},
        cwd=tmp_path,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "nose/sniff/mean 4.0",
        "mine/sniff/mean",
        "grey longtake.filters.psnr",
        "2.0",
        "filter 'smell': strenght: unknown setting; did you mean 'strength'?",
        "filter 'smell': strength: must be a whole number from 1, not 0",
        "filter 'old': cannot be made: Old.__init__() got an unexpected keyword argument 'weight'",
        "filter 'gone': smells_gone:Gone does not load: No module named 'smells_gone'",
        "filter 'wrong': smells:number is no longtake.filters.base.Filter",
        "of the nose",
    ]
