"""`import longtake`: its tables, verdicts and clips against answers worked out on paper, its types, what it loads."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

import longtake
from longtake.curation.cli.main import app
from longtake.curation.clip_table import rows_table
from longtake.manifests import schemas
from longtake.presto.cli import app as trainer
from tests.corpus import SMALL, Encoding, film, pan
from tests.curation.tables import VERDICTS, clip_id, fill, recipe

ROOT = Path(__file__).parents[2]
WORDS = {"k": "kept", "r": "rejected", "e": "error", "u": "undecided"}
# The clips of tests/curation/tables.py in the tier pretrain: the gates that fail and by how much, those without a score.
PRETRAIN: dict[str, tuple[dict[str, float], list[str]]] = {
    "a": ({}, []),
    "b": ({"text_similarity": 0.01}, []),
    "c": ({"width": -640}, ["psnr", "artifacts", "text_similarity"]),
    "d": ({"psnr": 5}, ["artifacts", "text_similarity"]),
    "e": ({"width": -640, "psnr": 5, "artifacts": 0.15}, ["text_similarity"]),
    "f": ({}, []),
    "g": ({}, ["artifacts", "text_similarity"]),
    "h": ({"artifacts": 0.25}, ["text_similarity"]),
    "i": ({}, []),
    "j": ({}, ["psnr"]),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fill(tmp_path_factory.mktemp("api") / "workspace").path


@pytest.fixture(scope="module")
def workspace(path: str) -> longtake.OpenWorkspace:
    return longtake.open(path)


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tables_hold_what_the_manifests_hold(workspace: longtake.OpenWorkspace) -> None:
    videos, clips, captions = workspace.videos(), workspace.clips(), workspace.captions()
    assert list(videos.video_id) == ["v1", "v2", "v3", "v4"]
    assert list(videos[videos.status == "error"].error_kind) == ["not_video"]
    assert "clips" not in videos  # The clips of a video are nested: they are rows of a table of their own.
    assert list(clips.clip_id) == [clip_id(letter) for letter in "abcdefghij"]
    assert clips.psnr.dtype == "float64"
    assert clips.psnr.isna().tolist() == [letter in "cf" for letter in "abcdefghij"]
    assert captions.set_index("clip_id").status[clip_id("i")] == "refused"


@pytest.mark.parametrize("name", ["videos", "clips", "captions"])
def test_a_table_comes_as_pandas_or_as_arrow_with_the_columns_asked_for(
    workspace: longtake.OpenWorkspace, name: str
) -> None:
    read: Callable[..., Any] = getattr(workspace, name)
    key = schemas.VIDEOS.names[0] if name == "videos" else "clip_id"
    assert isinstance(read(), pd.DataFrame)
    table = read(arrow=True)
    assert isinstance(table, pa.Table)
    assert table.column_names == list(read().columns)
    assert read(["status", key], arrow=True).column_names == ["status", key] == list(read(["status", key]).columns)
    with pytest.raises(longtake.StoreError, match="no column 'nonsense'"):
        read(["nonsense"])


def test_the_newest_row_counts(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w")
    row = workspace.clips.read().slice(0, 1).to_pylist()[0] | {"psnr": 12.0}
    workspace.clips.append(rows_table([row], schemas.CLIPS, ["width", "psnr", "artifacts"]))
    clips = longtake.open(workspace.path).clips()
    assert len(clips) == 10
    assert clips.set_index("clip_id").psnr[clip_id("a")] == 12


def test_stats_are_those_of_the_command(workspace: longtake.OpenWorkspace) -> None:
    printed = CliRunner().invoke(app, ["stats", workspace.path, "--json"]).stdout
    assert json.loads(json.dumps(workspace.stats())) == json.loads(printed)
    assert workspace.stats(near=0)["near_misses"] == []


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_verdicts_and_their_reasons_are_those_worked_out_on_paper(workspace: longtake.OpenWorkspace) -> None:
    table = workspace.verdicts("pretrain", arrow=True)
    assert table.schema.types[2:5] == [pa.list_(pa.string()), pa.list_(pa.float64()), pa.list_(pa.string())]
    for row, (letter, (failed, missing)) in zip(table.to_pylist(), PRETRAIN.items(), strict=True):
        assert row["clip_id"] == clip_id(letter)
        assert row["verdict"] == WORDS[VERDICTS["pretrain"][letter]]
        assert row["failed"] == list(failed)
        assert row["excess"] == pytest.approx(list(failed.values()))
        assert row["missing"] == missing
    errors = {row["clip_id"][0]: (row["error_kind"], row["error"]) for row in table.to_pylist() if row["error_kind"]}
    assert errors == {"f": ("frames", "[bold]gone[/bold]"), "i": ("caption", "the model would not")}


@pytest.mark.parametrize("tier", VERDICTS)
def test_verdicts_as_pandas(workspace: longtake.OpenWorkspace, tier: str) -> None:
    table = workspace.verdicts(tier)
    assert list(table.columns) == ["clip_id", "verdict", "failed", "excess", "missing", "error_kind", "error"]
    assert list(table.verdict) == [WORDS[word] for word in VERDICTS[tier].values()]


def kept(table: pd.DataFrame) -> str:
    return "".join(table[table.verdict == "kept"].clip_id.str[0])


def test_a_missing_score_is_never_read_as_passed(workspace: longtake.OpenWorkspace) -> None:
    # Every range but the one of width is as wide as can be: what has no score is undecided all the same.
    wide: dict[str, Any] = {"psnr": "<= 1e9", "artifacts": "<= 1e9", "text_similarity": "<= 1e9"}
    table = workspace.verdicts("pretrain", **wide)
    assert kept(table) == "ab"
    assert "".join(table[table.verdict == "undecided"].clip_id.str[0]) == "dghj"


def test_gates_are_given_as_a_recipe_writes_them(workspace: longtake.OpenWorkspace) -> None:
    assert kept(workspace.verdicts("finetune")) == "agh"
    assert kept(workspace.verdicts("finetune", psnr="[10, 30]")) == "bd"
    assert kept(workspace.verdicts("finetune", psnr=[10, None])) == "bd"
    assert kept(workspace.verdicts("finetune", psnr=longtake.Gate(low=10))) == "bd"
    assert kept(workspace.verdicts("finetune", psnr="off")) == "abdghj"
    # Without a gate, the tier keeps all clips but errors.
    assert kept(workspace.verdicts("finetune", psnr="off", width="off")) == "abcdeghj"
    assert kept(workspace.verdicts("finetune", artifacts="<= 0.05")) == "a"  # The score of g is a lower bound.
    assert kept(workspace.verdicts("finetune")) == "agh"  # The changed gates are not kept.


@pytest.mark.parametrize(
    ("tier", "gates", "message"),
    [
        ("nonsense", {}, "no tier 'nonsense'; there are: pretrain, finetune"),
        ("pretrain", {"flow": ">= 30"}, "no filter of that name"),
        ("pretrain", {"psnr": "30"}, "psnr='30': not a gate"),
        ("pretrain", {"psnr": [20, 4]}, "psnr=.*an empty range"),
        ("finetune", {"artifacts": "off"}, "has no such gate"),
    ],
)
def test_what_is_no_gate_says_what_would_be(
    workspace: longtake.OpenWorkspace, tier: str, gates: dict[str, Any], message: str
) -> None:
    with pytest.raises(longtake.RecipeError, match=message):
        workspace.verdicts(tier, **gates)


def test_verdicts_under_another_recipe(path: str, tmp_path: Path) -> None:
    other = recipe(tiers={"wide": {"width": ">= 1920"}})
    (tmp_path / "mine.yaml").write_text(other.to_yaml())
    for given in (other, tmp_path / "mine.yaml", str(tmp_path / "mine.yaml")):
        workspace = longtake.open(Path(path), recipe=given)
        assert workspace.recipe == other
        assert kept(workspace.verdicts("wide")) == "abghj"
    assert longtake.open(path).recipe == recipe()


def test_scores_that_are_believed_are_warned_of(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unavailable:
        def __get__(self, *_: object) -> str:
            raise longtake.FilterUnavailable("a package is missing")

    workspace = longtake.open(path)
    monkeypatch.setattr(type(workspace.recipe.built["psnr"]), "method", Unavailable())
    with pytest.warns(UserWarning, match="stored scores of psnr are believed: a package is missing") as warned:
        workspace.verdicts("pretrain")
    assert [warning.filename for warning in warned] == [__file__]


# ── one clip ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_clip_by_its_first_digits(workspace: longtake.OpenWorkspace) -> None:
    clip = workspace.clip("eee")
    assert clip.clip_id == clip_id("e")
    assert clip.scores == {"width": 640, "psnr": 25, "artifacts": 0.2}
    assert clip.verdicts == {"pretrain": "rejected", "finetune": "rejected"}
    assert clip.reasons("finetune") == ["width 640 is outside >= 1280 by 640", "psnr 25 is outside [4, 10] by 15"]
    assert workspace.clip("g").missing["pretrain"] == ["artifacts", "text_similarity"]
    assert workspace.clip("g").verdicts == {"pretrain": "undecided", "finetune": "kept"}


def test_a_clip_that_is_not_one_is_an_error(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w")
    first = workspace.clips.read().slice(0, 1).to_pylist()[0]
    workspace.clips.append(rows_table([first | {"clip_id": "a" * 30 + "bb"}], schemas.CLIPS, ["width"]))
    opened = longtake.open(workspace.path)
    both = f"{'a' * 32}, {'a' * 30}bb"
    with pytest.raises(longtake.SetupError, match=f"2 clips begin with 'aaaa' in .*: {both}; give more digits"):
        opened.clip("aaaa")
    assert opened.clip("a" * 32).clip_id == "a" * 32
    with pytest.raises(longtake.SetupError, match="no clip is called 'zz'"):
        opened.clip("zz")


class Seen(HTMLParser):
    """The tags and the text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_in_a_notebook_a_strangers_words_stay_text(tmp_path: Path) -> None:
    workspace, evil = fill(tmp_path / "w"), "<script>alert(1)</script><img src=x onerror=alert(2)>"
    row = workspace.captions.read().slice(0, 1).to_pylist()[0]
    assert row["clip_id"] == clip_id("a")
    row |= {"caption": evil, "sub_captions": [f"{evil} {i}" for i in range(5)]}
    workspace.captions.append(rows_table([row], schemas.CAPTIONS, ["text_similarity"]))
    clip = longtake.open(workspace.path).clip("a")
    shown = Seen(clip._repr_html_())
    assert "script" not in shown.tags
    assert "img" not in shown.tags  # No frames of this clip are stored.
    assert shown.text.count(evil) == 6
    assert "pretrain: kept" in shown.text
    assert "psnr 8" in shown.text


