"""What one reads and runs: the site is built, the notebook runs on films, and each way of loading a dataset loads one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from docs import site
from longtake.curation.cli.progress import Progress
from longtake.curation.pipeline import run
from longtake.curation.recipe import parse_recipe
from longtake.curation.stages.stage import Options
from longtake.curation.workspace import Workspace
from tests.corpus import SMALL, Encoding, film, pan

ROOT = Path(__file__).parents[1]
LOAD = (ROOT / "docs" / "load.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", LOAD, re.M | re.S)


def test_every_page_has_a_place(tmp_path: Path) -> None:
    site.write_pages(tmp_path / "pages")
    pages = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "pages").iterdir()}
    assert set(pages) == set(site.NAV.values())
    assert "## longtake plan" in pages["commands.md"]
    assert "### filters/psnr.py" in pages["modules.md"]
    for name, text in pages.items():
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
            assert target in pages, f"{name}: {target}"


def test_the_site_is_built(tmp_path: Path) -> None:
    pytest.importorskip("zensical")
    site.build(tmp_path / "site")
    assert "LongTake" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "site" / "commands.html").is_file()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `workspace` with one clip in `pretrain`, in every format that this machine can write, and `demo/videos`."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "demo" / "videos").mkdir(parents=True)
    film(folder / "demo" / "videos" / "pan.mp4", pan("table", (2, 0), (200, 60), SMALL, 98), Encoding(size=SMALL))
    formats = ["parquet", "webdataset", "huggingface", "fiftyone"]
    try:
        import lance  # noqa: F401

        formats.append("lance")
    except ModuleNotFoundError:
        pass
    recipe = parse_recipe(
        {
            "name": "docs",
            "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2},
            "sampling": {"partner_seconds": 0.1},
            "filters": {"grayscale": {}, "flow": {"backend": "dis"}},
            "tiers": {"pretrain": {"grayscale": "[1, 254]", "flow": ">= 0"}},
            "export": {"frames": 60, "preset": "ultrafast", "crf": 30, "formats": formats},
        },
        source="test_site",
    )
    with Progress(Console(quiet=True)) as progress:
        run(Workspace(str(folder / "workspace")), recipe, [str(folder / "demo")], Options(engine="inline"), progress)
    return folder


@pytest.mark.parametrize("block", BLOCKS, ids=lambda text: text.split()[1])
def test_each_way_of_loading_loads(
    block: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    module = pytest.importorskip(block.split()[1])
    if module.__name__ == "fiftyone":
        try:
            module.list_datasets()
        except Exception as error:
            pytest.skip(f"FiftyOne's database, which its package fetches, does not start: {error}")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    exec(compile(block, "load.md", "exec"), {"__name__": "snippet"})
    assert capsys.readouterr().out.strip()


def test_the_notebook_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Cell by cell, as a kernel does, the value of a cell's last line being shown."""
    monkeypatch.chdir(folder)
    shutil.rmtree(folder / "first-look", ignore_errors=True)
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in json.loads((ROOT / "docs" / "first-look.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert "'all'" in capsys.readouterr().out
    assert len(names["files"]) == 1  # type: ignore[arg-type]
