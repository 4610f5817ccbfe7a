"""The documentation as a site that one can browse and search: `python -m docs.site FOLDER`, by Zensical.

The pages are those of `docs/`, README.md as the first one, and pages that are made here: the help of every command, and what each
module is for, from the docstrings. They are built in a folder of their own, so that nothing made lies among the sources.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import typer

from longtake.curation.cli.main import app

ROOT = Path(__file__).parents[1]
PACKAGES = ("curation", "filters", "captioning", "manifests", "presto")
_CONFIG = """\
[project]
site_name = "LongTake"
site_description = "Raw video in; filtered, captioned training shards out."
docs_dir = "pages"
site_dir = "site"
use_directory_urls = false
nav = [
{nav}
]
"""
NAV = {
    "Home": "index.md",
    "Guide": "guide.md",
    "Load the result": "load.md",
    "First look": "first-look.md",
    "Commands": "commands.md",
    "Filters": "filters.md",
    "Published funnels": "funnels.md",
    "Clusters": "clusters.md",
    "Captioning": "captioning.md",
    "Report and studio": "report-and-studio.md",
    "Python": "api.md",
    "Weights": "models.md",
    "Presto": "presto.md",
    "Training on many GPUs": "training.md",
    "Architecture": "architecture.md",
    "Modules": "modules.md",
    "Add a filter": "add-a-filter.md",
    "Add a captioner": "add-a-captioner.md",
    "Add a stage": "add-a-stage.md",
    "Measured": "measured.md",
    "Tried and not kept": "tried.md",
}


def write_pages(folder: Path) -> None:
    """All pages into a folder, as Zensical reads them. A link out of the pages is a word without a link."""
    folder.mkdir(parents=True)
    for page in (ROOT / "docs").glob("*.md"):
        _write(folder / page.name, page.read_text(encoding="utf-8"))
    home = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    _write(folder / "index.md", home)
    _write(folder / "commands.md", "\n\n".join(commands()))
    _write(folder / "modules.md", "\n\n".join(modules()))
    _write(folder / "first-look.md", notebook(ROOT / "docs" / "first-look.ipynb"))
    left_out = {page.name for page in folder.iterdir()} - set(NAV.values())
    assert not left_out, f"no place in the navigation for {left_out}"


def _write(path: Path, text: str) -> None:
    path.write_text(re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", text), encoding="utf-8")


def commands() -> Iterator[str]:
    """The help of each command, as it is typed."""
    yield "# Commands"
    yield "What `longtake COMMAND --help` says."
    root = typer.main.get_command(app)
    todo: list[tuple[str, click.Command]] = [("longtake", root)]
    while todo:
        name, command = todo.pop(0)
        inner = getattr(command, "commands", {})
        todo += [(f"{name} {key}", value) for key, value in inner.items()]
        if not inner:
            context = command.make_context(name, [], resilient_parsing=True)
            context.max_content_width = 100
            yield f"## {name}"
            yield f"```text\n{command.get_help(context)}\n```"


def modules() -> Iterator[str]:
    """What each module is for."""
    yield "# Modules"
    yield "From their docstrings."
    for package in PACKAGES:
        yield f"## {package}"
        for path in sorted((ROOT / package).rglob("*.py")):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            if text and path.name != "__init__.py":
                yield f"### {path.relative_to(ROOT).as_posix()}"
                yield f"```text\n{text}\n```"


def notebook(path: Path) -> str:
    """A notebook's text and code as a page."""
    import json

    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def build(target: Path) -> None:
    """The site into `target`, which is replaced. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_pages(folder / "pages")
        nav = "\n".join(f'  {{ "{title}" = "{page}" }},' for title, page in NAV.items())
        (folder / "zensical.toml").write_text(_CONFIG.format(nav=nav), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "zensical", "build", "--clean"], cwd=folder, check=True)
        if target.exists():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder / "site", target)


def main() -> None:
    """Entry point of `make docs`."""
    target = Path(sys.argv[1])
    build(target)
    print(f"written: {target / 'index.html'}")


if __name__ == "__main__":
    main()