# ── curate ───────────────────────────────────────────────────────────────────────────────────────────────────────────

MOVING: dict[str, Any] = {
    "name": "moving",
    "splitting": {"detector": "none", "min_seconds": 2, "window_seconds": 2},
    "sampling": {"partner_seconds": 0.1},
    "filters": {"grayscale": {}, "width": {}},
    "tiers": {"pretrain": {"grayscale": "[1, 254]"}, "wide": {"width": ">= 4000"}},
    "export": {"frames": 60, "preset": "ultrafast", "crf": 30},
}


def test_curate_gives_counts_and_datasets_and_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    video, broken = tmp_path / "pan.mp4", tmp_path / "broken.mp4"
    film(video, pan("table", (2, 0), (200, 60), SMALL, 50), Encoding(size=SMALL))
    broken.write_bytes(b"not a video" * 100)
    (tmp_path / "moving.yaml").write_text(json.dumps(MOVING))
    done = longtake.curate(
        [video, str(broken)], tmp_path / "w", tmp_path / "moving.yaml", until="scan", engine="inline"
    )
    assert (done.computed, done.errors, done.datasets, done.exported) == ({"scan": 2}, {"scan": 1}, {}, {})
    assert capfd.readouterr() == ("", "")
    assert list(done.workspace.verdicts("wide").verdict) == ["rejected"]

    # The recipe and the videos are those of the workspace.
    done = longtake.curate([], tmp_path / "w", engine="inline", progress=True)
    assert done.workspace.recipe.name == "moving"
    assert done.computed == {"scan": 0, "score": 0, "caption": 1, "export": 1}
    assert done.errors == dict.fromkeys(done.computed, 0)
    assert done.exported == {"pretrain": 1, "wide": 0}
    for tier, folder in done.datasets.items():
        assert len(pd.read_parquet(f"{folder}/index.parquet")) == done.exported[tier]
    assert "caption: 1 computed" in capfd.readouterr().out

    told: list[str] = []

    class Watcher:
        def begin(self, stage: str, rows: int) -> None:
            told.append(f"{stage} {rows}")

        def advance(self, report: Any) -> None:
            told.append(f"{report.rows} done")

        def end(self, stage: str, total: Any, seconds: float) -> None:
            told.append(f"{stage} over")

    longtake.curate(broken, tmp_path / "w", retry_errors=True, until="scan", engine="inline", progress=Watcher())
    assert told == ["scan 1", "1 done", "scan over"]
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_curated_is_an_error_of_the_api(tmp_path: Path) -> None:
    with pytest.raises(longtake.RecipeError, match="no recipe 'embeded'"):
        longtake.curate([], tmp_path / "w", "embeded")
    with pytest.raises(longtake.SetupError, match="until='scann': the stages are scan, score, caption, export"):
        longtake.curate([], tmp_path / "w", until="scann")  # type: ignore[arg-type]
    with pytest.raises(longtake.SetupError, match="no videos were given"):
        longtake.curate([], tmp_path / "w", engine="inline")


