"""The documentation says what the code does: the parts of it that can be checked are."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
import types
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import click
import pytest
import typer
import yaml
from pydantic_core import PydanticUndefined
from rich.console import Console

import longtake
from docs import funnel_pages
from docs.filter_pages import PAGE, documented_modules, page
from longtake.curation import recipe as recipes
from longtake.curation.cli.main import app
from longtake.curation.cli.progress import Progress
from longtake.curation.errors import KINDS
from longtake.curation.looking.stats import tier_counts
from longtake.curation.pipeline import run
from longtake.curation.recipe import Recipe, parse_recipe
from longtake.curation.stages.stage import Options
from longtake.curation.workspace import Workspace
from longtake.filters.registry import BUILT_IN, available, filter_class
from longtake.filters.verdicts import ClipScores, decide
from longtake.manifests import schemas
from longtake.presto.cli import app as trainer
from tests.corpus import SMALL, Encoding, film, pan
from tests.curation.tables import recipe as by_hand

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "guide.md"
API = ROOT / "docs" / "api.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMPUTE = ("curate", "scan", "score", "caption", "export")  # Commands that `submit` takes, with options of its own.
PROGRAMS = {"longtake": app, "longtake-presto": trainer}
BACKENDS = [(name, backend) for name, backends in BUILT_IN.items() for backend in backends]


def rows_below(marker: str) -> list[list[str]]:
    """The cells of the first table below a comment in the guide, without its head."""
    table = re.search(r"(?:\|.*\n)+", GUIDE.read_text(encoding="utf-8").partition(f"<!-- {marker} -->")[2])
    assert table, marker
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[0].splitlines()[2:]]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# ── filters ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_filters_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_funnels_page_is_up_to_date() -> None:
    assert funnel_pages.PAGE.read_text(encoding="utf-8") == funnel_pages.page(), "run `make docs`"


@pytest.mark.parametrize("name", recipes.PUBLISHED)
def test_each_number_of_a_funnel_names_its_source(name: str) -> None:
    recipe = recipes.load_recipe(name)
    assert re.search(r"arXiv \d{4}\.\d{5}", recipe.source)
    told = funnel_pages.sources(name)
    assert set(told) == {(tier, gate) for tier, gates in recipe.tiers.items() for gate in gates}
    assert all(told.values())


@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_each_filter_says_how_it_measures(name: str, backend: str) -> None:
    cls = filter_class(name, backend)
    assert cls.unit
    text = " ".join(importlib.import_module(module).__doc__ or "" for module in documented_modules(cls))
    missing = [word for word in ("formula", "unit", "protocol", "cost") if not re.search(rf"\b{word}\b", text.lower())]
    assert not missing


# ── the guide's tables ───────────────────────────────────────────────────────────────────────────────────────────────


def test_error_kinds_are_the_ones_there_are() -> None:
    told = {words(kind)[0]: (sort, meaning) for kind, sort, meaning in rows_below("error kinds")}
    assert told == KINDS


def test_gate_counts_are_the_ones_there_are() -> None:
    result = decide(ClipScores.of_rows([], by_hand().built), by_hand().tiers["pretrain"])
    told = [key for keys, _ in rows_below("gate counts") for key in words(keys)]
    assert told == [key for key in tier_counts(result)["gates"]["width"] if key != "range"]


@pytest.mark.parametrize("section", ["Recipe", "Scan", "Splitting", "Sampling", "Captioning", "Export"])
def test_recipe_keys_and_defaults(section: str) -> None:
    told = {words(row[0])[0]: row[1] for row in rows_below(f"keys: {section}")}
    fields = getattr(recipes, section).model_fields
    assert list(told) == list(fields)
    for key, field in fields.items():
        if field.default is PydanticUndefined:
            assert told[key] == "required", key
        elif told[key]:
            assert yaml.safe_load(words(told[key])[0]) == field.default, key
        else:
            assert isinstance(field.default, recipes._Section), key


@pytest.mark.parametrize("manifest", ["inputs", "videos", "clips", "captions", "exports", "runs"])
def test_columns_are_the_ones_there_are(manifest: str) -> None:
    told = set(chain.from_iterable(words(row[0]) for row in rows_below(f"columns: {manifest}")))
    schema = getattr(schemas, manifest.upper())
    further = {field.name for field in schemas.FURTHER} if manifest == "clips" else set()
    assert told - {"<filter>", "<filter>_detail", "<filter>_standard_error"} == {*schema.names, *further}


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def commands(path: Path) -> Iterator[str]:
    """What a page tells to type: lines of its shell blocks, and `code` in its text."""
    text = path.read_text(encoding="utf-8")
    blocks = [block.replace("\\\n", " ") for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)]
    inline = re.findall(r"`(longtake [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    for line in [*chain.from_iterable(block.splitlines() for block in blocks), *(" ".join(i.split()) for i in inline)]:
        yield from (part.strip() for part in re.split(r"&&|(?<!['\"])\|", line) if part.strip().startswith("longtake"))


def fault(line: str) -> str | None:
    """What the command line does not know of `longtake …`."""
    program, *arguments = shlex.split(line, comments=True)
    command: click.Command = typer.main.get_command(PROGRAMS[program])
    options = {name for param in command.params for name in param.opts} | {"-h", "--help"}
    for i, argument in enumerate(arguments):
        if command.name == "submit" and argument in COMPUTE:
            return fault(shlex.join([program, *arguments[i:]]))
        if argument.startswith("-"):
            if argument.partition("=")[0] not in options:
                return f"no option {argument}"
        elif hasattr(command, "commands"):
            if argument == "…":
                return None
            if argument not in command.commands:
                return f"no command {argument}"
            command = command.commands[argument]
            options = {n for param in command.params for n in (*param.opts, *param.secondary_opts)} | {"-h", "--help"}
    return None


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_told_exists(path: Path) -> None:
    assert not [f"{line}: {what}" for line in commands(path) if (what := fault(line))]


def test_commands_are_found() -> None:
    assert len(list(commands(GUIDE))) > 15
    assert fault("longtake nonsense") == "no command nonsense"
    assert fault("longtake stats workspace --nonsense") == "no option --nonsense"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


# ── snippets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small, whole `workspace`: one clip that is kept, and a file that is no video; and its recipe."""
    folder = tmp_path_factory.mktemp("docs")
    film(folder / "pan.mp4", pan("table", (2, 0), (200, 60), SMALL, 50), Encoding(size=SMALL))
    (folder / "broken.mp4").write_bytes(b"not a video" * 100)
    recipe: Recipe = parse_recipe(
        {
            "name": "docs",
            "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2},
            "sampling": {"partner_seconds": 0.1},
            "filters": {"grayscale": {}, "flow": {"backend": "dis"}},
            "tiers": {"pretrain": {"grayscale": "[1, 254]", "flow": ">= 0"}},
            "export": {"frames": 60, "preset": "ultrafast", "crf": 30},
        },
        source="test_docs",
    )
    (folder / "mine.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    with Progress(Console(quiet=True)) as progress:
        inputs = [str(folder / "pan.mp4"), str(folder / "broken.mp4")]
        result = run(Workspace(str(folder / "workspace")), recipe, inputs, Options(engine="inline"), progress)
    assert result.datasets == {"pretrain": 1}
    return folder


def snippets(path: Path) -> list[str]:
    return re.findall(r"^<!-- tested -->\n```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize(
    ("path", "number"),
    [pytest.param(path, i, id=f"{path.stem}-{i}") for path in PAGES for i in range(len(snippets(path)))],
)
def test_snippets_run(
    path: Path, number: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    exec(compile(snippets(path)[number], f"{path.name}, snippet {number}", "exec"), {"__name__": "snippet"})
    assert capsys.readouterr().out.strip()


def test_every_public_name_is_told() -> None:
    told = set(words(API.read_text(encoding="utf-8").partition("## All names")[2]))
    assert set(longtake.__all__) <= told


def test_the_filter_to_add_works(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "add-a-filter.md").read_text(encoding="utf-8")
    code, test = re.findall(r"^<!-- filter(?: test)? -->\n```python\n(.*?)^```", text, re.M | re.S)
    module = types.ModuleType("longtake.filters.sharpness")
    exec(code, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(available(), "sharpness", {"laplacian": "longtake.filters.sharpness:Sharpness"})
    tests: dict[str, Callable[[], None]] = {}
    exec(test, tests)
    called = [function() for name, function in tests.items() if name.startswith("test_")]
    assert len(called) == 3


# ── links ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def headings(page: Path) -> set[str]:
    """What the address of each heading ends with, as GitHub and the site write it."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = (re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", title) for title in re.findall(r"^#+ (.+)$", text, re.M))
    return {re.sub(r"[^\w -]", "", title.strip().lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_each_link_to_a_heading_leads_to_one(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target, heading in re.findall(r"\]\(([^)#:\s]*\.md)?#([^)\s]+)\)", text):
        page = (path.parent / target).resolve() if target else path
        assert heading in headings(page), f"{target}#{heading}"


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_measured_figures_stand_in_one_file() -> None:
    """README quotes rows of docs/measured.md as they are, and no other page has a table of measurements."""
    measured = set((ROOT / "docs" / "measured.md").read_text(encoding="utf-8").splitlines())
    quoted = re.findall(r"^\| .*", (ROOT / "README.md").read_text(encoding="utf-8").partition("## Measured")[2], re.M)
    assert len(quoted) > 10
    assert set(quoted) <= measured
    for path in PAGES:
        heads = re.findall(r"^(\|.*)\n\|-", path.read_text(encoding="utf-8"), re.M)
        tables = [head for head in heads if re.search(r"\| measured \|", head)]
        assert path.name in ("README.md", "measured.md") or not tables, path.name
