"""Filters by name and backend, ours and other people's."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from longtake.filters import registry
from longtake.filters.base import Filter, Needs


@pytest.mark.parametrize(
    ("name", "backend"), [(name, backend) for name, backends in registry.BUILT_IN.items() for backend in backends]
)
def test_each_built_in_filter_is_what_it_is_listed_as(name: str, backend: str) -> None:
    cls = registry.filter_class(name, backend)
    assert issubclass(cls, Filter)
    assert cls.name == name
    # `pixels` and `probe` say where from; what is measured there has a name of its own in protocols
    assert cls.backend == backend
    assert cls.needs in Needs
    assert cls.unit
    assert not inspect.isabstract(cls)
    # a protocol is split at its slashes: backend first, reduction last
    assert "/" not in cls.backend
    assert "Cost:" in (sys.modules[cls.__module__].__doc__ or ""), f"{cls.__module__} does not state its cost"


def test_gates_come_in_the_order_of_their_cost() -> None:
    names = list(registry.BUILT_IN)
    assert names[:4] == ["width", "height", "fps", "duration"]
    assert names[-1] == "text_similarity"


def test_a_recipe_entry_becomes_a_filter() -> None:
    borders = registry.build("artifacts", {"backend": "borders", "reduce": "mean"})
    assert (borders.backend, borders.reduce) == ("borders", "mean")
    assert registry.build("psnr", {}).reduce == "mean"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("widht", {}, r"no filter is called 'widht'; did you mean 'width'\?"),
        ("zzz", {}, r"no filter is called 'zzz'; there are: width, height"),
        ("artifacts", {"backend": "tesseract"}, r"'artifacts' has no backend 'tesseract'; it has: rapidocr, borders"),
        ("psnr", {"reducer": "min"}, r"'psnr' has no setting 'reducer'; did you mean 'reduce'\?"),
        ("psnr", {"reduce": "median"}, r"'psnr': reduce is mean, min, max, every; not 'median'"),
        ("psnr", {"self": 1}, r"'psnr' has no setting 'self'"),
        ("psnr", {"backend": 3}, r"'psnr' has no backend 3"),
        ("psnr", {"reduce": ["mean"]}, r"'psnr': reduce is mean"),
        ("flow", {"backend": "unimatch", "variant": "scale9"}, r"'flow': variant is .*not 'scale9'"),
    ],
)
def test_what_is_not_there_is_an_error_with_the_nearest_name(
    name: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(registry.UnknownFilter, match=message):
        registry.build(name, settings)


PLUGIN = """
from longtake.filters.base import Filter, Needs

class Smell(Filter):
    name, backend, unit, needs = "smell", "nose", "1", Needs.SAMPLE
    method = "sniff"
    def __init__(self, *, reduce="mean", strength: int = 1):
        super().__init__(reduce=reduce)
        self.strength = strength
    def measure_one(self, item):
        return [float(self.strength)]

class Psnr(Smell):
    name, backend = "psnr", "mine"
"""
ENTRY_POINTS = "[longtake.filters]\nsmell.nose = smells:Smell\npsnr.mine = smells:Psnr\npsnr.pixels = smells:Psnr\n"
USE = """
from longtake.filters import registry
smell = registry.build("smell", {"strength": 4})
print(smell.protocol, smell.measure([None])[0].value)
print(registry.build("psnr", {"backend": "mine"}).protocol)
print(registry.build("psnr", {}).backend, registry.build("psnr", {"backend": "grey"}).__class__.__module__)
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
    assert done.stdout.splitlines() == ["nose/sniff/mean 4.0", "mine/sniff/mean", "grey longtake.filters.psnr"]