def test_endpoints_are_allowed_as_by_the_command(tmp_path: Path) -> None:
    from longtake.captioning.permission import permissions_file

    with pytest.raises(longtake.SetupError, match="no videos were given"):
        longtake.curate(
            [], tmp_path / "w", engine="inline", allow_endpoints=["api.vendor.example", "http://node7:8000/v1"]
        )
    assert permissions_file().read_text().split() == ["api.vendor.example:443", "node7:8000"]
    with pytest.raises(longtake.SetupError, match="allow_endpoints: 'no host' is no host"):
        longtake.curate([], tmp_path / "w", allow_endpoints=["no host"])


def test_what_is_no_workspace_is_an_error(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing", str(tmp_path)):
        with pytest.raises(longtake.SetupError, match="is not a workspace"):
            longtake.open(place)
    with pytest.raises(longtake.StoreError, match=r"cannot open the workspace.*nonsense://w"):
        longtake.open("nonsense://w")


def test_a_recipe_is_loaded() -> None:
    assert longtake.load_recipe("embedded").name == "embedded"
    with pytest.raises(longtake.RecipeError, match="Did you mean 'embedded'"):
        longtake.load_recipe("embeded")


# ── the module ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_name_is_there_for_people_and_for_type_checkers() -> None:
    lazy = set(longtake.__all__) - {"__version__"}
    assert lazy == set(longtake._HOME)
    assert sorted(longtake.__all__) == longtake.__all__
    assert set(longtake.__all__) <= set(dir(longtake))
    source = ast.parse(Path(longtake.__file__).read_text())
    seen = {
        alias.name: node.module
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("longtake.")
        for alias in node.names
    }
    assert seen == longtake._HOME
    for name in lazy:
        value = getattr(longtake, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert (value.__module__, value.__name__) == (longtake._HOME[name], name)
            assert inspect.getdoc(value), name
    with pytest.raises(AttributeError, match="module 'longtake' has no attribute 'opne'"):
        _ = longtake.opne  # type: ignore[attr-defined]


def test_importing_it_loads_nothing_else() -> None:
    code = "import json, sys; before = set(sys.modules); import longtake; print(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert loaded - {"importlib", "typing", "longtake"} <= sys.stdlib_module_names
    assert [name for name in json.loads(done.stdout) if name.startswith("longtake")] == ["longtake"]


def test_plug_ins_base_classes_and_a_look_load_nothing_heavy(path: str) -> None:
    code = (
        "import json, sys, longtake; longtake.Filter, longtake.Captioner, longtake.curate; w = longtake.open(sys.argv[1]); "
        "w.verdicts('pretrain'), w.clips(), w.stats(); print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {name.split(".")[0] for name in json.loads(done.stdout)} & {"torch", "ray", "transformers", "av"}


@pytest.mark.parametrize(("program", "cli"), [("longtake", app), ("longtake-presto", trainer)])
def test_the_version_is_printed(program: str, cli: Any) -> None:
    done = CliRunner().invoke(cli, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"{program} {longtake.__version__}\n")


TYPED = """
import longtake
workspace = longtake.open("workspace")
reveal_type(workspace)
reveal_type(workspace.clips())
reveal_type(workspace.clips(["flow"], arrow=True))
reveal_type(workspace.verdicts("pretrain", flow=">= 30", fps=[24, None]))
reveal_type(workspace.clip("4c82").scores)
reveal_type(longtake.curate(["a.mp4"], "workspace").datasets)
reveal_type(longtake.load_recipe("embedded"))
reveal_type(longtake.__version__)
class Mine(longtake.Filter[longtake.Sample]): ...
longtake.opne("workspace")
workspace.verdicts("pretrain", flow=30)
longtake.curate([], "workspace", until="nonsense")
"""


# Only modules of this project are read: with all that they import, mypy takes 40 s. A stub stands in for pandas.
MYPY = """
[mypy]
mypy_path = {stubs}:{source}
follow_imports = skip
ignore_missing_imports = True
[mypy-longtake.*]
follow_imports = silent
"""


def test_type_checkers_see_its_types(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "stubs" / "pandas").mkdir(parents=True)
    (tmp_path / "stubs" / "pandas" / "__init__.pyi").write_text("class DataFrame: ...\n")
    config, snippet = tmp_path / "mypy.ini", tmp_path / "snippet.py"
    config.write_text(MYPY.format(stubs=tmp_path / "stubs", source=ROOT / "src"))
    snippet.write_text(TYPED)
    command = [
        sys.executable,
        "-m",
        "mypy",
        f"--config-file={config}",
        f"--cache-dir={tmp_path / 'cache'}",
        str(snippet),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    told: dict[int, str] = {}
    for line in done.stdout.splitlines():
        if line.startswith(str(snippet)):
            told.setdefault(int(line.split(":")[1]), line)
    expected = {
        4: 'Revealed type is "longtake.curation.api.OpenWorkspace"',
        5: 'Revealed type is "pandas.DataFrame"',
        6: 'Revealed type is "Any"',  # The package pyarrow has no types.
        7: 'Revealed type is "pandas.DataFrame"',
        8: 'Revealed type is "dict[str, float]"',
        9: 'Revealed type is "dict[str, str]"',
        10: 'Revealed type is "longtake.curation.recipe.Recipe"',
        11: 'Revealed type is "str"',
        13: 'Module has no attribute "opne"',
        14: "No overload variant",
    }
    assert told.keys() == expected.keys(), done.stdout + done.stderr
    for line, text in expected.items():
        assert text in told[line].replace("builtins.", "")
